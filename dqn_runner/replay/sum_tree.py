"""A sum tree: draws indices with probabilities proportional to their values, among millions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dqn_runner.core.types import IntArray

Floats = NDArray[np.float64]

_FANOUT = 32
_TOP = 2048
"""Maximum length of the highest level, which is searched as a whole."""


class SumTree:
    """Values, the sums of blocks of values, the sums of blocks of those sums, and so on.

    A changed block is summed again from its values instead of adding the difference. Rounding errors
    therefore do not accumulate, and the sums depend only on the values, not on the order or size of changes.
    """

    def __init__(self, size: int) -> None:
        """Create a tree of `size` values, all 0."""
        self._levels = [np.zeros(length) for length in _lengths(size)]
        self._blocks = [level.reshape(-1, _FANOUT) for level in self._levels]
        self.values: Floats = self._levels[0][:size]
        """[size], read-only: change values with `set` and `fill`."""

    def set(self, indices: IntArray, values: Floats) -> None:
        """Set single values; for a repeated index the last value counts."""
        self.values[indices] = values
        for blocks, sums in self._level_pairs():
            indices = indices // _FANOUT
            sums[indices] = np.add.reduce(blocks.take(indices, axis=0), axis=1)

    def fill(self, part: slice, values: Floats | float) -> None:
        """Set the values of a contiguous range."""
        self.values[part] = values
        start, stop = part.start, part.stop
        for blocks, sums in self._level_pairs():
            start, stop = start // _FANOUT, -(-stop // _FANOUT)
            np.add.reduce(blocks[start:stop], axis=1, out=sums[start:stop])

    def find(self, fractions: Floats) -> IntArray:
        """The indices [n] at which the cumulative sum of the values exceeds `fractions` [n] of the total.

        Fractions are from 0 to 1, and at least one value must be above 0. An index with a value of 0 is
        never returned, not even because of rounding.
        """
        top = self._levels[-1]
        totals: Floats = np.cumsum(top)
        rest: Floats = np.minimum(fractions * totals[-1], np.nextafter(totals[-1], 0.0))
        indices: IntArray = np.searchsorted(totals, rest, side="right")
        rest -= np.where(indices > 0, totals[indices - 1], 0.0)
        for blocks in self._blocks[-2::-1]:
            running: Floats = blocks.take(indices, axis=0).cumsum(axis=1)
            np.minimum(rest, np.nextafter(running[:, -1], 0.0), out=rest)
            inside: IntArray = np.add.reduce(running <= rest[:, None], axis=1)
            before = running[np.arange(len(inside)), inside - 1]
            rest -= np.where(inside > 0, before, 0.0)
            indices = indices * _FANOUT + inside
        return indices

    def _level_pairs(self) -> zip[tuple[Floats, Floats]]:
        """Pairs of a level's blocks and the level of their sums, from the bottom up."""
        return zip(self._blocks[:-1], self._levels[1:], strict=True)


def num_bytes(size: int) -> int:
    """Memory of a tree of `size` values in bytes."""
    return sum(_lengths(size)) * np.dtype(np.float64).itemsize


def _lengths(size: int) -> list[int]:
    """The lengths of the levels from the bottom up, each a multiple of the block size."""
    lengths = [_round_up(size)]
    while lengths[-1] > _TOP:
        lengths.append(_round_up(lengths[-1] // _FANOUT))
    return lengths


def _round_up(length: int) -> int:
    return -(-length // _FANOUT) * _FANOUT
