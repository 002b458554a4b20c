"""Output that nobody can receive does not end a program, and does not change its exit status."""

from __future__ import annotations

import os
import subprocess
import sys

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
