"""Trained agents with action masks: `load_agent` needs them, and exported networks say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqn_runner import TrainedAgent, UserError, load_agent
from dqn_runner.inference.export import description
from tests.inference.test_load_agent import a_run

GUARDED = ("env=gym", "env.id=tests.support.masked:Guarded", "env.kwargs.actions=joint")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> TrainedAgent:
    path: Path = tmp_path_factory.mktemp("masked")
    a_run(path, *GUARDED, "env.action_mask=info")
    return load_agent(path)


def test_the_best_allowed_action_is_predicted(agent: TrainedAgent) -> None:
    rng = np.random.default_rng(0)
    obs = rng.random((50, 3)).astype(np.float32)
    mask = rng.random((50, 6)) < 0.4
    mask[:, 2] |= ~mask.any(-1)
    values = agent.q_values(obs, action_mask=mask)
    assert np.array_equal(np.isfinite(values), mask)
    assert np.array_equal(values[mask], agent.q_values(obs)[mask])
    expected = [list(np.unravel_index(int(row.argmax()), (2, 3))) for row in values]
    assert agent.predict(obs, action_mask=mask).tolist() == expected
    assert agent.predict(obs[0], action_mask=mask[0].astype(np.int8)).tolist() == expected[0]
    assert agent.predict(obs[0], action_mask=mask[0].tolist()).tolist() == expected[0]
    for _ in range(20):
        drawn = agent.predict(obs, deterministic=False, action_mask=mask)
        assert mask[np.arange(50), np.ravel_multi_index(tuple(drawn.T), (2, 3))].all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, r"^this agent was trained with action masks; give predict\(obs, action_mask=\.\.\.\)"),
        (
            [1, 1],
            r"^action_mask must have the shape \(6,\) for this observation, and a 0 or 1 for each action$",
        ),
        ([[1] * 6], r"the shape \(6,\)"),
        ([2] * 6, "a 0 or 1 for each action"),
        ([0.5] * 6, "a 0 or 1 for each action"),
        ([np.nan] * 6, "a 0 or 1 for each action"),
        ("111111", r"the shape \(6,\)"),
        ([[1], [1, 0]], r"the shape \(6,\)"),
        ([0] * 6, "^action_mask allows no action; it must allow at least one at each observation$"),
    ],
)
def test_what_is_no_mask_of_the_observation_is_rejected(agent: TrainedAgent, mask: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        agent.predict(np.zeros(3), action_mask=mask)


def test_a_batch_needs_a_mask_for_each_observation(agent: TrainedAgent) -> None:
    with pytest.raises(UserError, match=r"the shape \(2, 6\) for this observation"):
        agent.predict(np.zeros((2, 3)), action_mask=[1] * 6)
    with pytest.raises(UserError, match="allows no action"):
        agent.predict(np.zeros((2, 3)), action_mask=[[1] * 6, [0] * 6])


def test_an_exported_network_gives_all_values_and_says_that_they_are_to_be_masked(
    agent: TrainedAgent,
) -> None:
    assert description(agent)["action_mask"] == "choose among the allowed actions only"
    assert agent.has_action_mask
    assert np.isfinite(agent.q_values(np.zeros(3))).all()


def test_an_agent_without_masks_takes_them_too(finished_run: Path) -> None:
    plain = load_agent(finished_run)
    assert not plain.has_action_mask
    assert description(plain)["action_mask"] is None
    assert plain.predict(np.zeros(4), action_mask=[0, 1]) == 1
    assert plain.predict(np.zeros(4), action_mask=[1, 0]) == 0
