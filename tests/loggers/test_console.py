"""The console: human-readable lines, and a progress bar on a terminal."""

from __future__ import annotations

import io
import math
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dqn_runner.core.log import log
from dqn_runner.core.records import Record
from dqn_runner.loggers.console import Console
from dqn_runner.loggers.text_log import format_record
from tests.conftest import BUDGET, Outcome, environment, write_my_env
from tests.support.fork_server import forked_python
from tests.support.records import EPISODE, EVAL, INFO, TRAIN, write


class TestFormatRecord:
    def test_a_training_record_as_a_line(self):
        assert format_record(TRAIN) == (
            "train step 12,000 episode 345: return 123.5, loss 0.0001235, Q 45.68, epsilon 0.05, "
            "4,321 steps/s, ETA 1:02:05"
        )

    def test_an_evaluation_record_as_a_line(self):
        assert format_record(EVAL) == "eval  step 2,000 episode 50: mean return 475.5, std 12"

    def test_a_training_record_before_the_first_update_as_a_line(self):
        record = Record("train", 10, 0, {"train/epsilon": 1.0, "time/elapsed": 0.1})
        assert format_record(record) == "train step 10 episode 0: epsilon 1"

    def test_an_unknown_eta_is_left_out_of_the_line(self):
        """The ETA of a budget of episodes is unknown until the first episode ends."""
        record = Record("train", 10, 0, {"train/epsilon": 1.0, "time/eta": math.nan})
        assert format_record(record) == "train step 10 episode 0: epsilon 1"

    def test_loggers_accept_an_unknown_eta(self, program: Callable[..., Outcome]):
        budget = ("trainer.max_steps=null", "trainer.max_episodes=1", "trainer.eval_episodes=1")
        done = program("env=acrobot", *BUDGET, *budget, "logging=[console,jsonl,csv]")
        assert done.status == 0, done.err


class TestConsole:
    def test_the_console_writes_plain_lines_without_a_terminal(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        logger = Console().open(tmp_path, INFO, None)
        for record in (EPISODE, TRAIN, EVAL):
            logger.write(record)
        log.info("a message")
        logger.close(failed=False)
        log.info("a message after the end")
        shown = capsys.readouterr().err
        assert shown.splitlines() == [format_record(TRAIN), format_record(EVAL), "a message"]

    @pytest.mark.slow
    def test_the_console_shows_a_progress_bar_on_a_terminal(self, tmp_path: Path):
        status, shown = on_a_terminal(tmp_path, *BUDGET, "hydra.run.dir=run")
        assert status == 0
        assert HIDE_CURSOR in shown
        assert shown.count(SHOW_CURSOR) == 1
        text = plain(shown)
        assert "steps ━" in text
        assert "1200/1200 return" in text
        assert "eval step 400 episode" in text
        assert re.search(r"ETA \d:\d\d:\d\d", text)
        assert re.search(r"best evaluation .* at step ", text.partition(SHOW_CURSOR)[2] or text)

    @pytest.mark.slow
    def test_the_progress_bar_is_closed_when_a_run_fails(self, tmp_path: Path):
        write_my_env(tmp_path)
        (tmp_path / "broken").touch()
        status, shown = on_a_terminal(
            tmp_path, "env.id=my_pkg.envs.MyEnv", "env.kwargs.at=650", "trainer.retry_env=false", *BUDGET
        )
        assert status == 1
        bar, _, after = shown.rpartition(SHOW_CURSOR)
        assert HIDE_CURSOR in bar
        assert HIDE_CURSOR not in after
        assert "RuntimeError: the sensor is lost" in plain(bar), "the traceback is above the bar"
        assert "error: the run failed: RuntimeError: the sensor is lost" in plain(after)

    def test_the_progress_bar_can_be_turned_off(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        stderr = io.StringIO()
        monkeypatch.setattr(stderr, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stderr", stderr)
        write(Console(progress_bar=False), tmp_path, TRAIN)
        assert stderr.getvalue() == format_record(TRAIN) + "\n"


HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def on_a_terminal(cwd: Path, *args: str) -> tuple[int, str]:
    """Exit code of the program, and its output on a terminal of 160 columns."""
    controller, terminal = pty.openpty()
    command = [forked_python(), "-m", "dqn_runner", *args]
    variables = environment(TERM="xterm", COLUMNS="160", LINES="40")
    with subprocess.Popen(
        command, cwd=cwd, env=variables, stdin=terminal, stdout=terminal, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        while chunk := read_terminal(controller):
            shown += chunk
        os.close(controller)
        return process.wait(), shown.decode()


def read_terminal(descriptor: int) -> bytes:
    """Output since the last call; empty when the terminal is closed."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def plain(shown: str) -> str:
    """`shown` without colours and cursor movements, with single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown))
