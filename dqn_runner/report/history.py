"""The history of a run as columns, from metrics.jsonl or metrics.json, also during training."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.io import json_io
from dqn_runner.io.entries import is_file
from dqn_runner.report.records import EPISODE, EVAL, KINDS, TRAIN, Columns, Records, columns
from dqn_runner.run.last_records import RECORDS
from dqn_runner.run.plots import OWN
from dqn_runner.run.thinning import Values
from dqn_runner.training.metrics import EVAL_KEYS, TRAIN_KEYS


@dataclass(frozen=True)
class History:
    """What a run has measured so far."""

    tables: Mapping[str, Columns]
    """By kind of record; each has the column `step`."""
    env_steps: int = 0
    episodes: int = 0
    seconds: float = 0.0
    """Training time of all sessions."""
    finished: str | None = None
    """Why the run is over; None if it can continue."""
    eval_returns: Mapping[int, Sequence[float]] = field(default_factory=dict[int, Sequence[float]])
    """The returns of the episodes of evaluations by env step, where they are known."""

    def column(self, kind: str, name: str) -> Values:
        """A column; NaN for each record if the column is missing."""
        table = self.tables[kind]
        return table.get(name, np.full(len(table["step"]), np.nan))

    def user_metrics(self) -> dict[str, list[tuple[str, str]]]:
        """The metrics that the program does not measure itself, with their kinds of record and columns."""
        found: dict[str, list[tuple[str, str]]] = {}
        for kind, table in self.tables.items():
            for name in table:
                if name not in KNOWN[kind] and not name.startswith("time/"):
                    found.setdefault(name.removeprefix(OWN), []).append((kind, name))
        return found


KNOWN = {
    EPISODE: {"step", "episode", "return", "length"},
    TRAIN: {"step", "episode", *TRAIN_KEYS},
    EVAL: {"step", "episode", *EVAL_KEYS},
}
"""The columns that the program writes itself."""


def read_history(run_dir: Path) -> History:
    """The history of the run in `run_dir`; see `HistoryReader`."""
    return HistoryReader(run_dir).read()


class HistoryReader:
    """Reads the history of a run; again, only what is new.

    metrics.jsonl is complete at every moment, but a run may be without it; metrics.json also has the end of
    the run, and the returns of single evaluation episodes.
    """

    def __init__(self, run_dir: Path) -> None:
        """Nothing is read yet."""
        self._records_file, self._report_file = run_dir / RECORDS, run_dir / json_io.METRICS
        self._records = Records(self._records_file)
        self._report: dict[str, Any] | None = None
        self._report_version: tuple[int, ...] | None = None

    def read(self) -> History:
        """The history; empty if the run has written nothing yet. Raises DamagedError for a damaged file."""
        report = self._newest_report()
        if is_file(self._records_file):
            tables = self._records.tables()
            if report is not None and _begins_earlier(report, tables):
                tables = _tables_of_report(report)
        elif report is not None:
            tables = _tables_of_report(report)
        else:
            return History({kind: {"step": np.zeros(0)} for kind in KINDS})
        return _history(tables, report or {})

    def _newest_report(self) -> dict[str, Any] | None:
        """The content of metrics.json; None if there is none."""
        if not is_file(self._report_file):
            return None
        status = self._report_file.stat()
        version = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        if version != self._report_version:
            self._report = _read_report(self._report_file)
            self._report_version = version
        return self._report


class Histories:
    """The histories of the runs that were asked for last; of each, only what is new is read again."""

    def __init__(self, most: int = 16) -> None:
        """Keep those of at most `most` runs."""
        self._most = most
        self._readers: dict[Path, HistoryReader] = {}
        self._lock = threading.Lock()

    def read(self, run_dir: Path) -> History:
        """The history of the run in `run_dir`; threads may call it at the same time."""
        with self._lock:
            reader = self._readers.pop(run_dir, None) or HistoryReader(run_dir)
            self._readers[run_dir] = reader
            while len(self._readers) > self._most:
                del self._readers[next(iter(self._readers))]
            return reader.read()


def _history(tables: Mapping[str, Columns], report: Mapping[str, Any]) -> History:
    steps = _last_step(tables)
    elapsed = tables[TRAIN].get("time/elapsed", np.zeros(0))
    current = report.get("env_steps", -1) >= steps  # or it is of an earlier session
    evaluations = report.get("evaluations", {})
    returns = dict(zip(evaluations.get("step", []), evaluations.get("returns", []), strict=False))
    return History(
        tables,
        env_steps=int(report["env_steps"]) if current else steps,
        episodes=int(report["num_episodes"]) if current else len(tables[EPISODE]["step"]),
        seconds=float(report["time"]["training_seconds"]) if current else float(elapsed[-1:].sum()),
        finished=report.get("finished") if current else None,
        eval_returns=returns,
    )


def _begins_earlier(report: Mapping[str, Any], tables: Mapping[str, Columns]) -> bool:
    """Whether metrics.json is as new as metrics.jsonl and begins earlier: a run may begin without the latter.

    Its length says nothing: a run that was resumed from an older checkpoint has fewer records again.
    """
    steps = (report[key]["step"] for key in ("episodes", "train", "evaluations"))
    first = min((column[0] for column in steps if len(column)), default=math.inf)
    ours = min((table["step"][0] for table in tables.values() if len(table["step"])), default=math.inf)
    return report["env_steps"] >= _last_step(tables) and first < ours


def _last_step(tables: Mapping[str, Columns]) -> int:
    return max((int(table["step"][-1]) for table in tables.values() if len(table["step"])), default=0)


def _read_report(path: Path) -> dict[str, Any]:
    """The content of metrics.json, checked."""
    try:
        document = msgspec.json.decode(path.read_bytes())
        for kind, key in ((EPISODE, "episodes"), (TRAIN, "train"), (EVAL, "evaluations")):
            columns({name: c for name, c in document[key].items() if name != "returns"}, kind)
        numbers = [document["time"]["training_seconds"], document["env_steps"], document["num_episodes"]]
        np.array([*numbers, *(r for returns in document["evaluations"]["returns"] for r in returns)], float)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged: {error}; move it away") from error
    return document


def _tables_of_report(report: Mapping[str, Any]) -> dict[str, Columns]:
    evaluations = {name: c for name, c in report["evaluations"].items() if name != "returns"}
    return {
        EPISODE: columns(report["episodes"], EPISODE),
        TRAIN: columns(report["train"], TRAIN),
        EVAL: columns(evaluations, EVAL),
    }
