"""Settings of a run's course, and what a run comes to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class StopCallback(Protocol):
    """Somebody outside of a run who looks at its evaluations and may end it."""

    def __call__(self, clock: int, mean: float) -> str | None:
        """Why the run should end, if it should, after an evaluation of this mean return.

        `clock` is in the run's unit.
        """
        ...


@dataclass
class Best:
    """The best evaluation so far, and how patience stands."""

    mean: float = -math.inf
    step: int = 0
    reference: float = -math.inf
    """The mean that the next one must beat by `min_delta` for patience to start anew."""
    waited: int = 0
    """Evaluations since then."""

    def take(self, mean: float, step: int, min_delta: float) -> bool:
        """Count an evaluation; returns whether it is the best so far."""
        self.waited += 1
        if mean > self.reference and mean >= self.reference + min_delta:
            self.reference, self.waited = mean, 0
        if not mean > self.mean:  # nor is one that is no number
            return False
        self.mean, self.step = mean, step
        return True
