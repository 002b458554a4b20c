"""Parts of a user: what they draw is seeded, what they keep is stored, and what they lack is reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import open_dict

from dqn_runner import DQNAgent, DQNConfig, UserError, load_agent
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.agent.networks.architectures import Custom
from dqn_runner.config.build import build_trainer
from dqn_runner.config.schema import to_plain_config, to_typed_config
from dqn_runner.training.assembly import make_replay
from dqn_runner.training.trainer import Trainer
from tests.support.composition import compose_config
from tests.support.own_parts import (
    Choosing,
    DrawnOptimizer,
    DrawnReplay,
    Forgotten,
    Listing,
    Repeating,
    drawn,
)

MODULE = "tests.support.own_parts"


def composed(seed: int, **parts: str) -> Any:
    """The configuration of a short run whose parts are classes of `own_parts`."""
    short = ("agent.learning_starts=20", "agent.exploration.schedule.steps=50", "trainer.eval_episodes=1")
    cfg = compose_config(f"seed={seed}", "trainer.max_steps=60", "compile=off", "logging=[]", *short)
    with open_dict(cfg):
        for name, cls in parts.items():
            cfg.agent[name] = {"_target_": f"{MODULE}.{cls}"}
    return cfg


def trained(path: Path, cfg: Any, max_steps: int) -> Trainer:
    cfg.trainer.max_steps = max_steps
    trainer = build_trainer(to_typed_config(cfg), path, {"config": to_plain_config(cfg)}, None)
    trainer.train()
    return trainer


def values_of(seed: int) -> Any:
    network = Custom(target=f"{MODULE}:DrawnNetwork")
    agent = DQNAgent(DQNConfig(state_dim=4, action_dim=2, seed=seed, network=network))
    return agent.q_values(np.ones((3, 4), np.float32))


def test_what_a_network_draws_when_it_is_built_follows_from_the_seed() -> None:
    first = values_of(1)
    drawn()
    np.testing.assert_array_equal(values_of(1), first)
    assert not np.allclose(values_of(2), first)


def test_what_a_part_draws_when_it_is_built_follows_from_the_seed() -> None:
    first = to_typed_config(composed(1, exploration="DrawnExploration")).agent.exploration
    between = drawn()
    second = to_typed_config(composed(1, exploration="DrawnExploration")).agent.exploration
    assert first.drawn == second.drawn
    assert first.drawn != to_typed_config(composed(2, exploration="DrawnExploration")).agent.exploration.drawn
    assert drawn() != between, "the global generators continue"


def test_what_parts_draw_in_their_first_call_follows_from_the_seed() -> None:
    """An optimizer makes its moments with the agent, a replay its storage with the run."""
    found: list[Any] = []
    for seed in (1, 1, 2):
        drawn()
        config = DQNConfig(
            state_dim=4, action_dim=2, seed=seed, optimizer=DrawnOptimizer(), replay=DrawnReplay()
        )
        agent = DQNAgent(config)
        make_replay(config, agent.spec, 1)
        assert config.optimizer.slow is not None
        found.append(((config.optimizer.slow - agent.learner.online)[0].item(), config.replay.drawn))
    assert found[0] == found[1]
    assert all(one != other for one, other in zip(found[0], found[2], strict=True))


@pytest.mark.usefixtures("no_curves")
def test_a_loaded_agent_has_what_its_parts_drew(tmp_path: Path) -> None:
    trainer = trained(tmp_path, composed(1, exploration="DrawnExploration"), 60)
    drawn()
    loaded = load_agent(tmp_path, trust=True)
    assert loaded._agent.config.exploration.drawn == trainer.agent.config.exploration.drawn


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize(
    "parts",
    [
        {"exploration": "Repeating"},
        {"exploration": "Averaging"},
        {"optimizer": "Slow"},
        {"optimizer": "Half"},
        {"optimizer": "Marking"},
    ],
    ids=str,
)
def test_a_resumed_run_restores_the_state_of_parts(tmp_path: Path, parts: dict[str, str]) -> None:
    expected = trained(tmp_path / "whole", composed(0, **parts), 160)
    trained(tmp_path / "resumed", composed(0, **parts), 90)
    found = trained(tmp_path / "resumed", composed(0, **parts), 160)
    assert torch.equal(found.agent.learner.online, expected.agent.learner.online)
    assert found.recorder.metrics.history() == expected.recorder.metrics.history()


@pytest.mark.usefixtures("no_curves")
def test_moments_that_a_step_makes_are_rejected_when_the_run_is_saved(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"optimizer: its step\(\) made the moments last .* of none; init\(\) must"
    ):
        trained(tmp_path, composed(0, optimizer="Lazy"), 60)


def test_an_optimizer_without_a_dictionary_of_moments_is_named() -> None:
    with pytest.raises(UserError, match=r"Listing: its init\(\) returned \[.*; it must return a dictionary"):
        DQNAgent(DQNConfig(state_dim=4, action_dim=2, optimizer=Listing()))


def test_a_part_with_one_of_the_methods_of_a_state_is_rejected() -> None:
    message = r"Forgotten has state_dict, but no method load_state_dict\(state\): a resumed run needs both"
    with pytest.raises(UserError, match=message):
        DQNAgent(DQNConfig(state_dim=4, action_dim=2, exploration=Forgotten()))


@pytest.mark.usefixtures("no_curves")
def test_what_a_part_keeps_and_no_checkpoint_stores_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place, name in [
        ("exploration", "Forgetful"),
        ("exploration", "Repeating"),
        ("exploration", "Slotted"),
        ("optimizer", "Holding"),
    ]:
        cfg = composed(0, **{place: name})
        cfg.trainer.frequency_unit, cfg.trainer.checkpoint_frequency = "steps", 40
        trained(tmp_path / name, cfg, 160)
    found = sorted(text for text in caplog.messages if "no checkpoint stores it" in text)
    assert [text.partition(" changes during the run")[0].rpartition(".")[2] for text in found] == [
        "Forgetful: its attribute calls",
        "Forgetful: its attribute rng",
        "Slotted: its attribute left",
    ]


@pytest.mark.usefixtures("no_curves")
def test_a_resumed_run_can_have_another_exploration(tmp_path: Path) -> None:
    trained(tmp_path, composed(0, exploration="Repeating"), 60)
    assert trained(tmp_path, composed(0, exploration="DrawnExploration"), 90).step == 90
    assert trained(tmp_path, composed(0, exploration="Repeating"), 120).step == 120


def test_a_state_that_a_checkpoint_cannot_hold_is_rejected() -> None:
    with pytest.raises(
        UserError, match=r"agent.exploration=.*Repeating: its state_dict\(\) must .*left is a set"
    ):
        DQNAgent(DQNConfig(state_dim=4, action_dim=2, exploration=Repeating("sets")))


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (np.array([2]), r"the actions \[2\]"),
        (np.array([-1]), r"the actions \[-1\]"),
        (np.array([0.7]), r"an array of float64 \(1,\)"),
        (np.array([True]), r"an array of bool \(1,\)"),
        (np.array([[0]]), r"an array of int64 \(1, 1\)"),
        (np.array([0, 1]), r"an array of int64 \(2,\)"),
        ([0], "a list"),
        (None, "a NoneType"),
    ],
)
def test_a_choice_of_an_own_exploration_that_is_not_an_action_is_rejected(chosen: Any, found: str) -> None:
    agent = DQNAgent(DQNConfig(state_dim=4, action_dim=2, exploration=Choosing(chosen)))
    for mask in (None, np.ones((1, 2), bool)):
        with pytest.raises(
            UserError, match=rf"agent.exploration=.*Choosing returned {found}; it must .* 0 to 1"
        ):
            agent.explore(np.zeros((1, 4), np.float32), 0, np.random.default_rng(0), mask)


def test_actions_of_an_own_exploration_are_taken() -> None:
    agent = DQNAgent(DQNConfig(state_dim=4, action_dim=2, exploration=Choosing(np.array([1, 0]))))
    actions = agent.explore(np.zeros((2, 4), np.float32), 0, np.random.default_rng(0))
    assert actions.tolist() == [1, 0]


class Value:
    """A schedule that does not say how long it changes."""

    def __call__(self, step: int) -> float:
        return 1.0


class Lacking:
    """A part that has nothing at all."""


@pytest.mark.parametrize(
    ("make", "key", "cls", "member"),
    [
        (lambda: EpsilonGreedy(schedule=Value()), "exploration.schedule", "Value", "'duration' of Schedule"),
        (
            lambda: DQNConfig(learning_rate_schedule=Value()),
            "learning_rate_schedule",
            "Value",
            "'duration' of Schedule",
        ),
        (lambda: DQNConfig(optimizer=Lacking()), "optimizer", "Lacking", "'init' of Optimizer"),
        (lambda: DQNConfig(exploration=Value()), "exploration", "Value", "'epsilon' of Exploration"),
        (lambda: DQNConfig(loss=Value()), "loss", "Value", "'outputs_per_action' of Loss"),
        (lambda: DQNConfig(network=Lacking()), "network", "Lacking", "'build' of Network"),
        (lambda: DQNConfig(replay=Lacking()), "replay", "Lacking", "'num_bytes' of ReplayConfig"),
        (lambda: QLearning(target=Lacking()), "loss.target", "Lacking", "'__call__' of TargetRule"),
    ],
)
def test_a_part_without_a_member_of_its_interface_is_rejected(
    make: Callable[[], Any], key: str, cls: str, member: str
) -> None:
    with pytest.raises(UserError) as error:
        make()
    expected = f"agent.{key}={__name__}.{cls} cannot be used: the member {member} is missing; docs/api/exten"
    assert str(error.value).startswith(expected)
