"""Tables of numbers to which a run only adds rows, so that checkpoints can share them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from dqn_runner.core.state import RowSnapshot
from dqn_runner.core.types import Array

_BYTES = 8
"""Size of a number."""


class History:
    """Columns of equal length; each is of 64-bit integers ("q") or floats ("d")."""

    def __init__(self, typecodes: Mapping[str, str]) -> None:
        """An empty table with a column of each name and type code of `array`."""
        self.columns: dict[str, array[Any]] = {name: array(code) for name, code in typecodes.items()}

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())))

    def append(self, *row: float) -> None:
        """Add a row: its numbers in the order of the columns."""
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)

    def lists(self) -> dict[str, list[Any]]:
        """All rows, by column."""
        return {name: column.tolist() for name, column in self.columns.items()}

    def snapshot(self) -> RowSnapshot:
        """The present rows as part of a state."""
        return RowSnapshot(0, len(self), _BYTES * len(self.columns), self._read)

    def load(self, snapshot: RowSnapshot) -> None:
        """Replace all rows by those of `snapshot`, which `problem_with` has accepted."""
        rows = snapshot.all()
        for name, column in self.columns.items():
            self.columns[name] = array(column.typecode, rows[name].tobytes())

    def _read(self, start: int, stop: int) -> dict[str, Array]:
        return {name: np.array(column[start:stop]) for name, column in self.columns.items()}


def problem_with(stored: RowSnapshot, ours: RowSnapshot) -> str | None:
    """Why `stored` cannot be rows of the table of `ours`; None if it can. Reads no file."""
    if stored.start:
        return "does not start at row 0"
    found, expected = (
        {name: (column.dtype, column.ndim) for name, column in each.read(each.stop, each.stop).items()}
        for each in (stored, ours)
    )
    return None if found == expected else f"has other columns than {', '.join(expected)}"
