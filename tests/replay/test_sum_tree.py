"""The sum tree against a plain list of values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqn_runner.core.rng import stream
from dqn_runner.replay.sum_tree import SumTree, num_bytes

SIZES = [1, 31, 32, 33, 2048, 2049, 70_000]
"""Trees of one, two and three levels, with complete and incomplete blocks."""


def levels(tree: SumTree) -> list[bytes]:
    return [level.tobytes() for level in tree._levels]


def rebuilt(tree: SumTree) -> SumTree:
    other = SumTree(len(tree.values))
    other.fill(slice(0, len(tree.values)), tree.values)
    return other


@settings(max_examples=60)
@given(size=st.sampled_from(SIZES), data=st.data())
def test_a_sum_tree_finds_the_same_indices_as_a_cumulative_sum(size: int, data: st.DataObject) -> None:
    """With whole numbers, whose sums are exact."""
    tree, values = SumTree(size), np.zeros(size)
    random_ = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    for _ in range(data.draw(st.integers(1, 8))):
        if data.draw(st.booleans()):
            start, stop = sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size))))
            value = random_.integers(0, 4, stop - start).astype(float)
            tree.fill(slice(start, stop), value)
            values[start:stop] = value
        else:
            indices = random_.integers(size, size=data.draw(st.integers(0, 40)))
            changed = random_.integers(0, 100, len(indices)).astype(float)
            tree.set(indices, changed)
            for index, value in zip(indices, changed, strict=True):
                values[index] = value
    assert np.array_equal(tree.values, values)
    if values.any():
        fractions = random_.integers(0, 2**20, 50) / 2**20
        running = np.cumsum(values)
        expected = np.searchsorted(running, fractions * running[-1], side="right")
        assert np.array_equal(tree.find(fractions), expected)


@pytest.mark.parametrize("size", SIZES)
def test_the_sums_of_a_sum_tree_depend_only_on_its_values(size: int) -> None:
    """To the last bit, for any sequence of changes, so that a resumed run draws the same batches."""
    random_, tree = stream(0, "test"), SumTree(size)
    tree.fill(slice(0, size), 1.0)
    for count in (1, 2, 3, 7, 32, 128, 1000, 1, 5):
        indices = random_.integers(size, size=count)
        tree.set(indices, random_.exponential(size=count) ** 3)
        start = int(random_.integers(size))
        tree.fill(slice(start, min(size, start + count)), float(random_.random()))
        assert levels(tree) == levels(rebuilt(tree))


def test_rounding_errors_of_a_sum_tree_do_not_accumulate() -> None:
    """Huge values that are replaced leave no error, unlike in a tree that adds differences."""
    tree, indices = SumTree(5000), np.array([7, 7, 4000])
    tree.set(indices, np.array([1e300, 1e-3, 1e16]))
    tree.set(indices, np.array([5.0, 1.0, 3.0]))
    assert tree.values[7] == 1.0
    assert tree.find(np.array([0.0, 0.24, 0.25, 1.0])).tolist() == [7, 7, 4000, 4000]


@pytest.mark.parametrize("size", [40, 3000, 70_000])
def test_a_sum_tree_never_finds_a_value_of_zero(size: int) -> None:
    random_, tree = stream(1, "test"), SumTree(size)
    for share in (0.5, 0.01, 0.0):
        values = random_.exponential(size=size) ** 8 * (random_.random(size) < share)
        values[size // 2] = 1e-300  # one value is always above 0
        tree.fill(slice(0, size), values)
        edges = np.cumsum(values) / values.sum()
        fractions = np.concatenate([random_.random(500), edges[:500], edges[-500:], [0.0, 1.0]])
        assert (tree.values[tree.find(np.minimum(fractions, 1.0))] > 0).all()


def test_a_fraction_at_the_edge_of_a_block_finds_a_value_inside_the_block() -> None:
    """Rounding may make the sum of a block exceed the cumulative sum of its values."""
    random_, tree = stream(2, "test"), SumTree(4096)
    for _ in range(20):
        blocks = np.zeros((128, 32))
        blocks[:, 3:-3] = random_.exponential(size=(128, 26))
        tree.fill(slice(0, 4096), blocks.reshape(-1))
        edges = np.cumsum(blocks.sum(axis=1)) / blocks.sum()
        for fractions in (edges, np.nextafter(edges, 0.0), np.nextafter(edges, 1.0)):
            assert (tree.values[tree.find(np.minimum(fractions, 1.0))] > 0).all()


@pytest.mark.parametrize("size", [1, 100, 50_000, 1_000_000])
def test_num_bytes_of_a_sum_tree_is_the_size_of_its_arrays(size: int) -> None:
    assert num_bytes(size) == sum(level.nbytes for level in SumTree(size)._levels)
    assert num_bytes(size) <= 8 * (1.04 * size + 64)
