"""Every agent option learns the right values in five tiny environments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dqn_runner import plots
from dqn_runner.build import build_trainer
from tests.probes import GAMMA, PROBES, Probe, agent_options, compose_run

TOLERANCE = 0.05
SETTINGS = [
    f"agent.gamma={GAMMA}",
    "agent.learning_rate=3e-3",
    "agent.batch_size=32",
    "agent.learning_starts=50",
    "agent.train_every=1",
    "agent.target_update_every=20",
    "agent.tau=1",
    "trainer.max_episodes=350",
    "trainer.max_steps=null",
    "trainer.eval_frequency=1000000",
    "trainer.eval_episodes=1",
    "trainer.checkpoint_frequency=1000000",
    "logging=[]",
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, which is fastest for small networks, and no pictures."""
    torch.set_num_threads(1)
    monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)


def test_agent_options_are_found() -> None:
    assert {"dqn", "double_dqn"} <= set(agent_options())


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
@pytest.mark.parametrize("option", agent_options())
def test_learns_the_values_of(option: str, probe: type[Probe], tmp_path: Path) -> None:
    env = ["env=gym", f"env.id={probe.__module__}:{probe.__name__}"]
    trainer = build_trainer(compose_run([f"agent={option}", *env, *SETTINGS]), tmp_path, {}, None)
    trainer.train()
    for observation, values in probe.VALUES.items():
        found = trainer.agent.q_values(np.array([[observation]], np.float32))[0]
        assert found == pytest.approx(values, abs=TOLERANCE), observation
