"""States of the user's own objects come back as they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner.checkpointing.user_state import array_paths, pack_user_state, with_arrays
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
}


def kinds(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: kinds(item) for key, item in state.items()}
    return [kinds(item) for item in state] if isinstance(state, list) else type(state)


def test_arrays_and_tensors_are_restored_as_such_wherever_they_are() -> None:
    """Also in a list, and whatever the object that loads them has at that time."""
    packed = pack_user_state("callbacks.mine", STATE)
    assert kinds(packed["slow"]) == [torch.Tensor, torch.Tensor]
    restored = with_arrays(packed, [*array_paths(STATE)])
    assert kinds(restored) == kinds(STATE)
    assert restored["nested"]["array"].tolist() == [0, 1, 2, 3]


def test_all_tensors_become_arrays_for_callbacks() -> None:
    restored = with_arrays(pack_user_state("callbacks.mine", STATE))
    assert kinds(restored["slow"]) == [np.ndarray, np.ndarray]
    assert kinds(restored["nested"]["tensor"]) is np.ndarray
    assert kinds(with_arrays({"half": torch.ones(1, dtype=torch.bfloat16)})) == {"half": torch.Tensor}


@pytest.mark.parametrize(
    "number",
    [np.float32(1.5), np.bool_(True), np.int8(3), np.complex64(1j), np.float64(-0.0)],
    ids=repr,
)
def test_numbers_of_numpy_keep_their_types(number: Any) -> None:
    state = {"here": number, "list": (number, 1)}
    packed = pack_user_state("callbacks.mine", state)
    for restored in (with_arrays(packed, [*array_paths(state)]), with_arrays(packed)):
        assert type(restored["here"]) is type(restored["list"][0]) is type(number)
        assert restored["here"] == number
        assert restored["list"][1] == 1


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
