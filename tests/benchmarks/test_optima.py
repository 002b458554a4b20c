"""The optimal scores that benchmarks/recipes.yaml states, computed by value iteration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import yaml

from dqn_runner.core.rng import eval_seeds
from dqn_runner.core.types import Array

ROOT = Path(__file__).parents[2]
EPISODES = 100
"""Episodes that score a run."""


def model_of(env: Any) -> tuple[Array, Array]:
    """Probabilities [state, action, next state] of steps that end no episode, and rewards [state, action]."""
    shape = (env.observation_space.n, env.action_space.n)
    steps, rewards = np.zeros((*shape, shape[0])), np.zeros(shape)
    for state, actions in env.unwrapped.P.items():
        for action, outcomes in actions.items():
            for probability, next_state, reward, terminated in outcomes:
                rewards[state, action] += probability * reward
                steps[state, action, next_state] += probability * (not terminated)
    return steps, rewards


def optimal_policy(steps: Array, rewards: Array, gamma: float) -> Array:
    """The greedy action of each state for the optimal discounted values (Sutton & Barto, section 4.4)."""
    values = np.zeros(len(rewards))
    while True:
        action_values = rewards + gamma * steps @ values
        if np.abs(action_values.max(1) - values).max() < 1e-9:
            return action_values.argmax(1)
        values = action_values.max(1)


def expected_returns(steps: Array, rewards: Array, policy: Array, limit: int) -> Array:
    """Undiscounted return of a policy from each state in episodes of at most `limit` steps."""
    states, values = np.arange(len(policy)), np.zeros(len(policy))
    for _ in range(limit):
        values = rewards[states, policy] + steps[states, policy] @ values
    return values


@pytest.mark.parametrize("name", ["taxi", "frozenlake"])
def test_stated_optimum_is_the_return_of_the_optimal_policy_in_the_episodes_that_score_a_run(
    name: str,
) -> None:
    settings = yaml.safe_load((ROOT / "conf" / "experiment" / f"{name}.yaml").read_text())
    env = gymnasium.make(yaml.safe_load((ROOT / "conf" / "env" / f"{name}.yaml").read_text())["id"])
    steps, rewards = model_of(env)
    policy = optimal_policy(steps, rewards, settings["agent"].get("gamma", 0.99))
    assert env.spec is not None
    assert env.spec.max_episode_steps is not None
    returns = expected_returns(steps, rewards, policy, env.spec.max_episode_steps)
    seeds = eval_seeds("test")
    starts = [env.reset(seed=seeds(episode))[0] for episode in range(EPISODES)]
    recipe = yaml.safe_load((ROOT / "benchmarks" / "recipes.yaml").read_text())[name]
    assert returns[starts].mean() == pytest.approx(recipe["optimum"], abs=5e-4)
