"""A process that code of the user forks does not continue the run."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
from dqn_runner.envs.gym import GymEnv
from dqn_runner.io.forks import ending_forks
from dqn_runner.io.signals import as_error
from dqn_runner.loggers.logger_group import default_loggers
from dqn_runner.run import plots
from tests.support.counter import Counter
from tests.support.forking import Forking

CAME_BACK = 99


def status_of_fork(child: Callable[[], Any]) -> int:
    """The exit status of a process that is forked, calls `child`, and has CAME_BACK if that returns."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(CAME_BACK)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (SystemExit(), 0),
        (SystemExit(3), 3),
        (SystemExit("a text"), 1),
        (ValueError("a"), 1),
        (KeyboardInterrupt(), 1),
    ],
    ids=repr,
)
def test_an_exception_ends_a_forked_process_as_python_does(raised: BaseException, status: int) -> None:
    with ending_forks():
        assert status_of_fork(lambda: as_error(raised)) == status


def test_an_exception_in_the_process_itself_and_in_one_that_trains_is_an_error() -> None:
    with ending_forks():
        assert isinstance(as_error(ValueError("a")), ValueError)

        def trains() -> None:
            with ending_forks():
                as_error(ValueError("a"))

        assert status_of_fork(trains) == CAME_BACK
    assert status_of_fork(lambda: as_error(ValueError("a"))) == CAME_BACK


def in_pool(_: int) -> str:
    try:
        raise as_error(ValueError("handled here"))
    except ValueError as error:
        return str(error)


def test_a_process_of_multiprocessing_handles_its_exceptions_itself() -> None:
    with ending_forks(), multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map_async(in_pool, [0]).get(60) == ["handled here"]


def test_the_text_of_an_exit_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with ending_forks():
        status_of_fork(lambda: as_error(SystemExit("no simulator")))
    assert capfd.readouterr().err == "no simulator\n"


class Uploading:
    """A logger that forks a process for each record, which ends by an exception."""

    def open(self, run_dir: Path, info: Any, state: Any) -> Any:
        return self

    def write(self, record: Any) -> None:
        if (child := os.fork()) == 0:
            raise ConnectionError("the upload failed")
        os.waitpid(child, 0)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def close(self, failed: bool) -> None:
        pass


def train(path: Path, env: Any, monkeypatch: pytest.MonkeyPatch, **arguments: Any) -> list[str]:
    """The records of a run."""
    monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)
    agent = DQNAgent(DQNConfig(state_dim=1, action_dim=2, learning_starts=20, batch_size=8, compile=False))
    config = TrainingConfig(max_steps=60, frequency_unit="steps", eval_frequency=30, eval_episodes=1)
    Trainer(agent, env, config, path, **arguments).train()
    assert not (path / "logs" / "training.log").read_text().count("creating it again")
    return [line.partition('"time/')[0] for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("end", ["exit", "raise"])
@pytest.mark.parametrize("vectorization", ["sync", "async", "object"])
def test_the_helper_of_an_environment_may_end_by_an_exception(
    tmp_path: Path, end: str, vectorization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reset forks one, also those of the evaluation, and those before the first step."""

    def env(end: str, vectorization: str) -> Any:
        if vectorization == "object":
            return Forking(end)
        name = f"{Forking.__module__}:{Forking.__name__}"
        return GymEnv(id=name, kwargs={"end": end}, vectorization=vectorization)

    expected = train(tmp_path / "expected", env("_exit", vectorization), monkeypatch)
    assert train(tmp_path / "run", env(end, vectorization), monkeypatch) == expected
    assert len(expected) > 10


def test_the_helper_of_a_logger_may_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train(tmp_path / "expected", Counter(), monkeypatch)
    loggers = {**default_loggers(), "upload": Uploading()}
    assert train(tmp_path / "run", Counter(), monkeypatch, loggers=loggers) == expected
