"""A replay of the user's own is resumed exactly, whatever its state consists of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig, UserError
from dqn_runner.core.exceptions import CallbackError
from dqn_runner.replay.prioritized import PrioritizedReplay
from dqn_runner.run import plots
from tests.support.own_replay import ListReplay, Lists


@pytest.fixture(autouse=True)
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)


@dataclass(kw_only=True)
class Derived(PrioritizedReplay):
    """A replay of the user's own that the program's parts build."""


class Interrupting:
    """A callback that raises at an env step."""

    def __init__(self, at: int | None) -> None:
        self.at = at

    def on_evaluation(self, run: Any, evaluation: Any) -> None:
        if run.step == self.at:
            raise ValueError("interrupted")


def trainer(directory: Path, replay: Any, interrupted_at: int | None = None) -> Trainer:
    agent = DQNAgent(
        DQNConfig(
            state_dim=4, action_dim=2, seed=3, learning_starts=20, batch_size=8, compile=False, replay=replay,
            n_step=1 if isinstance(replay, ListReplay) else 3,
        )
    )  # fmt: skip
    config = TrainingConfig(
        max_steps=300, frequency_unit="steps", eval_frequency=50, eval_episodes=1, checkpoint_frequency=40,
        log_frequency=30, target_return=None, early_stopping=False,
    )  # fmt: skip
    callbacks = [Interrupting(interrupted_at)]
    return Trainer(agent, gymnasium.make("CartPole-v1"), config, directory, callbacks=callbacks)


def content(directory: Path) -> list[str]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [line.partition('"time/elapsed"')[0] for line in lines]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recorded episodes."""
    draws = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("recording") / "steps.npz"
    ends = np.arange(1, 61) % 30 == 0
    observations = draws.normal(size=(61, 4)).astype(np.float32)
    np.savez(
        path,
        observations=observations[:-1],
        next_observations=observations[1:],
        actions=draws.integers(2, size=60),
        rewards=np.ones(60, np.float32),
        terminations=ends,
        truncations=np.zeros(60, bool),
    )
    return path


@pytest.mark.parametrize("kind", [ListReplay, Derived])
@pytest.mark.parametrize("demonstrations", [0.0, 0.5])
def test_a_resume_gives_what_an_uninterrupted_run_does(
    tmp_path: Path, recording: Path, kind: type[Any], demonstrations: float
) -> None:
    def replay() -> Any:
        beside = {"preload": str(recording), "demonstrations": demonstrations} if demonstrations else {}
        return kind(capacity=150, **beside)

    whole = trainer(tmp_path / "whole", replay())
    whole.train()
    with pytest.raises(CallbackError, match="interrupted"):
        trainer(tmp_path / "run", replay(), interrupted_at=200).train()
    resumed = trainer(tmp_path / "run", replay())
    resumed.train()
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    assert resumed.agent.learner.online.equal(whole.agent.learner.online)


def test_what_a_checkpoint_cannot_store_is_named(tmp_path: Path) -> None:
    message = (
        r"^a checkpoint cannot store what a part of your own keeps: state\.replay\.own\.rows is a deque; "
    )
    with pytest.raises(UserError, match=message):
        trainer(tmp_path, ListReplay(keeps="deque later")).train()
    log = (tmp_path / "logs" / "training.log").read_text()
    assert "the state could not be saved: a checkpoint cannot store" in log
    assert "Traceback" not in log


def test_what_a_checkpoint_cannot_store_is_rejected_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^agent\.replay=.*ListReplay: .*: state\.rows is a deque; "):
        trainer(tmp_path, ListReplay(keeps="deque"))
    assert not any(tmp_path.iterdir())


def test_a_state_that_contains_itself_is_rejected_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^agent\.replay=.*ListReplay: its state_dict\(\) .*contains itself"):
        trainer(tmp_path, ListReplay(keeps="itself"))
    assert not any(tmp_path.iterdir())


def test_a_state_that_is_not_a_dictionary_is_rejected_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"ListReplay: state_dict\(\) of its replay returned nothing, not a dictionary"
    ):
        trainer(tmp_path, ListReplay(keeps="nothing"))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["truncate", "load_state_dict"])
def test_a_replay_that_lacks_a_method_is_rejected_before_the_first_step(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Lists, method)
    with pytest.raises(
        UserError, match=rf"ListReplay: the Lists that its build.* has no method {method}\(\)"
    ):
        trainer(tmp_path, ListReplay())


def test_a_replay_that_rejects_its_state_is_named(tmp_path: Path) -> None:
    trainer(tmp_path, ListReplay()).train()
    with pytest.raises(
        UserError, match=r"ListReplay: its replay cannot load its stored state: KeyError: 'gone'"
    ):
        trainer(tmp_path, ListReplay(keeps="other")).resume(tmp_path)
