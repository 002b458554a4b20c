"""How an observation with several entries is laid out as one row of bytes.

A Dict observation of images, vectors and categories travels through a run as one uint8 array: environments,
replay and checkpoints treat it like any other array, and each entry keeps its own dtype. Only the two ends
know the layout: the check of the environment packs, and the network unpacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch

Array = NDArray[Any]

MIN_IMAGE_SIDE = 3
"""Smaller images are vectors: no convolution fits into them."""
_ALIGNMENT = 4
"""The size of a row is a multiple of it, so that entries of any dtype are views of the bytes."""


def channels_last(shape: tuple[int, ...]) -> bool:
    """Whether the channels are the last axis of an image: the smaller of first and last, or a tie."""
    return shape[-1] <= shape[0]


@dataclass(frozen=True)
class Entry:
    """One entry of an observation."""

    name: str
    """Its key; the keys of nested entries are joined by dots."""
    shape: tuple[int, ...]
    """() for a Discrete entry."""
    dtype: str
    """In which it is stored: `float32`, `int32`, `int16`, `uint8` or `bool`."""
    path: tuple[str | int, ...]
    """The keys that lead to it; numbers in a Tuple."""
    sizes: tuple[int, ...] = ()
    """Of categories, the number of them in each element; empty for numbers."""
    start: tuple[int, ...] = ()
    """Of categories, the first one in each element; they are stored counted from zero."""
    divisor: float = 1.0
    """Networks get numbers divided by it: the largest value of uint8 entries."""

    @property
    def is_image(self) -> bool:
        """Whether it has two or three axes, with a height and a width that a convolution fits into."""
        if self.sizes or len(self.shape) not in (2, 3):
            return False
        return min(self._channels_height_width[1:]) >= MIN_IMAGE_SIDE

    @property
    def is_vector(self) -> bool:
        """Whether it is a vector of floats, the only kind of entry that is normalised."""
        return not self.sizes and not self.is_image and self.dtype == "float32"

    @property
    def num_bytes(self) -> int:
        """Size in a row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def input_shape(self, frames: int) -> tuple[int, ...]:
        """Shape in which a network gets `frames` successive ones.

        Images are [channels, height, width] with all frames as channels, everything else is [elements].
        """
        if not self.is_image:
            return (frames * math.prod(self.shape),)
        channels, height, width = self._channels_height_width
        return frames * channels, height, width

    def stored(self, value: Any, lead: tuple[int, ...]) -> Array:
        """`value` [*lead, *shape] as an array that can be stored; raises ValueError that says what is wrong.

        Floats are rounded to float32 and must be finite; integers, bools and categories must fit.
        """
        array = _as_array(value)
        if array.shape != (*lead, *self.shape):
            raise ValueError(f"shape {array.shape} instead of {(*lead, *self.shape)}")
        if self.sizes:
            array = self._from_zero(array)
        if array.dtype == self.dtype and self.dtype != "float32":
            return array
        with np.errstate(all="ignore"):
            converted = array.astype(self.dtype)
        wrong = ~np.isfinite(converted) if self.dtype == "float32" else converted != array
        if wrong.any():
            reason = "not a finite number" if self.dtype == "float32" else f"not a value of {self.dtype}"
            raise ValueError(f"{array[wrong].flat[0]}, which is {reason}")
        return converted

    def _from_zero(self, array: Array) -> Array:
        if array.dtype.kind == "f" and not np.array_equal(array, np.floor(array)):
            raise ValueError("a category that is not an integer")
        start, sizes = (np.reshape(each, self.shape) for each in (self.start, self.sizes))
        with np.errstate(all="ignore"):  # infinity, or a float that no integer holds
            counted = array.astype(np.int64) - start
        wrong = (counted < 0) | (counted >= sizes)
        if np.any(wrong):
            raise ValueError(f"{array[wrong].flat[0]}, which is not one of the categories")
        return counted.astype(self.dtype)

    @property
    def _channels_height_width(self) -> tuple[int, int, int]:
        if len(self.shape) == 2:
            return 1, *self.shape
        first, second, third = self.shape
        return (third, first, second) if channels_last(self.shape) else (first, second, third)


