"""Five tiny environments, each of which tests one ability that an agent needs, and helpers to compose runs.

After https://andyljones.com/posts/rl-debugging.html: the first environment that an agent fails shows where to
look. `VALUES` maps an observation to the values of its actions that Q-learning must find.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.utils import instantiate

from dqn_runner.cli.main import CONF
from dqn_runner.config.schema import RunConfig

GAMMA = 0.9

Values = dict[float, list[float]]


class Probe(gymnasium.Env[Any, Any]):
    """Episodes of one step, from an observation of -1 or 1; the reward depends on it and on the action."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    VALUES: ClassVar[Values]
    STARTS: ClassVar[list[float]] = [-1.0, 1.0]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state = float(self.np_random.choice(self.STARTS))
        return np.array([self.state], np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), self.reward(int(action)), True, False, {}

    def reward(self, action: int) -> float:
        return self.VALUES[self.state][action]


class ConstantValue(Probe):
    """One observation, one reward: do the loss and the optimizer fit a constant?"""

    STARTS: ClassVar[list[float]] = [0.0]
    VALUES: ClassVar[Values] = {0.0: [1.0, 1.0]}


class ObservedValue(Probe):
    """The reward is the observation: do gradients reach the first layer?"""

    VALUES: ClassVar[Values] = {-1.0: [-1.0, -1.0], 1.0: [1.0, 1.0]}


class DelayedReward(Probe):
    """A reward one step later: is the next value discounted, and is the target network updated?"""

    STARTS: ClassVar[list[float]] = [-1.0]
    VALUES: ClassVar[Values] = {-1.0: [GAMMA, GAMMA], 1.0: [1.0, 1.0]}

    def step(self, action: Any) -> Any:
        if self.state == 1.0:
            return super().step(action)
        self.state = 1.0
        return np.ones(1, np.float32), 0.0, False, False, {}


class ActionValue(Probe):
    """One observation, the reward depends on the action: do actions and rewards stay together?"""

    STARTS: ClassVar[list[float]] = [0.0]
    VALUES: ClassVar[Values] = {0.0: [-1.0, 1.0]}


class ActionAndObservation(Probe):
    """The reward depends on both: does the policy depend on the observation?"""

    VALUES: ClassVar[Values] = {-1.0: [1.0, -1.0], 1.0: [-1.0, 1.0]}


PROBES = [ConstantValue, ObservedValue, DelayedReward, ActionValue, ActionAndObservation]


def agent_options() -> list[str]:
    """All options of `agent=`: the registered ones and those of conf/agent."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return GlobalHydra.instance().config_loader().get_group_options("agent", ObjectType.CONFIG)


def agents_of_ci(*names: str) -> list[Any]:
    """All options of `agent=` as parameters of a test; those that are not named run at night."""
    options = agent_options()
    assert {*names} <= {*options}
    return [pytest.param(o, marks=[] if o in names else [pytest.mark.nightly]) for o in options]


def short_schedule(option: str, steps: int) -> list[str]:
    """Overrides that end exploration after `steps`; none for an agent without an exploration schedule."""
    has_schedule = hasattr(compose_run([f"agent={option}"]).agent.exploration, "schedule")
    return [f"agent.exploration.schedule.steps={steps}"] if has_schedule else []


def compose_run(overrides: Sequence[str]) -> RunConfig:
    """Return the typed configuration of a command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("config", list(overrides)), _convert_="object")
