"""A Dict observation is one row of bytes, in which each entry has a fixed place and its own dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.observation_layout import Entry, ObservationLayout

SPEED = Entry("speed", (2,), "float32", ("speed",))
DEPTH = Entry("depth", (3, 3), "float32", ("depth",))
PLACE = Entry("place", (), "int16", ("place",), (300,), (0,))
CAMERA = Entry("camera", (3, 4, 1), "uint8", ("camera",), divisor=255.0)
FLAGS = Entry("flags", (3,), "bool", ("flags",))
ENTRIES = [CAMERA, FLAGS, PLACE, DEPTH, SPEED]


def test_vectors_of_floats_come_first_then_larger_dtypes() -> None:
    layout = ObservationLayout.of(ENTRIES)
    assert [entry.name for entry in layout.entries] == ["speed", "depth", "place", "camera", "flags"]
    assert layout.vector_bytes == 8
    assert layout.row_bytes == 64  # 8 + 36 + 2 + 12 + 3, and 3 bytes of padding
    assert layout.obs_shape == (64,)
    assert ObservationLayout.of(ENTRIES[::-1]) == layout


def test_golden_bytes_of_a_row() -> None:
    layout = ObservationLayout.of(
        [Entry("b", (2,), "uint8", ("b",)), Entry("a", (1,), "float32", ("a",)), PLACE]
    )
    values = {"a": np.array([1.0], np.float32), "b": np.array([7, 8], np.uint8), "place": np.int16(258)}
    row = layout.pack({name: np.asarray(value) for name, value in values.items()})
    assert row.tolist() == [0, 0, 0x80, 0x3F, 2, 1, 7, 8]


def test_unpacking_gives_what_was_packed() -> None:
    layout = ObservationLayout.of(ENTRIES, frames=2)
    rng = np.random.default_rng(0)
    values = {entry.name: rng.integers(2, size=(5, 2, *entry.shape)).astype(entry.dtype) for entry in ENTRIES}
    packed = layout.pack(values, (5,))
    assert packed.shape == (5, 2, 64)
    found = layout.unpack(torch.from_numpy(packed))
    for name, value in values.items():
        assert found[name].numpy().dtype == value.dtype
        assert np.array_equal(found[name].numpy(), value)


SHAPES = st.lists(st.integers(1, 4), max_size=3).map(tuple)
DTYPES = st.sampled_from(["float32", "int32", "int16", "uint8", "bool"])


@settings(max_examples=30)
@given(st.lists(st.tuples(SHAPES, DTYPES), min_size=1, max_size=6), st.integers(1, 3))
def test_any_entries_survive_packing(kinds: list[Any], frames: int) -> None:
    entries = [Entry(str(i), shape, dtype, (str(i),)) for i, (shape, dtype) in enumerate(kinds)]
    layout = ObservationLayout.of(entries, frames)
    rng = np.random.default_rng(1)
    values = {e.name: rng.integers(2, size=(3, *layout.lead, *e.shape)).astype(e.dtype) for e in entries}
    found = layout.unpack(torch.from_numpy(layout.pack(values, (3,))))
    assert all(np.array_equal(found[name].numpy(), value) for name, value in values.items())
    assert ObservationLayout.from_plain(layout.to_plain()) == layout


@pytest.mark.parametrize(
    ("shape", "frames", "expected"),
    [
        ((7, 7, 3), 1, (3, 7, 7)),
        ((3, 84, 84), 1, (3, 84, 84)),
        ((7, 7), 1, (1, 7, 7)),
        ((4, 4), 9, (9, 4, 4)),
        ((7, 7, 3), 2, (6, 7, 7)),
        ((2, 9), 1, (18,)),
        ((5,), 3, (15,)),
        ((), 1, (1,)),
    ],
)
def test_networks_get_images_with_channels_first_and_flat_vectors(
    shape: tuple[int, ...], frames: int, expected: tuple[int, ...]
) -> None:
    layout = ObservationLayout.of([Entry("x", shape, "float32", ("x",))], frames)
    assert layout.input_shapes == {"x": expected}
    x = torch.randn(2, *layout.lead, *shape)
    assert layout.inputs({"x": x})["x"].shape == (2, *expected)


def test_channels_and_frames_are_in_order() -> None:
    x = torch.arange(2 * 3 * 3 * 2).reshape(1, 2, 3, 3, 2).float()  # [batch, frames, height, width, channels]
    image = ObservationLayout.of([Entry("x", (3, 3, 2), "float32", ("x",))], 2).inputs({"x": x})["x"]
    assert torch.equal(image[0, 3], x[0, 1, :, :, 1])  # the second channel of the second frame


def test_bytes_are_divided_by_their_largest_value_and_categories_are_integers() -> None:
    layout = ObservationLayout.of([Entry("bits", (2,), "uint8", ("bits",), divisor=4.0), PLACE])
    inputs = layout.inputs({"bits": torch.tensor([[1, 4]], dtype=torch.uint8), "place": torch.tensor([299])})
    assert inputs["bits"].tolist() == [[0.25, 1.0]]
    assert inputs["place"].dtype == torch.int64
    assert inputs["place"].tolist() == [[299]]


@pytest.mark.parametrize(
    ("entry", "value", "reason"),
    [
        (SPEED, [1.0, np.nan], "nan, which is not a finite number"),
        (SPEED, [1.0, 1e39], "1e\\+39|inf"),
        (SPEED, [1.0], r"shape \(1,\) instead of \(2,\)"),
        (SPEED, None, "None"),
        (SPEED, "fast", "a str"),
        (SPEED, [[1], [2, 3]], "a list"),
        (PLACE, 300, "300, which is not one of the categories"),
        (PLACE, -1, "-1, which is not one"),
        (PLACE, 1.5, "not an integer"),
        (PLACE, np.nan, "not an integer"),
        (PLACE, np.inf, "inf, which is not one of the categories"),
        (PLACE, -1e300, "which is not one of the categories"),
        (FLAGS, [0, 1, 2], "2, which is not a value of bool"),
        (CAMERA, np.full((3, 4, 1), 0.5), "0.5, which is not a value of uint8"),
    ],
)
def test_values_that_do_not_fit_are_rejected(entry: Entry, value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        entry.stored(value, ())


def test_categories_are_counted_from_zero() -> None:
    entry = Entry("x", (2,), "uint8", ("x",), (3, 200), (-1, 5))
    assert entry.stored([1, 204], ()).tolist() == [2, 199]
    assert entry.stored(np.array([0.0, 5.0]), ()).tolist() == [1, 0]


def test_a_description_that_is_none_is_rejected() -> None:
    with pytest.raises(UserError, match=r"agent\.state_dim is not the description"):
        ObservationLayout.from_plain({"entries": 3})
