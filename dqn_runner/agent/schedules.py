"""Values that change during a run: pure functions of the env step, so there is no state to save."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import option

_GROUP = "agent/exploration/schedule"


class Schedule(Protocol):
    """A number that depends on the env step."""

    def __call__(self, step: int) -> float:
        """The value at env step `step`."""
        ...

    @property
    def duration(self) -> int:
        """Env steps until the value stays constant."""
        ...


@option(_GROUP, "linear")
@dataclass(kw_only=True)
class Linear:
    """From `start` to `end` in a straight line over `steps` env steps, then constant."""

    start: float = 1.0
    """Value at step 0."""
    end: float = 0.05
    """Value from `steps` on."""
    steps: int = 10_000
    """Env steps from `start` to `end`."""

    def __post_init__(self) -> None:
        """Refuse a schedule that divides by zero."""
        if self.steps < 1:
            raise UserError(f"a linear schedule needs steps >= 1, got {self.steps}")

    def __call__(self, step: int) -> float:
        """The value at env step `step`."""
        return self.end + (self.start - self.end) * max(0.0, 1.0 - step / self.steps)

    @property
    def duration(self) -> int:
        """Env steps until the value stays constant."""
        return self.steps


@option(_GROUP, "exponential")
@dataclass(kw_only=True)
class Exponential:
    """From `start` towards `end`: the distance halves every `half_life` env steps."""

    start: float = 1.0
    """Value at step 0."""
    end: float = 0.05
    """Value that is approached."""
    half_life: int = 5_000
    """Env steps in which the distance to `end` halves."""

    def __post_init__(self) -> None:
        """Refuse a schedule that divides by zero."""
        if self.half_life < 1:
            raise UserError(f"an exponential schedule needs half_life >= 1, got {self.half_life}")

    def __call__(self, step: int) -> float:
        """The value at env step `step`."""
        return self.end + (self.start - self.end) * 0.5 ** (step / self.half_life)

    @property
    def duration(self) -> int:
        """Three half-lives: seven eighths of the way."""
        return 3 * self.half_life


@option(_GROUP, "constant")
@dataclass(kw_only=True)
class Constant:
    """The same `value` throughout."""

    value: float = 0.05
    """The value."""

    def __call__(self, step: int) -> float:
        """`value`, whatever the step."""
        return self.value

    @property
    def duration(self) -> int:
        """Constant from the first step."""
        return 0


_RATE = "agent/learning_rate_schedule"


@option(_RATE, "fixed")
@dataclass(kw_only=True)
class Fixed:
    """The learning rate stays as it is."""

    def __call__(self, step: int) -> float:
        """The factor 1."""
        return 1.0

    @property
    def duration(self) -> int:
        """The same from the first step."""
        return 0


@option(_RATE, "linear")
@dataclass(kw_only=True)
class LinearDecay:
    """The learning rate falls in a straight line to a `final` part of itself."""

    final: float = 0.0
    """Part of the learning rate that is left from `steps` on."""
    steps: int = 100_000
    """Env steps of the way."""

    def __post_init__(self) -> None:
        """Refuse a schedule that divides by zero."""
        _check_decay(self.steps, self.final)

    def __call__(self, step: int) -> float:
        """The factor at env step `step`."""
        return 1.0 + (self.final - 1.0) * min(1.0, step / self.steps)

    @property
    def duration(self) -> int:
        """Env steps until the rate stays constant."""
        return self.steps


@option(_RATE, "cosine")
@dataclass(kw_only=True)
class CosineDecay:
    """The learning rate falls to a `final` part of itself as half a cosine (Loshchilov & Hutter 2017)."""

    final: float = 0.0
    """Part of the learning rate that is left from `steps` on."""
    steps: int = 100_000
    """Env steps of the way."""

    def __post_init__(self) -> None:
        """Refuse a schedule that divides by zero."""
        _check_decay(self.steps, self.final)

    def __call__(self, step: int) -> float:
        """The factor at env step `step`."""
        way = min(1.0, step / self.steps)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * way))

    @property
    def duration(self) -> int:
        """Env steps until the rate stays constant."""
        return self.steps


def _check_decay(steps: int, final: float) -> None:
    if steps < 1 or not 0 <= final <= 1:
        raise UserError(
            "agent.learning_rate_schedule needs steps >= 1 and a final from 0 to 1, "
            f"got steps={steps}, final={final}"
        )
