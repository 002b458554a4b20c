"""The history of a run as columns, from metrics.jsonl or metrics.json, also during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.io import json_io
from dqn_runner.io.entries import is_file
from dqn_runner.run.last_records import RECORDS
from dqn_runner.run.plots import OWN
from dqn_runner.run.thinning import Values
from dqn_runner.training.metrics import EVAL_KEYS, TRAIN_KEYS

EPISODE, TRAIN, EVAL = KINDS = ("episode", "train", "eval")
PREFIXES = {EPISODE: "train/", TRAIN: "train/", EVAL: "eval/"}
"""What the keys of a kind of record begin with; other keys keep their whole name."""

Columns = Mapping[str, Values]
"""The values of one kind of record, each of shape [records]; NaN where a record lacks one."""


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
    """The history of the run in `run_dir`; empty if it has written nothing yet.

    metrics.jsonl is complete at every moment, but a run may be without it; metrics.json also has the end of
    the run, and the returns of single evaluation episodes. Raises DamagedError if neither can be read.
    """
    report = _report(run_dir / json_io.METRICS)
    records = run_dir / RECORDS
    if is_file(records):
        tables = _tables_of_records(records)
    elif report is not None:
        tables = _tables_of_report(report)
    else:
        return History({kind: {"step": np.zeros(0)} for kind in KINDS})
    return _history(tables, report or {})


def _history(tables: Mapping[str, Columns], report: Mapping[str, Any]) -> History:
    steps = max((int(t["step"][-1]) for t in tables.values() if len(t["step"])), default=0)
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


def _report(path: Path) -> dict[str, Any] | None:
    """The content of metrics.json; None if there is none."""
    if not is_file(path):
        return None
    try:
        document = msgspec.json.decode(path.read_bytes())
        for kind, key in ((EPISODE, "episodes"), (TRAIN, "train"), (EVAL, "evaluations")):
            _columns({name: c for name, c in document[key].items() if name != "returns"}, kind)
        numbers = [document["time"]["training_seconds"], document["env_steps"], document["num_episodes"]]
        np.array([*numbers, *(r for returns in document["evaluations"]["returns"] for r in returns)], float)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged: {error}; move it away") from error
    return document


def _tables_of_report(report: Mapping[str, Any]) -> dict[str, Columns]:
    evaluations = {name: c for name, c in report["evaluations"].items() if name != "returns"}
    return {
        EPISODE: _columns(report["episodes"], EPISODE),
        TRAIN: _columns(report["train"], TRAIN),
        EVAL: _columns(evaluations, EVAL),
    }


def _tables_of_records(path: Path) -> dict[str, Columns]:
    """The complete lines of metrics.jsonl; a process that was killed may leave a part of one."""
    content = path.read_bytes()
    content = content[: content.rfind(b"\n") + 1]
    try:
        by_kind: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        for record in msgspec.json.Decoder().decode_lines(content):
            by_kind[record["kind"]].append(record)
        return {kind: _columns(_transposed(records), kind) for kind, records in by_kind.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} is damaged: {error}; move it away") from error


def _transposed(records: Sequence[Mapping[str, Any]]) -> dict[str, Values]:
    names = dict.fromkeys(chain.from_iterable(records))
    return {name: _column(records, name) for name in names if name != "kind"}


def _column(records: Sequence[Mapping[str, Any]], name: str) -> Values:
    """The values of a key; NaN where it is missing or null."""
    try:  # a third of the time of the other way
        return np.fromiter(map(itemgetter(name), records), np.float64, len(records))
    except (KeyError, TypeError):
        return np.array([record.get(name) for record in records], np.float64)


def _columns(table: Mapping[str, Sequence[Any] | Values], kind: str) -> Columns:
    """Columns as arrays, without the prefix of their kind."""
    found = {str(k).removeprefix(PREFIXES[kind]): np.array(v, dtype=np.float64) for k, v in table.items()}
    found.setdefault("step", np.zeros(0))
    if any(column.shape != found["step"].shape for column in found.values()):
        raise ValueError("its columns have different lengths")
    return found
