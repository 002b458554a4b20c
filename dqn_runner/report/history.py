"""The history of a run as columns, from metrics.jsonl or metrics.json, also during training."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.io import json_io
from dqn_runner.io.entries import is_file
from dqn_runner.report.records import (
    EPISODE,
    EVAL,
    KINDS,
    NO_RECORDS,
    TRAIN,
    Columns,
    Records,
    columns,
    joined,
)
from dqn_runner.run.last_records import RECORDS
from dqn_runner.run.plots import OWN
from dqn_runner.run.thinning import Values
from dqn_runner.run.timeline import LastSession, last_session, read_timeline
from dqn_runner.training.metrics import EVAL_KEYS, TRAIN_KEYS


@dataclass(frozen=True)
class _Report:
    """A metrics.json."""

    document: Mapping[str, Any]
    tables: Mapping[str, Columns]
    """Its tables, by kind of record."""


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

    @property
    def is_unrecorded(self) -> bool:
        """Whether the run has taken steps of which no record is stored yet."""
        return self.env_steps > 0 and not any(len(table["step"]) for table in self.tables.values())

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

    metrics.jsonl is complete at every moment, but a session may be without it; metrics.json is written at the
    end of a session, and also has the returns of single evaluation episodes.
    """

    def __init__(self, run_dir: Path) -> None:
        """Nothing is read yet."""
        self._run_dir = run_dir
        self._records_file, self._report_file = run_dir / RECORDS, run_dir / json_io.METRICS
        self._records = Records(self._records_file)
        self._report: _Report | None = None
        self._report_version: tuple[int, ...] | None = None

    def read(self) -> History:
        """The history; empty if the run has written nothing yet. Raises DamagedError for a damaged file."""
        report = self._newest_report()
        records = self._records.tables() if is_file(self._records_file) else NO_RECORDS
        session = last_session(read_timeline(self._run_dir))
        return _history(records, report, session)

    def _newest_report(self) -> _Report | None:
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


def _history(records: Mapping[str, Columns], report: _Report | None, session: LastSession | None) -> History:
    """The history by the records of metrics.jsonl, the content of metrics.json, and the last session."""
    if report is None:
        return _without_report(records, session)
    document = report.document
    end = int(document["env_steps"])
    session = session or session_by_files(_last_step(records), end)
    tables = _complete(records, report.tables, end, session)
    evaluations = document["evaluations"]
    returns = dict(zip(evaluations["step"], evaluations["returns"], strict=False))
    if not is_current(end, session):
        return replace(_without_report(tables, session), eval_returns=returns)
    seconds, episodes = float(document["time"]["training_seconds"]), int(document["num_episodes"])
    return History(tables, end, episodes, seconds, document.get("finished"), returns)


def session_by_files(last_record: int, report_step: int) -> LastSession:
    """The last session of a run without a timeline: it ended if metrics.json is as new as the last record."""
    return LastSession(0, last_record, ended=report_step >= last_record)


def is_current(report_step: int, session: LastSession) -> bool:
    """Whether a metrics.json, written at env step `report_step`, is that of the last session."""
    return session.ended and report_step >= session.step


def _without_report(tables: Mapping[str, Columns], session: LastSession | None) -> History:
    reached = max(_last_step(tables), session.step if session is not None else 0)
    elapsed = tables[TRAIN].get("time/elapsed", np.zeros(0))
    return History(tables, reached, len(tables[EPISODE]["step"]), float(elapsed[-1:].sum()))


def _complete(
    records: Mapping[str, Columns], reported: Mapping[str, Columns], end: int, session: LastSession
) -> Mapping[str, Columns]:
    """The records, or those of metrics.json where a session wrote no metrics.jsonl, or a copy lost its end.

    metrics.json has everything up to env step `end`. In a session that has not ended, it is of an earlier
    one, and its records after the checkpoint from which the run was resumed do not count.
    """
    if end < (session.step if session.ended else session.start):
        return records if any(len(table["step"]) for table in records.values()) else reported
    cut = math.inf if session.ended else session.start
    if all(np.array_equal(_steps_before(cut, records[k]), _steps_before(cut, reported[k])) for k in KINDS):
        return records
    before = {kind: _rows(table, table["step"] <= cut) for kind, table in reported.items()}
    after = {kind: _rows(table, table["step"] > cut) for kind, table in records.items()}
    return {kind: joined(before[kind], after[kind]) for kind in KINDS}


def _steps_before(cut: float, table: Columns) -> Values:
    return table["step"][table["step"] < cut]


def _rows(table: Columns, chosen: NDArray[np.bool_]) -> Columns:
    return {name: column[chosen] for name, column in table.items()}


def _last_step(tables: Mapping[str, Columns]) -> int:
    return max((int(table["step"][-1]) for table in tables.values() if len(table["step"])), default=0)


def _read_report(path: Path) -> _Report:
    """A metrics.json, checked."""
    try:
        document = msgspec.json.decode(path.read_bytes())
        tables = {
            kind: columns({name: column for name, column in document[key].items() if name != "returns"}, kind)
            for kind, key in ((EPISODE, "episodes"), (TRAIN, "train"), (EVAL, "evaluations"))
        }
        numbers = [document["time"]["training_seconds"], document["env_steps"], document["num_episodes"]]
        np.array([*numbers, *(r for returns in document["evaluations"]["returns"] for r in returns)], float)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged: {error}; move it away") from error
    return _Report(document, tables)
