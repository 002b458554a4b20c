"""What a run passes to its loggers: records of metrics, and facts about the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Record:
    """Metrics of one event of a run, passed to every logger."""

    kind: str
    """`episode`, `train` or `eval`."""
    step: int
    """Env steps so far."""
    episode: int
    """Training episodes completed so far."""
    values: Mapping[str, float]
    """By metric key: `train/…`, `eval/…` or `time/…`, those of the environment `train/metrics/…` and
    `eval/metrics/…`. Only `time/` values may differ between equal runs."""


@dataclass(frozen=True)
class RunInfo:
    """Facts about a run, passed to each logger when it is opened."""

    name: str
    """Name of the run directory."""
    config: Mapping[str, Any]
    """Plain configuration of the run."""
    unit: str
    """Unit of `total`: `episodes` or `steps`."""
    total: int | None
    """Budget of the run; None if it has none in this unit."""
    metric_keys: tuple[str, ...]
    """The metric keys that every run may write, in the order of the columns of a table. Those of the
    environment come as they appear."""
    group: str | None = None
    """Name that the runs of one sweep share; None outside of sweeps."""
