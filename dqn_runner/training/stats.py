"""The result of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainingStats:
    """The result of a run."""

    reason: str
    """Why the run ended."""
    pruned: bool
    """Whether a callback asked to stop it as pruned, as that of a sweep does."""
    steps: int
    episodes: int
    best_mean: float
    """Best mean return of an evaluation; NaN if there was none."""
    best_step: int
    training_time: float
    """Seconds, over all sessions of the run."""
    objective: float
    """The best evaluation; the mean return of the last training episodes if none was made."""
    history: Mapping[str, Any] = field(repr=False)
    """The content of metrics.json: `episodes`, `train` and `evaluations`, columns of equal length."""
