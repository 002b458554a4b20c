"""The functional update computes what the update of the learner computes, for the whole family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner import DQNAgent
from dqn_runner.agent.functional_update import UpdateInputs, make_functional_update
from dqn_runner.agent.learner import HyperParameters
from dqn_runner.agent.precision import network_of_updates
from dqn_runner.agent.update_noise import draw_noise
from dqn_runner.core.types import Transition
from tests.support.probes import agent_options, compose_run

UPDATES = 5
VARIANTS: dict[str, list[str]] = {
    **{option: [f"agent={option}"] for option in agent_options()},
    "rmsprop": ["agent=dqn", "agent/optimizer=rmsprop", "agent.max_grad_norm=null"],
    "plain rmsprop": ["agent=dqn", "agent/optimizer=rmsprop", "agent.optimizer.centered=false"],
    "squared error": ["agent=double_dqn", "agent.loss.error=squared", "agent.max_grad_norm=0.01"],
    "images": ["agent=dqn", "env=minatar", "agent/network=minatar_cnn"],
    "bfloat16": ["agent=dqn", "env=minatar", "agent/network=minatar_cnn", "agent.precision=bfloat16"],
    "bytes": ["agent=rainbow", "env=gym", "env.id=tests.support.catch:Catch", "env.frame_stack=3"],
    "layer norm": ["agent=dueling_dqn", "agent.network.layer_norm=true"],
}


def make(variant: str) -> tuple[DQNAgent, str]:
    from dqn_runner.config.build import build_agent
    from dqn_runner.envs.base import spec_of
    from dqn_runner.envs.checked_env import make_env

    run = compose_run([*VARIANTS[variant], "agent.batch_size=16"])
    return build_agent(run.agent, run.env), spec_of(make_env(run.env, 0)).obs_dtype


def batches(agent: DQNAgent, dtype: str, rng: np.random.Generator) -> Any:
    """A batch and its random numbers, as the agent draws them."""
    spec, size = agent.spec, agent.config.batch_size

    def obs() -> torch.Tensor:
        values = rng.normal(size=(size, *spec.obs_shape))
        return torch.from_numpy((values * 50).astype(dtype) if dtype != "bool" else values > 0)

    numbers = torch.from_numpy(rng.normal(size=size).astype("float32") * 3)
    action = torch.from_numpy(rng.integers(spec.num_actions, size=size))
    discount = torch.from_numpy(np.where(rng.random(size) < 0.2, 0.0, 0.99).astype("float32"))
    weight = torch.from_numpy(rng.random(size).astype("float32") / size)
    noise = draw_noise(agent._noise_requirements, agent.network.noise_size, size, rng)
    return Transition(obs(), action, numbers, discount, obs()), weight, noise


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_updates_agree_from_the_same_state(variant: str) -> None:
    """They agree to rounding; the state is set to that of the learner after each update."""
    agent, dtype = make(variant)
    config, learner, rng = agent.config, agent.learner, np.random.default_rng(0)
    learner.target.add_(torch.from_numpy(rng.normal(size=learner.target.shape).astype("float32")), alpha=0.01)
    network = network_of_updates(agent.network, config.precision)
    functional = make_functional_update(
        network, agent.network.views, config.loss, config.optimizer, config.max_grad_norm
    )
    for number in range(1, UPDATES + 1):
        transition, weight, noise = batches(agent, dtype, rng)
        before = learner.online.clone()
        moments = {name: moment.clone() for name, moment in learner.moments.items()}
        scalars = torch.tensor(config.optimizer.scalars(number, 1e-3))
        inputs = UpdateInputs(before, learner.target, moments, scalars, transition, weight, noise)
        found = functional(inputs)
        hyper = HyperParameters(1e-3, config.max_grad_norm)
        priority, statistics = agent._update(learner, transition, weight, hyper, noise)
        torch.testing.assert_close(found.online - before, learner.online - before, rtol=1e-3, atol=2e-7)
        torch.testing.assert_close(found.priority, priority, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.statistics, statistics, rtol=1e-4, atol=1e-5)
        for name, moment in learner.moments.items():
            torch.testing.assert_close(found.moments[name], moment, rtol=1e-4, atol=1e-7)
