"""What the message about diverged learning says of its cause."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner.agent.learner import UPDATE_METRICS
from dqn_runner.core.types import Batch, Transition
from dqn_runner.training.divergence import FILE, diagnose


def message(run_dir: Path, obs: torch.Tensor, next_obs: torch.Tensor) -> str:
    numbers = torch.ones(4)
    transition = Transition(obs, torch.zeros(4, dtype=torch.int64), numbers, numbers, next_obs)
    agent: Any = SimpleNamespace(learner=SimpleNamespace(updates=7))
    batch = Batch(transition, np.arange(4), numbers / 4)
    return str(diagnose(run_dir, 9, agent, batch, [float("nan")] * len(UPDATE_METRICS), None))


@pytest.mark.parametrize("largest", [1e30, -2e5])
@pytest.mark.parametrize("where", ["obs", "next_obs"])
def test_large_observations_are_named_with_a_remedy(largest: float, where: str, tmp_path: Path) -> None:
    parts = {"obs": torch.zeros(4, 3), "next_obs": torch.zeros(4, 3)}
    parts[where][2, 1] = largest
    found = message(tmp_path, **parts)
    assert f"observations of up to {abs(largest):.3g}, which env.normalize_observations=true scales" in found
    assert (tmp_path / FILE).exists()


@pytest.mark.parametrize("obs", [torch.ones(4, 3), torch.full((4, 3), 255, dtype=torch.uint8)])
def test_usual_observations_are_not_blamed(obs: torch.Tensor, tmp_path: Path) -> None:
    assert "observations of up to" not in message(tmp_path, obs, obs)


def test_numbers_that_are_not_finite_are_named(tmp_path: Path) -> None:
    obs = torch.ones(4, 3)
    obs[1, 1] = torch.inf
    assert "observations or rewards that are not finite" in message(tmp_path, obs, torch.ones(4, 3))