@dataclass(frozen=True)
class ObservationLayout:
    """The entries of an observation, in the order of their bytes in a row.

    Vectors of floats come first, so that they are one array; then larger dtypes before smaller ones, so that
    each entry is aligned. Entries of the same kind are in the order of their names.
    """

    entries: tuple[Entry, ...]
    frames: int = 1
    """Number of successive observations that are stacked; each is a row."""

    @classmethod
    def of(cls, entries: list[Entry], frames: int = 1) -> ObservationLayout:
        """The layout of these entries, in any order."""
        order = sorted(
            entries, key=lambda each: (not each.is_vector, -np.dtype(each.dtype).itemsize, each.name)
        )
        return cls(tuple(order), frames)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ObservationLayout:
        """The layout that `to_plain` described; raises UserError for what it cannot have described."""
        import msgspec  # late: only runs with several entries need it

        try:
            return msgspec.convert(plain, cls)
        except msgspec.ValidationError as error:
            raise UserError(
                f"agent.state_dim is not the description of a Dict observation: {error}"
            ) from error

    def to_plain(self) -> dict[str, Any]:
        """A description of plain values."""
        import msgspec  # late: only runs with several entries need it

        return msgspec.to_builtins(self)

    def by_name(self) -> ObservationLayout:
        """The layout of the same entries, but each under its name instead of in nested containers."""
        return ObservationLayout(
            tuple(replace(entry, path=(entry.name,)) for entry in self.entries), self.frames
        )

    @cached_property
    def row_bytes(self) -> int:
        """Size of a row, with the padding at its end."""
        size = sum(entry.num_bytes for entry in self.entries)
        return -(-size // _ALIGNMENT) * _ALIGNMENT

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Shape of a packed observation, whose dtype is uint8."""
        return (self.row_bytes,) if self.frames == 1 else (self.frames, self.row_bytes)

    @property
    def lead(self) -> tuple[int, ...]:
        """The axes of an entry of an observation before its own shape: the frames, if they are stacked."""
        return () if self.frames == 1 else (self.frames,)

    @cached_property
    def vector_bytes(self) -> int:
        """Size of the vectors of floats, at the start of a row."""
        return sum(entry.num_bytes for entry in self.entries if entry.is_vector)

    @property
    def entry_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each entry, as the environment returns it."""
        return {entry.name: (*self.lead, *entry.shape) for entry in self.entries}

    @property
    def entry_dtypes(self) -> dict[str, str]:
        """The dtype of each entry, as programs should give it: that of the storage, int64 of categories."""
        return {entry.name: "int64" if entry.sizes else entry.dtype for entry in self.entries}

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape in which a network gets each entry."""
        return {entry.name: entry.input_shape(self.frames) for entry in self.entries}

    def pack(self, values: Mapping[str, Array], batch: tuple[int, ...] = ()) -> Array:
        """Rows [*batch, *obs_shape] of stored entries [*batch, *lead, *shape]."""
        lead = (*batch, *self.lead)
        packed = np.zeros((*lead, self.row_bytes), np.uint8)
        for entry, place in self._places:
            packed[..., place] = np.ascontiguousarray(values[entry.name]).reshape(*lead, -1).view(np.uint8)
        return packed

    def unpack(self, packed: torch.Tensor) -> dict[str, torch.Tensor]:
        """The entries [batch, *lead, *shape] of rows [batch, *obs_shape]; all but bools are views."""
        lead = packed.shape[:-1]
        found: dict[str, torch.Tensor] = {}
        for entry, place in self._places:
            part = packed[..., place]
            # torch 2.13 cannot compile a view of bytes as bools
            value = part != 0 if entry.dtype == "bool" else part.view(getattr(torch, entry.dtype))
            found[entry.name] = value.reshape(*lead, *entry.shape)
        return found

    def inputs(self, entries: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What a network gets for stored entries [batch, *lead, *shape].

        Numbers as float32: images [batch, channels, height, width], vectors [batch, elements], uint8 divided
        by its largest value. Categories as int64 [batch, elements].
        """
        return {entry.name: self._input(entry, entries[entry.name]) for entry in self.entries}

    def describe(self) -> str:
        """The entries in a few words, for messages."""
        return ", ".join(_describe(entry) for entry in sorted(self.entries, key=lambda each: each.name))

    def _input(self, entry: Entry, value: torch.Tensor) -> torch.Tensor:
        batch = value.shape[0]
        if entry.sizes:
            return value.reshape(batch, -1).to(torch.int64)
        numbers = value.to(torch.float32)
        if entry.divisor != 1.0:
            numbers = numbers / entry.divisor
        if entry.is_image and len(entry.shape) == 3 and channels_last(entry.shape):
            numbers = numbers.movedim(-1, -3)
        return numbers.reshape(batch, *entry.input_shape(self.frames))

    @cached_property
    def _places(self) -> list[tuple[Entry, slice]]:
        """The bytes of each entry in a row."""
        return list(self._each_place())

    def _each_place(self) -> Iterator[tuple[Entry, slice]]:
        first = 0
        for entry in self.entries:
            yield entry, slice(first, first + entry.num_bytes)
            first += entry.num_bytes


def _as_array(value: Any) -> Array:
    try:
        array = np.asarray(value)
    except Exception:  # such as a list of arrays of different shapes
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise ValueError("None" if value is None else f"a {type(value).__name__}")
    return array


def _describe(entry: Entry) -> str:
    if not entry.sizes:
        kind = "image" if entry.is_image else "vector"
        return f"{entry.name} ({kind} {'x'.join(map(str, entry.shape))} {entry.dtype})"
    if len(entry.sizes) == 1:
        return f"{entry.name} (one of {entry.sizes[0]})"
    return f"{entry.name} ({len(entry.sizes)} categories)"
