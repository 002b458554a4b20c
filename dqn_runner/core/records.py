"""The vocabulary that every layer shares: data passed between the parts, and the state protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Record:
    """One line of the run's history, handed to every logger."""

    kind: str
    """`episode`, `train` or `eval`."""
    step: int
    episode: int
    values: Mapping[str, float]
    """Metric keys are `train/…`, `eval/…` or `time/…`; only `time/` may differ between equal runs."""


@dataclass(frozen=True)
class RunInfo:
    """What a logger may want to know about the run that opens it."""

    name: str
    config: Mapping[str, Any]
    unit: str
    """`episodes` or `steps`: what `total` counts."""
    total: int | None
    metric_keys: tuple[str, ...]
    """Every key that the values of a record may have, in the order in which people read them."""
    group: str | None = None
    """Runs of one sweep share it."""
