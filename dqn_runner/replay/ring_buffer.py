"""A ring buffer of rows: the storage of transitions and frames."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from dqn_runner.core.exceptions import DamagedError, UserError
from dqn_runner.core.state import RowSnapshot
from dqn_runner.core.types import Array, IntArray

Layout = Mapping[str, tuple[tuple[int, ...], str]]
"""The columns of a ring buffer: shape and dtype of one row's value, by name."""

_CHUNK_BYTES = 2**24
"""A snapshot is loaded in chunks of this size, so that memory does not hold all rows twice."""


def row_bytes(layout: Layout) -> int:
    """Size of one row in bytes."""
    return sum(prod(shape) * np.dtype(dtype).itemsize for shape, dtype in layout.values())


class RingBuffer:
    """Numbered rows in preallocated numpy columns; physical memory is used only as the rows are filled.

    It holds the rows [start, stop); row `number` is stored in slot `number % capacity`. A new row replaces
    the oldest. Increasing `start` drops rows before their slots are reused.
    """

    def __init__(self, capacity: int, layout: Layout) -> None:
        """Create an empty ring buffer for `capacity` rows."""
        self.capacity = capacity
        self.start = 0
        self.stop = 0
        self.columns: dict[str, Array] = {
            name: np.empty((capacity, *shape), dtype) for name, (shape, dtype) in layout.items()
        }
        self._arrays = list(self.columns.values())
        self._row_bytes = row_bytes(layout)

    def __len__(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    def append(self, *values: Any) -> None:
        """Add a row with these values, in the order of the columns; arrays are copied."""
        slot = self.stop % self.capacity
        for column, value in zip(self._arrays, values, strict=True):
            column[slot] = value
        self.stop += 1
        if self.stop - self.start > self.capacity:
            self.start += 1

    def take(self, slots: IntArray) -> dict[str, Array]:
        """Copies of the rows in `slots`, by column."""
        return {name: column.take(slots, axis=0) for name, column in self.columns.items()}

    def slices(self, start: int, stop: int) -> list[slice]:
        """The slots of the rows [start, stop), at most `capacity` of them, as up to two slices."""
        first = start % self.capacity
        last = first + stop - start
        parts = [slice(first, min(last, self.capacity)), slice(0, last - self.capacity)]
        return [part for part in parts if part.start < part.stop]

    def snapshot(self) -> RowSnapshot:
        """The rows as part of a state."""
        return RowSnapshot(self.start, self.stop, self._row_bytes, self._read)

    def load(self, snapshot: RowSnapshot) -> None:
        """Replace all rows by those of `snapshot`; raises a UserError if a shape or dtype differs."""
        if snapshot.stop - snapshot.start > self.capacity:
            raise DamagedError(f"the stored rows {snapshot.start} to {snapshot.stop} exceed the capacity")
        chunk = max(1, _CHUNK_BYTES // self._row_bytes)
        for start in range(snapshot.start, snapshot.stop, chunk):
            stop = min(start + chunk, snapshot.stop)
            saved = snapshot.read(start, stop)
            slots = np.arange(start, stop) % self.capacity
            for name, column in self.columns.items():
                values = saved[name]
                if values.shape[1:] != column.shape[1:] or values.dtype != column.dtype:
                    raise UserError(
                        f"the checkpoint's replay does not fit: {name} is {values.shape[1:]} {values.dtype}, "
                        f"this run has {column.shape[1:]} {column.dtype}; env must not change"
                    )
                column[slots] = values
        self.start, self.stop = snapshot.start, snapshot.stop

    def _read(self, start: int, stop: int) -> dict[str, Array]:
        parts = self.slices(start, stop) or [slice(0, 0)]
        return {name: np.concatenate([c[part] for part in parts]) for name, c in self.columns.items()}
