"""Records of each kind, and writing them with a logger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dqn_runner.core.records import Record, RunInfo
from dqn_runner.loggers.base import LoggerPart
from dqn_runner.training.metrics import METRIC_KEYS

INFO = RunInfo(name="run", config={}, unit="steps", total=1200, metric_keys=METRIC_KEYS)
TRAIN = Record(
    "train",
    12_000,
    345,
    {
        "train/epsilon": 0.05,
        "train/return_mean_100": 123.456,
        "train/length_mean_100": 123.456,
        "train/loss": 0.000123456,
        "train/q_mean": 45.678,
        "train/grad_norm": 1.5,
        "time/elapsed": 12.5,
        "time/eta": 3725.4,
        "time/steps_per_second": 4321.0,
    },
)
EVAL = Record("eval", 2_000, 50, {"eval/return_mean": 475.5, "eval/return_std": 12.0})
EPISODE = Record("episode", 15, 1, {"train/return": 15.0, "train/length": 15.0})


def write(part: LoggerPart, run_dir: Path, *records: Record, state: Any = None) -> list[dict[str, Any]]:
    """Open a logger, write `records` and close it; returns its state before and after each record."""
    logger = part.open(run_dir, INFO, state)
    states = [logger.state_dict()]
    for record in records:
        logger.write(record)
        states.append(logger.state_dict())
    logger.close(failed=False)
    return states


def episode(number: int, value: float) -> Record:
    """A record of an episode that ends at step `number`."""
    return Record("episode", number, number, {"train/return": value, "train/length": 1.0})
