"""Schedules: values that depend only on the env step, so that they have no state to save."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from dqn_runner.core.registry import option
from dqn_runner.core.settings import check_settings, setting, within_budget

_EXPLORATION = "agent/exploration/schedule"
_EXPLORATION_STEPS = 10_000
_DECAY_STEPS = 100_000


class Schedule(Protocol):
    """An option of `agent/exploration/schedule` or `agent/learning_rate_schedule`: a function of the step."""

    def __call__(self, step: int) -> float:
        """The value at env step `step`."""
        ...

    @property
    def duration(self) -> int:
        """Env steps until the value stays constant."""
        ...


@option(_EXPLORATION, "linear")
@dataclass(kw_only=True)
class Linear:
    """`start` for `begin` env steps, then linear to `end` over `steps` env steps, then constant."""

    start: float = 1.0
    """First value."""
    end: float = 0.05
    """Last value."""
    begin: int = setting(0, at_least=0)
    """Env steps before the first change, for example agent.learning_starts."""
    steps: int | None = within_budget(_EXPLORATION_STEPS, share=0.5)
    """Env steps from `start` to `end`; null: 10,000, but at most half of trainer.max_steps."""

    __post_init__ = check_settings

    def __call__(self, step: int) -> float:
        """The value at env step `step`."""
        passed = max(0, step - self.begin) / (self.steps or _EXPLORATION_STEPS)
        return self.end + (self.start - self.end) * max(0.0, 1.0 - passed)

    @property
    def duration(self) -> int:
        """Env steps until the value stays constant."""
        return self.begin + (self.steps or _EXPLORATION_STEPS)


@option(_EXPLORATION, "exponential")
@dataclass(kw_only=True)
class Exponential:
    """Exponential from `start` to `end`: the difference halves every `half_life` env steps."""

    start: float = 1.0
    """Value at step 0."""
    end: float = 0.05
    """Limit of the value."""
    half_life: int = setting(5_000, at_least=1)
    """Env steps in which the difference from `end` halves."""

    __post_init__ = check_settings

    def __call__(self, step: int) -> float:
        """The value at env step `step`."""
        return self.end + (self.start - self.end) * 0.5 ** (step / self.half_life)

    @property
    def duration(self) -> int:
        """Three half-lives, after which an eighth of the initial difference remains."""
        return 3 * self.half_life


@option(_EXPLORATION, "constant")
@dataclass(kw_only=True)
class Constant:
    """A constant value."""

    value: float = 0.05
    """The value."""

    __post_init__ = check_settings

    def __call__(self, step: int) -> float:
        """The value at env step `step`."""
        return self.value

    @property
    def duration(self) -> int:
        """0: constant from the first step."""
        return 0


_LEARNING_RATE = "agent/learning_rate_schedule"


@option(_LEARNING_RATE, "fixed")
@dataclass(kw_only=True)
class Fixed:
    """A constant learning rate."""

    def __call__(self, step: int) -> float:
        """The factor of the learning rate: 1."""
        return 1.0

    @property
    def duration(self) -> int:
        """0: constant from the first step."""
        return 0


@option(_LEARNING_RATE, "linear")
@dataclass(kw_only=True)
class LinearDecay:
    """Linear decay of the learning rate to `final` times its initial value."""

    final: float = setting(0.0, at_least=0, at_most=1)
    """Factor of the learning rate from step `steps` on."""
    steps: int | None = within_budget(_DECAY_STEPS, share=1.0)
    """Env steps of the decay; null: 100,000, but at most trainer.max_steps."""

    __post_init__ = check_settings

    def __call__(self, step: int) -> float:
        """The factor of the learning rate at env step `step`."""
        return 1.0 + (self.final - 1.0) * min(1.0, step / (self.steps or _DECAY_STEPS))

    @property
    def duration(self) -> int:
        """Env steps until the learning rate stays constant."""
        return self.steps or _DECAY_STEPS


@option(_LEARNING_RATE, "cosine")
@dataclass(kw_only=True)
class CosineDecay:
    """Cosine decay of the learning rate to `final` times its initial value (Loshchilov & Hutter 2017)."""

    final: float = setting(0.0, at_least=0, at_most=1)
    """Factor of the learning rate from step `steps` on."""
    steps: int | None = within_budget(_DECAY_STEPS, share=1.0)
    """Env steps of the decay; null: 100,000, but at most trainer.max_steps."""

    __post_init__ = check_settings

    def __call__(self, step: int) -> float:
        """The factor of the learning rate at env step `step`."""
        progress = min(1.0, step / (self.steps or _DECAY_STEPS))
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * progress))

    @property
    def duration(self) -> int:
        """Env steps until the learning rate stays constant."""
        return self.steps or _DECAY_STEPS
