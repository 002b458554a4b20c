"""The self-test that users run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dqn_runner.selftest import __main__ as selftest
from dqn_runner.selftest import checks
from dqn_runner.selftest.checks import CheckFailedError, Program


def passes(_: Program) -> str:
    """Something."""
    return "found"


def fails(program: Program) -> str:
    """Something else."""
    (program.folder / "left").write_text("")
    raise CheckFailedError("it is broken")


def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: list[Any], *arguments: str) -> int:
    monkeypatch.setattr(selftest, "QUICK", found)
    monkeypatch.setattr(selftest, "FULL", [passes])
    monkeypatch.setattr(selftest.tempfile, "mkdtemp", lambda prefix: str(tmp_path))  # noqa: ARG005
    monkeypatch.setattr(sys, "argv", ["selftest", *arguments])
    return selftest.main()


def test_a_line_for_each_check_and_a_last_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert call(monkeypatch, folder, [passes], "--full") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0] for line in lines] == ["ok      Something: found"] * 2 + [
        "ALL TESTS PASSED!"
    ]
    assert not folder.exists()


def test_a_check_that_raises_anything_is_a_failed_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(_: Program) -> str:
        """A broken installation."""
        raise KeyError("CartPole")

    assert call(monkeypatch, tmp_path, [breaks, passes]) == 1
    out = capsys.readouterr().out
    assert "FAILED  A broken installation\n        KeyError: 'CartPole'\n" in out
    assert "1 of 2 checks failed" in out


def test_a_failed_check_is_reported_and_its_files_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, tmp_path, [fails, passes]) == 1
    out = capsys.readouterr().out
    assert "FAILED  Something else\n        it is broken\n" in out
    assert out.endswith(f"1 of 2 checks failed; what they wrote is in {tmp_path}\n")
    assert (tmp_path / "left").exists()


def test_a_command_that_fails_shows_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match=r"dqn_runner seed=x\n +status 2\n +error: seed"):
        Program(tmp_path).run("seed=x")


class Killed:
    """A process that runs until it is killed."""

    def poll(self) -> None:
        return None

    def kill(self) -> None: ...

    def wait(self) -> None: ...


@pytest.mark.parametrize("last", [1.0, 1.0000001])
def test_a_run_that_is_not_exact_fails(last: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def write(name: str, value: float) -> None:
        run = tmp_path / name
        run.mkdir(exist_ok=True)
        records = [{"step": 400, "value": 1.0, "time/elapsed": value}, {"step": 500, "value": value}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        (run / "metrics.json").write_text(json.dumps({"best": 1.0, "time": value}))

    write("whole", 1.0)
    monkeypatch.setattr(Program, "start", lambda *_: [write("killed", 0.5), Killed()][1])
    monkeypatch.setattr(Program, "run", lambda *_: write("killed", last))
    if last == 1.0:
        assert checks.check_resume(Program(tmp_path)) == "1 kill, then the same numbers to the last bit"
        return
    with pytest.raises(CheckFailedError, match=r"metrics.jsonl is not that of .*whole"):
        checks.check_resume(Program(tmp_path))


@pytest.mark.slow
@pytest.mark.nightly
def test_the_self_test_passes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dqn_runner.selftest"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout.endswith("ALL TESTS PASSED!\n"), done.stdout + done.stderr
