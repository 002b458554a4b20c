"""Exploration: how training actions are chosen from action values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dqn_runner.agent.schedules import Linear, Schedule
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import option, slot
from dqn_runner.core.settings import check_settings
from dqn_runner.core.types import BoolArray, FloatArray, IntArray

_LOWEST = np.finfo(np.float32).min


class Exploration(Protocol):
    """An option of the config group `agent/exploration`.

    What it keeps from call to call is resumed only if it has `state_dict()` and `load_state_dict(state)`.
    """

    def __call__(
        self,
        q_values: Callable[[], FloatArray],
        shape: tuple[int, int],
        step: int,
        rng: np.random.Generator,
        mask: BoolArray | None = None,
    ) -> IntArray:
        """Choose actions [n] for `shape` = (n, actions), at env step `step`.

        `q_values()` evaluates the network; it returns action values [n, actions]. With action masks, `mask`
        [n, actions] says which actions are allowed, and the values of the others are -inf. Without, no `mask`
        is passed.
        """
        ...

    def epsilon(self, step: int) -> float:
        """Probability of a uniformly random action at env step `step`, for the logs."""
        ...

    @property
    def duration(self) -> int:
        """Env steps until exploration stays constant."""
        ...


@option("agent/exploration", "epsilon_greedy")
@dataclass(kw_only=True)
class EpsilonGreedy:
    """A uniformly random action with probability epsilon, else the greedy one.

    The network is not evaluated if all actions are random.
    """

    schedule: Any = slot(Linear, Schedule)

    def __post_init__(self) -> None:
        """Validate the settings: a probability is between 0 and 1."""
        check_settings(self)
        for value in _extremes(self.schedule):
            if not 0 <= value <= 1:
                raise UserError(
                    f"{_origin(self.schedule, value)} must be an epsilon between 0 and 1, got {value:g}"
                )

    def __call__(
        self,
        q_values: Callable[[], FloatArray],
        shape: tuple[int, int],
        step: int,
        rng: np.random.Generator,
        mask: BoolArray | None = None,
    ) -> IntArray:
        """Choose actions [n] for `shape` = (n, actions), at env step `step`."""
        n, num_actions = shape
        if n == 1 and mask is None:  # the same random numbers without the cost of arrays
            explores = rng.random() < self.schedule(step)
            return np.array([rng.integers(num_actions)]) if explores else q_values().argmax(-1)
        explores = rng.random(n) < self.schedule(step)
        if explores.all():
            return random_actions(shape, rng, mask)
        actions = q_values().argmax(-1)
        if explores.any():
            actions = np.where(explores, random_actions(shape, rng, mask), actions)
        return actions

    def epsilon(self, step: int) -> float:
        """Probability of a uniformly random action at env step `step`."""
        return self.schedule(step)

    @property
    def duration(self) -> int:
        """Env steps until epsilon stays constant."""
        return self.schedule.duration


@option("agent/exploration", "greedy")
@dataclass(kw_only=True)
class Greedy:
    """The action with the largest value, for networks with noisy layers (agent.network.noisy)."""

    def __call__(
        self,
        q_values: Callable[[], FloatArray],
        shape: tuple[int, int],
        step: int,
        rng: np.random.Generator,
        mask: BoolArray | None = None,
    ) -> IntArray:
        """Choose actions [n] for `shape` = (n, actions), at env step `step`."""
        return q_values().argmax(-1)

    def epsilon(self, step: int) -> float:
        """0: no action is drawn uniformly."""
        return 0.0

    @property
    def duration(self) -> int:
        """0: constant from the first step."""
        return 0


@option("agent/exploration", "boltzmann")
@dataclass(kw_only=True)
class Boltzmann:
    """Actions with probability proportional to exp(value / temperature) (Sutton & Barto, section 2.8)."""

    schedule: Any = slot(Linear, Schedule)
    """Schedule of the temperature, which has the unit of the action values."""

    def __post_init__(self) -> None:
        """Validate the settings: a temperature is not negative."""
        check_settings(self)
        for value in _extremes(self.schedule):
            if not 0 <= value < math.inf:
                raise UserError(
                    f"{_origin(self.schedule, value)} must be a temperature of at least 0, got {value:g}"
                )

    def __call__(
        self,
        q_values: Callable[[], FloatArray],
        shape: tuple[int, int],
        step: int,
        rng: np.random.Generator,
        mask: BoolArray | None = None,
    ) -> IntArray:
        """Choose actions [n] for `shape` = (n, actions), at env step `step`.

        The largest sum of a scaled value and Gumbel noise has the wanted distribution.
        """
        return (q_values() + self.schedule(step) * rng.gumbel(size=shape)).argmax(-1)

    def epsilon(self, step: int) -> float:
        """0: no action is drawn uniformly."""
        return 0.0

    @property
    def duration(self) -> int:
        """Env steps until the temperature stays constant."""
        return self.schedule.duration


def masked_values(q: FloatArray, mask: BoolArray | None) -> FloatArray:
    """Action values [n, actions], those of actions that are not allowed replaced by -inf.

    A value of -inf of an allowed action becomes the lowest number, so that it is larger than those.
    """
    return q if mask is None else np.where(mask, np.maximum(q, _LOWEST), np.float32(-np.inf))


def check_allowed(exploration: Exploration, actions: IntArray, mask: BoolArray) -> None:
    """Raise UserError if one of the chosen actions [n] is not allowed by `mask` [n, actions]."""
    if not mask[np.arange(len(mask)), actions].all():
        raise UserError(
            f"agent.exploration={type(exploration).__name__} chose an action that the action mask does "
            "not allow; it must choose among those of `mask`"
        )


def random_actions(
    shape: tuple[int, int], rng: np.random.Generator, mask: BoolArray | None = None
) -> IntArray:
    """Uniformly random actions [n] for `shape` = (n, actions), of those that `mask` [n, actions] allows."""
    n, num_actions = shape
    if mask is None:
        return rng.integers(num_actions, size=n)
    counts: IntArray = mask.sum(-1)
    places: IntArray = rng.integers(counts)
    return np.array([np.flatnonzero(row)[place] for row, place in zip(mask, places, strict=True)])


def _extremes(schedule: Schedule) -> tuple[float, float]:
    """The first value of a schedule and its limit."""
    return schedule(0), schedule(100 * schedule.duration)


def _origin(schedule: Schedule, value: float) -> str:
    """The key of the setting of `schedule` that gives it this value, or that of the schedule."""
    settings = getattr(schedule, "__dict__", {}).items()
    names = [name for name, number in settings if isinstance(number, float) and math.isclose(number, value)]
    return ".".join(["agent.exploration.schedule", *names[:1]])
