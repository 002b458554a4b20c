"""State that a checkpoint stores: what `state_dict` of a part returns and `load_state_dict` restores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dqn_runner.core.types import Array

State = dict[str, Any]
"""What an object needs to resume exactly. Nested dicts and lists of plain values, arrays, tensors and
RowSnapshot."""


@dataclass(frozen=True)
class RowSnapshot:
    """A table within a state, such as a replay or the history: numbered rows that never change once written.

    Rows are added at the end and may be dropped at the start. Because a row keeps its number and its content,
    a checkpointer can store each row once, however many checkpoints contain it.
    """

    start: int
    """Number of the oldest row in the snapshot."""
    stop: int
    """Number after that of the newest row."""
    row_bytes: int
    """Size of one row, in bytes."""
    read: Callable[[int, int], dict[str, Array]]
    """`read(start, stop)` copies the rows [start, stop): column name to array [stop - start, ...]."""

    def all(self) -> dict[str, Array]:
        """Copy all rows, oldest first: column name to array [rows, ...]."""
        return self.read(self.start, self.stop)


def crossed(previous: int, now: int, every: int) -> bool:
    """Whether a counter passed a multiple of `every` on its way from `previous` to `now`."""
    return now // every > previous // every
