"""What callbacks and parts of the user's own keep: packed for a checkpoint, and restored as it was."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, cast

import numpy as np

from dqn_runner.checkpointing.format import pack
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import State


def pack_user_state(owner: str, state: Any) -> Any:
    """What the `state_dict()` of `owner` returned, for a checkpoint.

    Raises UserError, which names the owner, if a checkpoint cannot store it.
    """
    try:
        return pack(state, _no_replay)
    except TypeError as error:
        raise UserError(
            f"{owner}: its state_dict() must consist of numbers, texts, lists, dictionaries with texts as "
            f"keys, and arrays: {error}"
        ) from error


def array_paths(state: Any, where: str = "") -> Iterator[str]:
    """Where a state has arrays of numpy, which a checkpoint stores as tensors."""
    if isinstance(state, np.ndarray):
        yield where
    for key, item in _items(state):
        yield from array_paths(item, f"{where}.{key}")


def with_arrays(stored: Any, paths: Collection[str] | None = None, where: str = "") -> Any:
    """A stored state with arrays of numpy in the place of the tensors at `paths`; None: of all tensors.

    Numpy has no bfloat16: such a tensor stays one.
    """
    if isinstance(stored, torch.Tensor):
        is_array = stored.dtype != torch.bfloat16 if paths is None else where in paths
        return stored.numpy().copy() if is_array else stored
    items = {key: with_arrays(item, paths, f"{where}.{key}") for key, item in _items(stored)}
    return items if isinstance(stored, dict) else [*items.values()] if isinstance(stored, list) else stored


def _items(state: Any) -> list[tuple[Any, Any]]:
    """The parts of a state, with their keys or positions."""
    if isinstance(state, dict):
        return [*cast("State", state).items()]
    return [*enumerate(cast("list[Any]", state))] if isinstance(state, list | tuple) else []


def _no_replay(_: Any, where: str) -> State:
    raise TypeError(f"state{where} is a replay")
