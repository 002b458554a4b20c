"""Output that nobody can receive does not end a program, and does not change its exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from dqn_runner.io.output import ignore_output_errors
ignore_output_errors()
for stream in (sys.stdout, sys.stderr):
    for _ in range(3):
        print("x" * 10_000, file=stream, flush=True)
print("not flushed")
sys.exit({status})
"""


@pytest.mark.parametrize("status", [0, 3])
@pytest.mark.parametrize("where", ["/dev/full", "a closed pipe"])
def test_lost_output_changes_no_exit_status(where: str, status: int) -> None:
    if where == "/dev/full":
        target = os.open(where, os.O_WRONLY)
    else:
        reader, target = os.pipe()
        os.close(reader)
    script = SCRIPT.format(status=status)
    done = subprocess.run([sys.executable, "-c", script], stdout=target, stderr=target, check=False)
    os.close(target)
    assert done.returncode == status


def test_received_output_is_unchanged() -> None:
    script = SCRIPT.format(status=0)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == ("x" * 10_000 + "\n") * 3 + "not flushed\n"


CLOSED = """
import os, sys
from dqn_runner.io.output import ignore_output_errors
ignore_output_errors()
print(sys.stdin.read(), file=sys.stderr, flush=True)
print(sys.stderr.isatty(), flush=True)
with open("file", "w") as file:
    os.write(1, b"C code")
    os.write(2, b"C code")
    sys.exit(3 if file.fileno() > 2 else 4)
"""


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_a_closed_stream_is_the_null_device(closed: str, tmp_path: Path) -> None:
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, CLOSED]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL)
    assert done.returncode == 3
    assert not (tmp_path / "file").read_text()
