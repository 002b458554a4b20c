"""States of the user's own objects come back as they were."""

from __future__ import annotations

import io
import random
import warnings
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dqn_runner.checkpointing.user_state import check_user_state, pack_user_state, restored_state
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


def nested_tensor() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them a prototype
        return torch.nested.nested_tensor([torch.ones(1)])


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
    [
        *(np.float32(1.5), np.bool_(True), np.int8(3), np.complex64(1j), np.float64(-0.0)),
        *(np.uint16(65535), np.uint32(2**31), np.uint64(2**64 - 1), np.uint8(255)),
    ],
    ids=repr,
)
def test_numbers_of_numpy_keep_their_types(number: Any) -> None:
    again = restored({"here": number, "list": (number, 1)})
    assert type(again["here"]) is type(again["list"][0]) is type(number)
    assert again["here"] == number
    assert again["list"][1] == 1


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", ">u4", "uint8", ">f8", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 2)], ids=str)
def test_arrays_of_any_dtype_of_numbers_are_restored(dtype: str, shape: tuple[int, ...]) -> None:
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape) * 40_000
    array = numbers.astype(dtype)[..., ::-1] if shape else numbers.astype(dtype)
    again = restored({"here": array})["here"]
    assert again.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.Philox, np.random.SFC64, np.random.PCG64])
def test_the_state_of_a_generator_is_restored(kind: type[Any]) -> None:
    generator = np.random.Generator(kind(3))
    generator.random(10)
    stored = restored(generator.bit_generator.state)
    expected = generator.random(5).tolist()
    generator.bit_generator.state = stored
    assert generator.random(5).tolist() == expected


def test_the_states_of_python_and_of_the_old_generator_of_numpy_are_restored() -> None:
    python, numpy = random.Random(3), np.random.RandomState(3)
    stored = restored([python.getstate(), numpy.get_state()])
    expected = python.random(), numpy.rand()
    python.setstate(stored[0])
    numpy.set_state(stored[1])
    assert (python.random(), numpy.rand()) == expected


@pytest.mark.parametrize(
    "marked",
    [
        {"(tuple)": 5},
        {"(array)": [1]},
        {"(number)": torch.ones(1)},
        {"(number)": {"(array)": torch.ones(2)}},
        {"(uint32)": torch.ones(2, dtype=torch.int64)},
        {"(uint16)": [1]},
        {"(number)": None},
        {"(tuple)": [], "other": 1},
        [{"(array)": torch.ones(1), "(tuple)": []}],
    ],
    ids=str,
)
def test_a_state_that_is_never_stored_is_rejected(marked: Any) -> None:
    with pytest.raises(ValueError, match=r"is not what \(|with the keys"):
        restored_state(marked)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"a": [1, ({2},)]}, r"state\.a\[1\]\[0\] is a set; "),
        ({"a": (np.array(["text"]),)}, r"state\.a\[0\] is an array of str"),
        ({"a": Counter("ab")}, r"state\.a is a Counter, which would be restored as another type"),
        ([defaultdict(int)], r"state\[0\] is a defaultdict, which"),
        ((Pair(1, 2),), r"state\[0\] is a Pair, which"),
        ({"a": np.recarray(2, [("x", "f4")])}, r"state\.a is a recarray, which"),
        ({"a": {3: 1}}, r"state\.a has the key 3, which is not a text"),
        ({"a": nested_tensor()}, r"state\.a is a Tensor; "),
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


def test_a_check_copies_nothing_and_rejects_the_same() -> None:
    huge = np.broadcast_to(np.float32(0), (2**40,))
    check_user_state(
        "agent.replay=mine", {"rows": [huge, (torch.zeros(1).expand(2**40), 1)], "one": np.zeros(())}
    )
    for value in (
        np.array(["text"]),
        torch.eye(2).to_sparse(),
        nested_tensor(),
        {1},
        torch.empty(2, device="meta"),
    ):
        with pytest.raises(UserError, match=r"^agent\.replay=mine: .*state\.value is a"):
            check_user_state("agent.replay=mine", {"value": value})
