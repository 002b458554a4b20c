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

from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.config.command_line import expand_arguments
from dqn_runner.core.exceptions import UserError
from dqn_runner.io.lock import RunLock, reject_if_locked
from tests.conftest import BUDGET, Outcome
from tests.support import crash

COMMAND = [*BUDGET, "trainer.frequency_unit=steps", "trainer.target_return=null", "logging=[jsonl]"]
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
    composed = contents(tmp_path / "run" / ".hydra")
    assert composed
    sweep = ["-m", *RUN[:-1], "hydra.sweep.dir=.", "hydra.sweep.subdir=run"]
    for command in (["resume=run", "seed=5"], [*RUN, "seed=5"], sweep):
        assert contents(tmp_path / "run" / ".hydra") == composed
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


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


class TestACommand:
    """On a directory whose lock is held; what Hydra would write there comes after."""

    @pytest.fixture
    def held(self, tmp_path: Path) -> Iterator[Path]:
        """One whose name Hydra takes only in quotes."""
        lock = RunLock(tmp_path / "my run, 2")
        lock.acquire()
        yield tmp_path / "my run, 2"
        lock.release()

    def test_that_would_train_there_is_refused_before_anything_is_written(
        self, held: Path, program: Callable[..., Outcome]
    ):
        for key in ("hydra.run.dir", "++hydra.run.dir"):
            error = program("env=cartpole", f"{key}='my run, 2'").error
            assert f"my run, 2 is being written by another run (pid {os.getpid()} on host" in error
        assert contents(held).keys() == {".lock"}

    @pytest.mark.parametrize(
        "others",
        [
            ["--cfg", "job"],
            ["--info", "config"],
            ["--help"],
            ["-m", "seed=0,1"],
            ["mode=eval", "checkpoint.path=null"],
        ],
        ids=str,
    )
    def test_that_does_not_train_there_is_not(self, held: Path, others: list[str]):
        command = [*others, f"hydra.run.dir='{held}'"]
        assert expand_arguments(command) == command

    def test_that_begins_anew_is_not(self, held: Path):
        """It goes to another directory, as one does whose name is not known yet."""
        free = f"hydra.run.dir='{held}-2'"
        assert expand_arguments(["resume=never", f"hydra.run.dir='{held}'"]) == ["resume=never", free]
        later = ["hydra.run.dir=my/${seed}"]
        assert expand_arguments(later) == later


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

    def test_who_asks_takes_nothing(self, tmp_path: Path):
        reject_if_locked(tmp_path / "nowhere")
        lock = RunLock(tmp_path)
        lock.acquire()
        with pytest.raises(UserError, match=rf"\(pid {os.getpid()} on host "):
            reject_if_locked(tmp_path)
        lock.release()
        reject_if_locked(tmp_path)
        lock.acquire()
        lock.release()
