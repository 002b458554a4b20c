"""The vocabulary that every layer shares: data passed between the parts, and the state protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from dqn_runner.core.types import Array

State = dict[str, Any]
"""What `state_dict` returns: nested dicts and lists of plain values, numpy arrays, tensors and ReplaySnapshot."""


@dataclass(frozen=True)
class ReplaySnapshot:
    """Numbered rows that never change once they are written: how a growing memory is part of a state.

    Whoever keeps states can then keep each row once, however many states hold it.
    """

    start: int
    """Number of the oldest row still held."""
    stop: int
    """Number that the next row will get."""
    row_bytes: int
    read: Callable[[int, int], dict[str, Array]]
    """Columns of the rows [start, stop), copied."""

    def all(self) -> dict[str, Array]:
        """Columns of all rows, oldest first."""
        return self.read(self.start, self.stop)


class Stateful(Protocol):
    """Whoever mutates can hand out its state and take it back."""

    def state_dict(self) -> State:
        """Everything needed to go on from here."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`; raises if it does not fit."""
        ...


def crossed(previous: int, now: int, every: int) -> bool:
    """Whether counting from `previous` to `now` passed a multiple of `every`."""
    return now // every > previous // every
