"""What callbacks and parts of the user's own keep: packed for a checkpoint, and restored as it was."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, cast

import numpy as np

from dqn_runner.checkpointing.format import DTYPES, pack
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import State

_DEPTH = 20
"""At least the number of containers around such a state in the document of a checkpoint."""
_SCALAR = "()"
"""Ends the path of a number of numpy."""


def check_state_methods(owner: str, part: object) -> None:
    """Raise UserError for a part or a callback with only one of the methods of a state."""
    found = [name for name in ("state_dict", "load_state_dict") if hasattr(part, name)]
    if len(found) == 1:
        missing = "load_state_dict(state)" if found == ["state_dict"] else "state_dict()"
        raise UserError(
            f"{owner} has {found[0]}, but no method {missing}: a resumed run needs both to restore its state"
        )


def pack_user_state(owner: str, state: Any) -> Any:
    """What the `state_dict()` of `owner` returned, for a checkpoint.

    Raises UserError, which names the owner, if a checkpoint cannot store it.
    """
    try:
        return pack(scalars_as_arrays(state), _no_replay, depth=_DEPTH)
    except (TypeError, RecursionError) as error:
        raise UserError(
            f"{owner}: its state_dict() must consist of numbers, texts, lists, dictionaries with texts as "
            f"keys, and arrays: {error}"
        ) from error


def scalars_as_arrays(state: Any) -> Any:
    """A state with arrays without axes in the place of numbers of numpy, so that their types are stored."""
    if _is_number(state):
        return np.asarray(state)
    if isinstance(state, dict):
        return {key: scalars_as_arrays(item) for key, item in cast("State", state).items()}
    return (
        [scalars_as_arrays(item) for _, item in _items(state)] if isinstance(state, list | tuple) else state
    )


def array_paths(state: Any, where: str = "") -> Iterator[str]:
    """Where a state has arrays and numbers of numpy, which a checkpoint stores as tensors."""
    if isinstance(state, np.ndarray):
        yield where
    if _is_number(state):
        yield f"{where}{_SCALAR}"
    for key, item in _items(state):
        yield from array_paths(item, f"{where}.{key}")


def with_arrays(stored: Any, paths: Collection[str] | None = None, where: str = "") -> Any:
    """A stored state with arrays and numbers of numpy in the place of the tensors at `paths`.

    Without `paths`, in the place of all tensors: those without axes become numbers. Numpy has no bfloat16:
    such a tensor stays one.
    """
    if isinstance(stored, torch.Tensor):
        is_scalar = stored.dim() == 0 if paths is None else f"{where}{_SCALAR}" in paths
        is_array = stored.dtype != torch.bfloat16 if paths is None else is_scalar or where in paths
        array = stored.numpy().copy() if is_array else stored
        return array[()] if is_array and is_scalar else array
    items = {key: with_arrays(item, paths, f"{where}.{key}") for key, item in _items(stored)}
    return items if isinstance(stored, dict) else [*items.values()] if isinstance(stored, list) else stored


def _is_number(value: Any) -> bool:
    """Whether a value is a number of numpy of a type that can be stored; others become numbers of Python."""
    return isinstance(value, np.generic) and cast("Any", value).dtype.name in DTYPES


def _items(state: Any) -> list[tuple[Any, Any]]:
    """The parts of a state, with their keys or positions."""
    if isinstance(state, dict):
        return [*cast("State", state).items()]
    return [*enumerate(cast("list[Any]", state))] if isinstance(state, list | tuple) else []


def _no_replay(_: Any, where: str) -> State:
    raise TypeError(f"state{where} is a replay")
