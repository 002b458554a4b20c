"""A ring of rows: the storage under everything that a replay remembers."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.state import ReplaySnapshot
from dqn_runner.core.types import Array, IntArray

Layout = Mapping[str, tuple[tuple[int, ...], str]]
"""The columns of a ring: shape and dtype of one row's value, by name."""

_CHUNK_BYTES = 2**24
"""ReplaySnapshot of a checkpoint are taken over in pieces of this size, so that memory does not hold them twice."""


def row_bytes(layout: Layout) -> int:
    """Memory that one row takes."""
    return sum(prod(shape) * np.dtype(dtype).itemsize for shape, dtype in layout.values())


class RingBuffer:
    """Numbered rows in preallocated numpy columns; the operating system gives memory as they fill.

    The rows [start, stop) are held, row `number` in slot `number % capacity`. A new row takes the place of
    the oldest; whoever raises `start` forgets rows before their slots are needed.
    """

    def __init__(self, capacity: int, layout: Layout) -> None:
        """An empty ring."""
        self.capacity = capacity
        self.start = 0
        self.stop = 0
        self.columns: dict[str, Array] = {
            name: np.empty((capacity, *shape), dtype) for name, (shape, dtype) in layout.items()
        }
        self._arrays = list(self.columns.values())
        self._row_bytes = row_bytes(layout)

    def __len__(self) -> int:
        """How many rows are held."""
        return self.stop - self.start

    def append(self, *values: Any) -> None:
        """A new row, its values in the order of the columns; arrays are copied."""
        slot = self.stop % self.capacity
        for column, value in zip(self._arrays, values, strict=True):
            column[slot] = value
        self.stop += 1
        if self.stop - self.start > self.capacity:
            self.start += 1

    def take(self, slots: IntArray) -> dict[str, Array]:
        """Copies of the rows in `slots`, by column."""
        return {name: column.take(slots, axis=0) for name, column in self.columns.items()}

    def slots(self, start: int, stop: int) -> list[slice]:
        """Where the rows [start, stop) stand, at most `capacity` of them: two slices around the end."""
        first = start % self.capacity
        last = first + stop - start
        pieces = [slice(first, min(last, self.capacity)), slice(0, last - self.capacity)]
        return [piece for piece in pieces if piece.start < piece.stop]

    def rows(self) -> ReplaySnapshot:
        """The rows as part of a state."""
        return ReplaySnapshot(self.start, self.stop, self._row_bytes, self._read)

    def load(self, rows: ReplaySnapshot) -> None:
        """Hold `rows`, and nothing else."""
        chunk = max(1, _CHUNK_BYTES // self._row_bytes)
        for start in range(rows.start, rows.stop, chunk):
            stop = min(start + chunk, rows.stop)
            found = rows.read(start, stop)
            slots = np.arange(start, stop) % self.capacity
            for name, column in self.columns.items():
                values = found[name]
                if values.shape[1:] != column.shape[1:] or values.dtype != column.dtype:
                    raise UserError(
                        f"the checkpoint's replay does not fit: {name} is {values.shape[1:]} {values.dtype}, "
                        f"this run keeps {column.shape[1:]} {column.dtype}; env must stay as it was"
                    )
                column[slots] = values
        self.start, self.stop = rows.start, rows.stop

    def _read(self, start: int, stop: int) -> dict[str, Array]:
        pieces = self.slots(start, stop) or [slice(0, 0)]
        return {name: np.concatenate([c[piece] for piece in pieces]) for name, c in self.columns.items()}
