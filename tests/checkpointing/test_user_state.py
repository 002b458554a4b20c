"""States of the user's own objects come back as they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dqn_runner.checkpointing.user_state import array_paths, pack_user_state, with_arrays

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
