"""Every agent option learns the known values of five tiny environments."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner.agent.losses.categorical import Categorical
from dqn_runner.agent.losses.targets import MunchausenTarget
from dqn_runner.config.build import build_trainer
from tests.support.probes import (
    GAMMA,
    PROBES,
    ActionAndObservation,
    Probe,
    agent_options,
    compose_run,
)

TOLERANCE = 0.05
SETTINGS = [
    f"agent.gamma={GAMMA}",
    "agent.learning_rate=3e-3",
    "agent/learning_rate_schedule=linear",
    "agent.learning_rate_schedule.steps=350",
    "agent.learning_rate_schedule.final=0.03",
    "agent.batch_size=32",
    "agent.learning_starts=50",
    "agent.train_every=1",
    "agent.target_update_every=5",
    "agent.tau=1",
    "trainer.max_episodes=350",
    "trainer.max_steps=null",
    "trainer.eval_frequency=1000000",
    "trainer.eval_episodes=1",
    "trainer.checkpoint_frequency=1000000",
    "logging=[]",
]


pytestmark = pytest.mark.usefixtures("no_curves")


def test_agent_options_include_those_of_conf() -> None:
    assert {"dqn", "double_dqn"} <= set(agent_options())


@cache
def settings_of(option: str) -> list[str]:
    """The overrides of a run. A categorical loss gets a support for these small values."""
    categorical = isinstance(compose_run([f"agent={option}"]).agent.loss, Categorical)
    support = ["agent.loss.v_min=-4", "agent.loss.v_max=4", "agent.loss.num_atoms=81"]
    return [*SETTINGS, *(support if categorical else [])]


def learned_values(target: Any, values: list[float]) -> list[float]:
    """The values that a loss with `target` learns for the action values of an observation.

    MunchausenTarget adds the scaled log-probability of the action. Compared with its temperature, actions are
    either equal here, with probability 1/2, or so different that the log-probability is clipped at the floor.
    """
    if not isinstance(target, MunchausenTarget):
        return values
    log_policy = torch.log_softmax(torch.tensor(values) / target.temperature, -1)
    added = target.alpha * (target.temperature * log_policy).clamp(min=target.floor)
    return (torch.tensor(values) + added).tolist()


def marked_cases() -> list[Any]:
    """Every agent in every environment; CI has only the hardest one for agents other than DQN and Rainbow.

    Who learns the values of ActionAndObservation can fit a constant and tells observations and actions
    apart. A delayed reward is a matter of replay and targets, which the agents share with these two.
    """
    return [
        pytest.param(
            option, probe, id=f"{option}-{probe.__name__}", marks=[pytest.mark.nightly] if late else []
        )
        for option in agent_options()
        for probe in PROBES
        for late in [probe is not ActionAndObservation and option not in ("dqn", "rainbow")]
    ]


@pytest.mark.parametrize(("option", "probe"), marked_cases())
def test_pitfall_26_every_agent_learns_the_values_of_tiny_environments(
    option: str, probe: type[Probe], tmp_path: Path
) -> None:
    env = ["env=gym", f"env.id={probe.__module__}:{probe.__name__}"]
    trainer = build_trainer(compose_run([f"agent={option}", *env, *settings_of(option)]), tmp_path, {}, None)
    trainer.train()
    for observation, values in probe.VALUES.items():
        found = trainer.agent.q_values(np.array([[observation]], np.float32))[0]
        expected = learned_values(trainer.agent.config.loss.target, values)
        assert found == pytest.approx(expected, abs=TOLERANCE), observation
