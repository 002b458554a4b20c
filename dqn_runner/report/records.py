"""The records of metrics.jsonl as columns; what was read is not read again while a run adds to the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.run.thinning import Values

EPISODE, TRAIN, EVAL = KINDS = ("episode", "train", "eval")
PREFIXES = {EPISODE: "train/", TRAIN: "train/", EVAL: "eval/"}
"""What the keys of a kind of record begin with; other keys keep their whole name."""
MARK = 4096
"""Bytes before the end of what was read by which it is recognised."""

Columns = Mapping[str, Values]
"""The values of one kind of record, each of shape [records]; NaN where a record lacks one."""
NO_RECORDS: Mapping[str, Columns] = {kind: {"step": np.zeros(0)} for kind in KINDS}


class Records:
    """A metrics.jsonl that may grow, and that a resumed run may shorten first."""

    def __init__(self, path: Path) -> None:
        """Nothing is read yet."""
        self._path = path
        self._forget()

    def tables(self) -> Mapping[str, Columns]:
        """All complete lines, by kind of record; a process that was killed may leave a part of one.

        Raises DamagedError for a line that is not a record; it is read again the next time.
        """
        with self._path.open("rb") as file:
            if not self._continues(file):
                self._forget()
                file.seek(0)
            content = file.read()
        content = content[: content.rfind(b"\n") + 1]
        if content:
            try:
                new = _tables(content)
            except (ValueError, KeyError, TypeError) as error:
                raise DamagedError(f"{self._path} is damaged: {error}; move it away") from error
            self._tables = {kind: joined(self._tables[kind], new[kind]) for kind in KINDS}
            self._end += len(content)
            self._mark = (self._mark + content)[-MARK:]
        return self._tables

    def _continues(self, file: BinaryIO) -> bool:
        """Whether the file still begins with what was read; moves to the end of that."""
        file.seek(self._end - len(self._mark))
        return file.read(len(self._mark)) == self._mark

    def _forget(self) -> None:
        self._end, self._mark = 0, b""
        self._tables: Mapping[str, Columns] = NO_RECORDS


def columns(table: Mapping[str, Sequence[Any] | Values], kind: str) -> Columns:
    """Columns as arrays, without the prefix of their kind; raises ValueError if their lengths differ."""
    found = {str(k).removeprefix(PREFIXES[kind]): np.array(v, dtype=np.float64) for k, v in table.items()}
    found.setdefault("step", np.zeros(0))
    if any(column.shape != found["step"].shape for column in found.values()):
        raise ValueError("its columns have different lengths")
    return found


def _tables(content: bytes) -> dict[str, Columns]:
    by_kind: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for record in msgspec.json.Decoder().decode_lines(content):
        by_kind[record["kind"]].append(record)
    return {kind: columns(_transposed(records), kind) for kind, records in by_kind.items()}


def joined(first: Columns, second: Columns) -> Columns:
    """The records of both, one after the other."""
    if not len(second["step"]):
        return first
    return {
        name: np.concatenate(
            [table.get(name, np.full(len(table["step"]), np.nan)) for table in (first, second)]
        )
        for name in dict.fromkeys(chain(first, second))
    }


def _transposed(records: Sequence[Mapping[str, Any]]) -> dict[str, Values]:
    names = dict.fromkeys(chain.from_iterable(records))
    return {name: _column(records, name) for name in names if name != "kind"}


def _column(records: Sequence[Mapping[str, Any]], name: str) -> Values:
    """The values of a key; NaN where it is missing or null."""
    try:  # a third of the time of the other way
        return np.fromiter(map(itemgetter(name), records), np.float64, len(records))
    except (KeyError, TypeError):
        return np.array([record.get(name) for record in records], np.float64)
