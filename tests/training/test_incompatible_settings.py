"""Settings that do not fit each other, the env or the machine are rejected before the first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dqn_runner import DQNConfig, TrainingConfig, UserError
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.schedules import Constant, Linear
from dqn_runner.core.types import EnvSpec
from dqn_runner.replay.uniform import UniformReplay
from dqn_runner.training import checks
from tests.conftest import Outcome

SPEC = EnvSpec(obs_shape=(4,), num_actions=2)


def error_of(agent: DQNConfig, trainer: TrainingConfig | None = None, spec: EnvSpec = SPEC) -> str:
    """The message that rejects these settings."""
    with pytest.raises(UserError) as caught:
        checks.check(agent, spec, trainer or TrainingConfig(), SPEC)
    return str(caught.value)


def test_default_settings_are_accepted() -> None:
    checks.check(DQNConfig(), SPEC, TrainingConfig(max_steps=100_000), SPEC)


def test_settings_equal_to_their_limits_are_accepted() -> None:
    agent = DQNConfig(
        batch_size=50,
        learning_starts=50,
        replay=UniformReplay(capacity=50),
        exploration=EpsilonGreedy(schedule=Linear(steps=51)),
    )
    checks.check(agent, SPEC, TrainingConfig(max_steps=51), SPEC)


def test_a_batch_larger_than_the_replay_is_rejected() -> None:
    agent = DQNConfig(batch_size=129, learning_starts=10, replay=UniformReplay(capacity=128))
    assert error_of(agent) == "agent.batch_size=129 is larger than agent.replay.capacity=128"


def test_learning_starts_larger_than_the_replay_is_rejected() -> None:
    agent = DQNConfig(learning_starts=501, replay=UniformReplay(capacity=500))
    assert error_of(agent).startswith("agent.learning_starts=501 is larger than agent.replay.capacity=500")


def test_learning_starts_that_is_not_below_the_budget_is_rejected() -> None:
    agent = DQNConfig(learning_starts=500, exploration=EpsilonGreedy(schedule=Constant()))
    assert error_of(agent, TrainingConfig(max_steps=500)) == (
        "agent.learning_starts=500 is not below trainer.max_steps=500: no update would be made"
    )


def test_an_exploration_schedule_longer_than_the_budget_is_rejected() -> None:
    agent = DQNConfig(exploration=EpsilonGreedy(schedule=Linear(steps=2001)))
    assert error_of(agent, TrainingConfig(max_steps=2000)).startswith(
        "agent.exploration.schedule takes 2001 env steps, longer than trainer.max_steps=2000"
    )


def test_a_long_exploration_schedule_is_accepted_if_the_budget_is_in_episodes() -> None:
    agent = DQNConfig(exploration=EpsilonGreedy(schedule=Linear(steps=10**9)))
    checks.check(agent, SPEC, TrainingConfig(max_episodes=1), SPEC)


def test_a_replay_larger_than_free_memory_is_rejected_with_a_capacity_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "available_memory", lambda: 2**30)
    agent = DQNConfig(replay=UniformReplay(capacity=2**26))  # 48 bytes per transition
    message = error_of(agent)
    assert "needs 3.0 GiB of memory for observations (4,) float32, but 1.0 GiB are free" in message
    suggested = int(message.rpartition("a capacity of ")[2].split()[0])
    assert 2**23 < suggested < 2**30 / 48


def test_an_agent_built_for_another_env_is_rejected() -> None:
    other = EnvSpec(obs_shape=(60,), num_actions=7)
    assert error_of(DQNConfig(), spec=other).startswith(
        "the agent was built for observations (60,) and 7 actions, the environment has (4,) and 2"
    )


def test_all_incompatible_settings_are_listed_in_one_message() -> None:
    agent = DQNConfig(
        batch_size=129,
        learning_starts=200,
        replay=UniformReplay(capacity=128),
        exploration=EpsilonGreedy(schedule=Linear(steps=101)),
    )
    message = error_of(agent, TrainingConfig(max_steps=100))
    assert message.count("; ") >= 3
    for key in ("agent.batch_size", "agent.learning_starts", "agent.exploration.schedule"):
        assert key in message


def test_the_program_rejects_incompatible_settings_before_it_writes_a_checkpoint(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    settings = (
        "agent.replay.capacity=100",
        "agent.learning_starts=1000",
        "agent.exploration.schedule.steps=950",
    )
    message = program(*settings, "trainer.max_steps=900", "hydra.run.dir=run").error
    for key in ("agent.batch_size", "agent.learning_starts", "agent.exploration.schedule"):
        assert key in message
    assert not (tmp_path / "run" / "checkpoints").exists()
