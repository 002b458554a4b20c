"""Loggers and replays that raise: what a run saves then, and what a resume from it gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig, UserError
from dqn_runner.core.exceptions import LoggerError
from dqn_runner.core.records import Record
from dqn_runner.loggers.base import LoggerPart
from dqn_runner.loggers.files import JsonLines, TextFile
from dqn_runner.replay.uniform import UniformReplay
from dqn_runner.run import plots


@pytest.fixture(autouse=True)
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)


class Failing:
    """A logger part that is its own logger, and raises in its `fails_at`-th write."""

    def __init__(self, fails_at: int | None, state: Any = None) -> None:
        self.fails_at, self.state = fails_at, {} if state is None else state

    def open(self, run_dir: Path, info: Any, state: Any) -> Any:
        self.opened = state
        return self

    def write(self, record: Record) -> None:
        if self.fails_at is not None:
            self.fails_at -= 1
            if self.fails_at == 0:
                raise ValueError("no connection")

    def state_dict(self) -> Any:
        return self.state

    def close(self, failed: bool) -> None:
        pass


@dataclass
class FailingReplay(UniformReplay):
    """A replay whose buffer raises in its `fails_at`-th `add`, if that is not 0."""

    fails_at: ClassVar[int] = 0

    def build(self, *arguments: Any) -> Any:
        buffer: Any = super().build(*arguments)
        add, left = buffer.add, [self.fails_at]

        def failing(*transition: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise ValueError("the shelf is full")
            add(*transition)

        buffer.add = failing
        return buffer


def trainer(directory: Path, mine: Any) -> Trainer:
    config = DQNConfig(state_dim=4, action_dim=2, seed=3, learning_starts=20, batch_size=8, compile=False)
    agent = DQNAgent(replace(config, replay=FailingReplay(capacity=500)))
    settings = TrainingConfig(
        max_steps=300, frequency_unit="steps", eval_frequency=60, eval_episodes=1, checkpoint_frequency=60,
        log_frequency=30, target_return=None, early_stopping=False,
    )  # fmt: skip
    loggers: dict[str, LoggerPart] = {"file": TextFile(), "jsonl": JsonLines(), "mine": mine}
    return Trainer(agent, gymnasium.make("CartPole-v1"), settings, directory, loggers=loggers)


def content(directory: Path) -> list[str]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [line.partition('"time/elapsed"')[0] for line in lines]


def test_a_resume_after_a_logger_raised_gives_what_an_uninterrupted_run_does(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", Failing(None))
    whole.train()
    expected = content(tmp_path / "whole")
    for fails_at in (4, len(expected) // 2, len(expected) - 3):
        directory = tmp_path / str(fails_at)
        with pytest.raises(
            LoggerError, match=r"^logging\.mine \(.*Failing\.write\) raised ValueError: no conn"
        ):
            trainer(directory, Failing(fails_at)).train()
        assert "no state is saved in the middle" in (directory / "logs" / "training.log").read_text()
        resumed = trainer(directory, Failing(None))
        resumed.train()
        assert content(directory) == expected
        assert resumed.agent.learner.online.equal(whole.agent.learner.online)


def test_a_logger_gets_its_state_with_arrays(tmp_path: Path) -> None:
    trainer(tmp_path, Failing(None, {"counts": np.zeros(3, np.int64), "mean": np.float32(1.5)})).train()
    logger = Failing(None)
    trainer(tmp_path, logger).train()
    assert type(logger.opened["counts"]) is np.ndarray
    assert type(logger.opened["mean"]) is np.float32


@pytest.mark.parametrize("fails_at", [30, 150])
def test_a_resume_after_a_replay_raised_in_add_gives_what_an_uninterrupted_run_does(
    tmp_path: Path, fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer(tmp_path / "whole", Failing(None))
    whole.train()
    monkeypatch.setattr(FailingReplay, "fails_at", fails_at)
    with pytest.raises(ValueError, match="the shelf is full"):
        trainer(tmp_path / "run", Failing(None)).train()
    monkeypatch.setattr(FailingReplay, "fails_at", 0)
    assert "no state is saved in the middle" in (tmp_path / "run" / "logs" / "training.log").read_text()
    resumed = trainer(tmp_path / "run", Failing(None))
    resumed.train()
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    assert resumed.agent.learner.online.equal(whole.agent.learner.online)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1], r"^logging\.mine: its state_dict\(\) returned a list, not a dictionary$"),
        ({1: 2}, r"^logging\.mine: its state_dict\(\) must consist of numbers, texts"),
        ({"connection": object()}, r"^logging\.mine: its state_dict\(\) must consist of numbers, texts"),
    ],
)
def test_a_state_of_a_logger_that_no_checkpoint_can_store_is_rejected(
    tmp_path: Path, state: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        trainer(tmp_path, Failing(None, state)).train()


def test_a_logger_may_store_what_it_likes(tmp_path: Path) -> None:
    trainer(tmp_path, Failing(None, {"offset": -1, "seen": np.arange(3)})).train()
    assert trainer(tmp_path, Failing(None)).train().steps == 300


class WithoutClose:
    """A logger that lacks a method."""

    def open(self, *_: Any) -> Any:
        return self

    def write(self, record: Record) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}


class WithoutArguments:
    """A logger whose `open` has another signature."""

    def open(self) -> Any:
        return self


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (WithoutClose(), r"TypeError: the WithoutClose that it returned has no close\(\)"),
        (WithoutArguments(), r"TypeError: WithoutArguments.open\(\) takes 1 positional argument"),
    ],
)
def test_a_logger_that_lacks_a_method_is_named(tmp_path: Path, part: Any, reason: str) -> None:
    with pytest.raises(LoggerError, match=rf"^logging\.mine \(.*\.open\) raised {reason}"):
        trainer(tmp_path, part).train()


class PlainReplay:
    """The settings of a replay, not as a dataclass."""

    def __init__(self) -> None:
        self.inner, self.capacity = UniformReplay(capacity=500), 500

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["inner"], name)


def test_a_replay_that_is_not_a_dataclass_is_named(tmp_path: Path) -> None:
    agent = DQNAgent(DQNConfig(state_dim=4, action_dim=2, replay=PlainReplay()))
    with pytest.raises(
        UserError, match=r"PlainReplay must be a dataclass, .*; put @dataclass before the class"
    ):
        Trainer(agent, gymnasium.make("CartPole-v1"), TrainingConfig(max_steps=10), tmp_path)


def test_a_trainer_trains_once(tmp_path: Path) -> None:
    made = trainer(tmp_path, Failing(None))
    made.train()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="make a new Trainer with the same output directory, which continues"):
        made.train()
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert trainer(tmp_path, Failing(None)).train().reason
