"""Where a run stands, from the end of its metrics.jsonl: quick to read, also during training."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from dqn_runner.io.entries import is_file

RECORDS = "metrics.jsonl"
TAIL = 20_000
"""Bytes at the end of the file that are read."""


@dataclass(frozen=True)
class LastRecords:
    """The newest values of a run; None for those that the end of the file does not have."""

    step: int = 0
    episode: int = 0
    training_return: float | None = None
    """Mean return of the last training episodes, of the last log line."""
    score: float | None = None
    """Mean return of the last evaluation."""
    eta: float | None = None
    """Seconds left, as the last log line estimated them."""


def read_last_records(run_dir: Path) -> LastRecords:
    """The newest values of a run; zeros if it has written none, or if they cannot be read."""
    step = episode = 0
    train: dict[str, Any] | None = None
    for line in tail(run_dir / RECORDS, TAIL).split(b"\n")[-2::-1]:
        with suppress(msgspec.DecodeError, KeyError, TypeError, ValueError, OverflowError):
            record = msgspec.json.decode(line)
            step, episode = max(step, int(record["step"])), max(episode, int(record["episode"]))
            if train is None and record["kind"] == "train":
                train = record
            if record["kind"] == "eval":
                score = float(record["eval/return_mean"])
                return _last(step, episode, train, score)
    return _last(step, episode, train, None)


def _last(step: int, episode: int, train: dict[str, Any] | None, score: float | None) -> LastRecords:
    values = train or {}
    return LastRecords(
        step, episode, _number(values.get("train/return_mean_100")), score, _number(values.get("time/eta"))
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def tail(path: Path, size: int) -> bytes:
    """The last bytes of a file; none if it is not a file, or cannot be read."""
    with suppress(OSError):
        if is_file(path):
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - size))
                return file.read(size)
    return b""
