"""Schedules: values that depend only on the env step, so that they have no state to save."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import option

_EXPLORATION = "agent/exploration/schedule"


class Schedule(Protocol):
    """An option of `agent/exploration/schedule` or `agent/learning_rate_schedule`."""

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
    """Linear from `start` to `end` over `steps` env steps, then constant."""

    start: float = 1.0
    """Value at step 0."""
    end: float = 0.05
    """Value from step `steps` on."""
    steps: int = 10_000
    """Env steps from `start` to `end`."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.steps < 1:
            raise UserError(f"a linear schedule needs steps >= 1, got {self.steps}")

    def __call__(self, step: int) -> float:
        """The value at env step `step`."""
        return self.end + (self.start - self.end) * max(0.0, 1.0 - step / self.steps)

    @property
    def duration(self) -> int:
        """Env steps until the value stays constant."""
        return self.steps


@option(_EXPLORATION, "exponential")
@dataclass(kw_only=True)
class Exponential:
    """Exponential from `start` to `end`: the difference halves every `half_life` env steps."""

    start: float = 1.0
    """Value at step 0."""
    end: float = 0.05
    """Limit of the value."""
    half_life: int = 5_000
    """Env steps in which the difference from `end` halves."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.half_life < 1:
            raise UserError(f"an exponential schedule needs half_life >= 1, got {self.half_life}")

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

    final: float = 0.0
    """Factor of the learning rate from step `steps` on."""
    steps: int = 100_000
    """Env steps of the decay."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        _check_decay(self.steps, self.final)

    def __call__(self, step: int) -> float:
        """The factor of the learning rate at env step `step`."""
        return 1.0 + (self.final - 1.0) * min(1.0, step / self.steps)

    @property
    def duration(self) -> int:
        """Env steps until the learning rate stays constant."""
        return self.steps


@option(_LEARNING_RATE, "cosine")
@dataclass(kw_only=True)
class CosineDecay:
    """Cosine decay of the learning rate to `final` times its initial value (Loshchilov & Hutter 2017)."""

    final: float = 0.0
    """Factor of the learning rate from step `steps` on."""
    steps: int = 100_000
    """Env steps of the decay."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        _check_decay(self.steps, self.final)

    def __call__(self, step: int) -> float:
        """The factor of the learning rate at env step `step`."""
        progress = min(1.0, step / self.steps)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * progress))

    @property
    def duration(self) -> int:
        """Env steps until the learning rate stays constant."""
        return self.steps


def _check_decay(steps: int, final: float) -> None:
    if steps < 1 or not 0 <= final <= 1:
        raise UserError(
            "agent.learning_rate_schedule needs steps >= 1 and a final from 0 to 1, "
            f"got steps={steps}, final={final}"
        )
