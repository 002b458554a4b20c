"""Every agent option learns the right values in five tiny environments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner.agent.losses.categorical import Categorical
from dqn_runner.agent.losses.targets import MunchausenTarget
from dqn_runner.config.build import build_trainer
from dqn_runner.run import plots
from tests.support.probes import GAMMA, PROBES, Probe, agent_options, compose_run

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


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)


def test_agent_options_are_found() -> None:
    assert {"dqn", "double_dqn"} <= set(agent_options())


def settings_of(option: str) -> list[str]:
    """A categorical loss gets atoms of the size of these values; its own are of the size of returns."""
    categorical = isinstance(compose_run([f"agent={option}"]).agent.loss, Categorical)
    support = ["agent.loss.v_min=-4", "agent.loss.v_max=4", "agent.loss.num_atoms=81"]
    return [*SETTINGS, *(support if categorical else [])]


def values_under(bootstrap: Any, values: list[float]) -> list[float]:
    """What is learned for an observation: MunchausenTarget adds the scaled log-probability of the action.

    Actions are equal here or far apart, as seen from its temperature: the log-probability is that of half, or
    cut off at the floor.
    """
    if not isinstance(bootstrap, MunchausenTarget):
        return values
    log_policy = torch.log_softmax(torch.tensor(values) / bootstrap.temperature, -1)
    added = bootstrap.alpha * (bootstrap.temperature * log_policy).clamp(min=bootstrap.floor)
    return (torch.tensor(values) + added).tolist()


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
@pytest.mark.parametrize("option", agent_options())
def test_learns_the_values_of(option: str, probe: type[Probe], tmp_path: Path) -> None:
    env = ["env=gym", f"env.id={probe.__module__}:{probe.__name__}"]
    trainer = build_trainer(compose_run([f"agent={option}", *env, *settings_of(option)]), tmp_path, {}, None)
    trainer.train()
    for observation, values in probe.VALUES.items():
        found = trainer.agent.q_values(np.array([[observation]], np.float32))[0]
        expected = values_under(trainer.agent.config.loss.target, values)
        assert found == pytest.approx(expected, abs=TOLERANCE), observation
