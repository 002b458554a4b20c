"""A process that code of the user forks does not continue the run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
from dqn_runner.envs.gym import GymEnv
from dqn_runner.io.forks import ending_forks
from dqn_runner.io.signals import as_error
from dqn_runner.run import plots
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


def lines(path: Path, end: str, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[str]:
    monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)
    agent = DQNAgent(DQNConfig(state_dim=1, action_dim=2, learning_starts=20, batch_size=8, compile=False))
    config = TrainingConfig(max_steps=60, frequency_unit="steps", eval_frequency=30, eval_episodes=1)
    env = GymEnv(id="tests.support.forking:Forking", kwargs={"end": end}, **settings)
    Trainer(agent, env, config, path).train()
    assert not (path / "logs" / "training.log").read_text().count("creating it again")
    return [line.partition('"time/')[0] for line in (path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("end", ["exit", "raise"])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_the_helper_of_an_environment_may_end_by_an_exception(
    tmp_path: Path, end: str, vectorization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = lines(tmp_path / "expected", "_exit", monkeypatch)
    assert lines(tmp_path / "run", end, monkeypatch, vectorization=vectorization) == expected


def test_the_helper_of_an_environment_object_may_too() -> None:
    with ending_forks():
        assert status_of_fork(lambda: as_error(RuntimeError("a"))) == 1
    assert Forking("_exit").reset()[1] == {}
