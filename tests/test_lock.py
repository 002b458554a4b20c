"""One process writes a run directory; the others are told which, and it is free when that one is gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from dqn_runner.checkpoint import load_checkpoint
from dqn_runner.lock import RunLock
from dqn_runner.types import UserError
from tests import crash
from tests.conftest import BUDGET, Outcome

COMMAND = [*BUDGET, "trainer.unit=steps", "trainer.target_return=null", "logging=[jsonl]"]
RUN = [*COMMAND, "trainer.max_steps=100000000", "trainer.patience=1000000", "hydra.run.dir=run"]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[ForkServerProcess]:
    """A process that trains in `run`, and has written a checkpoint."""
    process = crash.start(RUN, tmp_path)
    try:
        while not (tmp_path / "run" / "checkpoints" / "best.pt").exists():
            assert process.is_alive(), (tmp_path / "output").read_text()
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.join()


@pytest.mark.slow
def test_a_second_process_is_told_who_has_it(
    running: ForkServerProcess, program: Callable[..., Outcome], tmp_path: Path
):
    holder = f"(pid {running.pid} on host {socket.gethostname()})"
    sweep = ["-m", *RUN[:-1], "hydra.sweep.dir=.", "hydra.sweep.subdir=run"]
    for command in (RUN, sweep, ["resume=run"]):
        error = program(*command).error
        assert f"run is being written by another run {holder}" in error
        assert "wait for it, stop it, or choose another output directory" in error
    judged = program("mode=eval", "checkpoint=run/checkpoints/best.pt", "evaluator.episodes=1")
    assert judged.status == 0, "reading needs no lock"

    step, deadline = step_of(tmp_path / "run"), 1000
    while step_of(tmp_path / "run") == step:
        assert running.is_alive(), "the first one was disturbed"
        assert (deadline := deadline - 1)
        time.sleep(0.05)

    os.kill(running.pid or 0, signal.SIGKILL)
    running.join()
    assert program(*RUN, "trainer.max_steps=1000").status == 0, "the lock of a dead process is free"
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]) == 2


def step_of(run_dir: Path) -> int:
    return load_checkpoint(run_dir / "checkpoints" / "latest.pt")["step"]


class TestRunLock:
    def test_is_held_once_and_can_be_released(self, tmp_path: Path):
        first, second = RunLock(tmp_path / "new"), RunLock(tmp_path / "new")
        first.acquire()
        first.acquire()
        with pytest.raises(UserError, match=rf"\(pid {os.getpid()} on host "):
            second.acquire()
        first.release()
        second.acquire()
        second.release()
