"""States of the user's own objects come back as they were."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dqn_runner.checkpointing.user_state import pack_user_state, restored_state
from dqn_runner.core.exceptions import UserError

DEEP: list[Any] = []
for _ in range(120):
    DEEP = [DEEP]
ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)

STATE: dict[str, Any] = {
    "slow": [torch.ones(2), np.zeros(3)],
    "nested": {"array": np.arange(4), "tensor": torch.arange(4), "text": "a", "none": None},
    "number": 3,
    "pairs": [(1, "a"), (2, (np.ones(1), [()]))],
    "scalar": torch.tensor(2.0),
    "empty": {"list": [], "tuple": (), "dictionary": {}, "array": np.array(1.5)},
}


class Pair(NamedTuple):
    left: int
    right: int


def kinds(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: kinds(item) for key, item in state.items()}
    return (
        (type(state), [kinds(item) for item in state]) if isinstance(state, list | tuple) else (type(state),)
    )


def restored(state: Any) -> Any:
    """The state, stored in a file and read again."""
    file = io.BytesIO()
    torch.save(pack_user_state("callbacks.mine", state), file)
    file.seek(0)
    return restored_state(torch.load(file, weights_only=True))


def test_arrays_tensors_and_tuples_are_restored_as_such_wherever_they_are() -> None:
    """Also in a list, and whatever the object that loads them has at that time."""
    again = restored(STATE)
    assert kinds(again) == kinds(STATE)
    assert again["nested"]["array"].tolist() == [0, 1, 2, 3]
    assert again["pairs"][0] == (1, "a")
    assert again["empty"]["array"].shape == ()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
        lambda item: st.lists(item) | st.lists(item).map(tuple) | st.dictionaries(st.text(), item),
    )
)
def test_a_state_of_plain_values_is_restored_as_it_was(state: Any) -> None:
    again = restored(state)
    assert again == state
    assert kinds(again) == kinds(state)


def test_an_ordered_dictionary_and_a_shape_are_stored_as_plain_ones() -> None:
    """States of torch's modules are ordered dictionaries."""
    again = restored({"layer": torch.nn.Linear(1, 1).state_dict(), "shape": torch.ones(2, 3).shape})
    assert type(again["layer"]) is dict
    assert again["shape"] == (2, 3)


@pytest.mark.parametrize(
    "number",
    [np.float32(1.5), np.bool_(True), np.int8(3), np.complex64(1j), np.float64(-0.0)],
    ids=repr,
)
def test_numbers_of_numpy_keep_their_types(number: Any) -> None:
    again = restored({"here": number, "list": (number, 1)})
    assert type(again["here"]) is type(again["list"][0]) is type(number)
    assert again["here"] == number
    assert again["list"][1] == 1


@pytest.mark.parametrize(
    "marked",
    [
        {"(tuple)": 5},
        {"(array)": [1]},
        {"(number)": None},
        {"(tuple)": [], "other": 1},
        [{"(array)": torch.ones(1), "(tuple)": []}],
    ],
    ids=str,
)
def test_a_state_that_is_never_stored_is_rejected(marked: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a|with the keys"):
        restored_state(marked)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"a": [1, ({2},)]}, r"state\.a\[1\]\[0\] is a set; "),
        ({"a": (np.array(["text"]),)}, r"state\.a\[0\] is an array of str"),
        ({"a": Counter("ab")}, r"state\.a is a Counter, which would be restored as another type"),
        ([defaultdict(int)], r"state\[0\] is a defaultdict, which"),
        ((Pair(1, 2),), r"state\[0\] is a Pair, which"),
        ({"a": {"(tuple)": 1}}, r"state\.a has the reserved key '\(tuple\)'"),
        ({"a": ENDLESS}, "it contains itself"),
    ],
    ids=str,
)
def test_the_place_of_what_cannot_be_stored_is_named(state: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        pack_user_state("callbacks.mine", state)


@pytest.mark.parametrize(
    "value",
    [
        np.datetime64("2020-01-01"),
        np.datetime64(5, "ns"),
        np.bytes_(b"a"),
        np.longdouble(1),
        np.void(b"ab"),
        np.ma.masked_array([1, 2], [0, 1]),
        torch.eye(2).to_sparse(),
        torch.empty(2, device="meta"),
        2**2100,
        DEEP,
        ENDLESS,
        {"row snapshot": 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_could_not_be_read_again_is_rejected(value: Any) -> None:
    with pytest.raises(UserError, match=r"^callbacks\.mine: its state_dict\(\) must consist of numbers"):
        pack_user_state("callbacks.mine", {"value": value})
