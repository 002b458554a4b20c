"""Settings of a run's course, and what a run comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainingStats:
    """What a run came to."""

    reason: str
    """Why it ended, in words."""
    pruned: bool
    """Whether it was a stop_callback that ended it."""
    steps: int
    episodes: int
    best_mean: float
    """Best mean return of an evaluation; NaN if there was none."""
    best_step: int
    training_time: float
    """Seconds, over all sessions of the run."""
    objective: float
    """What a sweep maximises: the best evaluation, or the recent training return if there was none."""
    history: Mapping[str, Any] = field(repr=False)
    """The content of metrics.json: `episodes`, `train` and `evaluations`, columns of equal length."""
