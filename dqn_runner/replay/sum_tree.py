"""A sum tree: drawing an index in proportion to its value, among millions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dqn_runner.core.types import IntArray

Floats = NDArray[np.float64]

_FANOUT = 32
_TOP = 2048
"""The highest level is at most this long, and searched as a whole."""


class SumTree:
    """Values with the sums of their blocks, the sums of those, and so on.

    A changed block is summed again from its own values, never adjusted by a difference: no error builds
    up, and the sums are a function of the values alone, whatever the order and size of the changes.
    """

    def __init__(self, size: int) -> None:
        """All values are 0."""
        self._levels = [np.zeros(length) for length in _lengths(size)]
        self._blocks = [level.reshape(-1, _FANOUT) for level in self._levels]
        self.values: Floats = self._levels[0][:size]
        """[size]: to be read; `set` and `fill` change them."""

    def set(self, indices: IntArray, values: Floats) -> None:
        """Change single values; where an index is repeated, the last value counts."""
        self.values[indices] = values
        for blocks, sums in self._steps():
            indices = indices // _FANOUT
            sums[indices] = np.add.reduce(blocks.take(indices, axis=0), axis=1)

    def fill(self, where: slice, values: Floats | float) -> None:
        """Change the values of a range."""
        self.values[where] = values
        start, stop = where.start, where.stop
        for blocks, sums in self._steps():
            start, stop = start // _FANOUT, -(-stop // _FANOUT)
            np.add.reduce(blocks[start:stop], axis=1, out=sums[start:stop])

    def find(self, fractions: Floats) -> IntArray:
        """The indices at which the running total of the values passes these fractions [n] of the sum.

        Fractions are from 0 to 1, and some value must be above 0. An index whose value is 0 is never found,
        however sums are rounded.
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

    def _steps(self) -> zip[tuple[Floats, Floats]]:
        """From the bottom up, the blocks of a level with the level of their sums."""
        return zip(self._blocks[:-1], self._levels[1:], strict=True)


def num_bytes(size: int) -> int:
    """Memory that a tree of `size` values takes."""
    return sum(_lengths(size)) * np.dtype(np.float64).itemsize


def _lengths(size: int) -> list[int]:
    """The lengths of the levels from the bottom up, all of whole blocks."""
    lengths = [_whole(size)]
    while lengths[-1] > _TOP:
        lengths.append(_whole(lengths[-1] // _FANOUT))
    return lengths


def _whole(length: int) -> int:
    return -(-length // _FANOUT) * _FANOUT
