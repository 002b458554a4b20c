"""How training actions are chosen from action values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dqn_runner.agent.schedules import Linear
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import option, slot
from dqn_runner.core.types import FloatArray, IntArray


class Exploration(Protocol):
    """A rule for choosing training actions."""

    def __call__(
        self,
        q_values: Callable[[], FloatArray],
        shape: tuple[int, int],
        step: int,
        rng: np.random.Generator,
    ) -> IntArray:
        """Actions [n] for `shape` = (n, actions); `q_values()` computes [n, actions] when needed."""
        ...

    def epsilon(self, step: int) -> float:
        """Probability of a uniformly random action at env step `step`, for the logs."""
        ...

    @property
    def duration(self) -> int:
        """Env steps until exploration stays as it is."""
        ...


@option("agent/exploration", "epsilon_greedy")
@dataclass(kw_only=True)
class EpsilonGreedy:
    """A uniformly random action with probability epsilon, else the greedy one.

    Chance is drawn first, so that no network is evaluated for actions that are random anyway.
    """

    schedule: Any = slot(Linear)

    def __call__(
        self,
        q_values: Callable[[], FloatArray],
        shape: tuple[int, int],
        step: int,
        rng: np.random.Generator,
    ) -> IntArray:
        """Actions [n]."""
        n, num_actions = shape
        if n == 1:  # the same draws, without the cost of arrays
            explore_one = rng.random() < self.schedule(step)
            return np.array([rng.integers(num_actions)]) if explore_one else q_values().argmax(-1)
        draw = rng.random(n)
        explore = draw < self.schedule(step)
        if explore.all():
            return rng.integers(num_actions, size=n)
        actions = q_values().argmax(-1)
        if explore.any():
            actions = np.where(explore, rng.integers(num_actions, size=n), actions)
        return actions

    def epsilon(self, step: int) -> float:
        """Probability of a uniformly random action at env step `step`."""
        return self.schedule(step)

    @property
    def duration(self) -> int:
        """Env steps until epsilon stays as it is."""
        return self.schedule.duration


@option("agent/exploration", "greedy")
@dataclass(kw_only=True)
class Greedy:
    """The action of the highest value: for networks that explore by their own noise (agent.network.noisy)."""

    def __call__(
        self,
        q_values: Callable[[], FloatArray],
        shape: tuple[int, int],
        step: int,
        rng: np.random.Generator,
    ) -> IntArray:
        """Actions [n]."""
        return q_values().argmax(-1)

    def epsilon(self, step: int) -> float:
        """No action is drawn uniformly."""
        return 0.0

    @property
    def duration(self) -> int:
        """The same from the first step."""
        return 0


@option("agent/exploration", "boltzmann")
@dataclass(kw_only=True)
class Boltzmann:
    """Actions drawn in proportion to exp(value / temperature) (Sutton & Barto, section 2.8)."""

    schedule: Any = slot(Linear)
    """Of the temperature, which has the scale of the values."""

    def __post_init__(self) -> None:
        """Refuse a schedule that begins or ends below 0."""
        lowest = min(self.schedule(0), self.schedule(self.schedule.duration))
        if lowest < 0:
            raise UserError(f"agent.exploration.schedule must give temperatures of 0 or more, not {lowest:g}")

    def __call__(
        self,
        q_values: Callable[[], FloatArray],
        shape: tuple[int, int],
        step: int,
        rng: np.random.Generator,
    ) -> IntArray:
        """Actions [n], by adding Gumbel noise to the scaled values."""
        return (q_values() + self.schedule(step) * rng.gumbel(size=shape)).argmax(-1)

    def epsilon(self, step: int) -> float:
        """No action is drawn uniformly."""
        return 0.0

    @property
    def duration(self) -> int:
        """Env steps until the temperature stays as it is."""
        return self.schedule.duration
