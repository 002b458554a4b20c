"""What callbacks and parts of the user's own keep: packed for a checkpoint, and restored as it was."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, cast

import numpy as np

from dqn_runner.checkpointing.format import DTYPES, PackSnapshot, pack
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import State
from dqn_runner.core.types import Array

_DEPTH = 20
"""At least the number of containers around such a state in the document of a checkpoint."""
_ARRAY, _NUMBER, _TUPLE = "(array)", "(number)", "(tuple)"
"""The key of a dictionary that stands for an array or a number of numpy, or for a tuple."""
_UNSIGNED = {"(uint16)": "uint16", "(uint32)": "uint32", "(uint64)": "uint64"}
"""The same for arrays of dtypes that a checkpoint cannot hold: their bits are stored as signed numbers."""
_MARKS = frozenset((_ARRAY, _NUMBER, _TUPLE, *_UNSIGNED))
_NUMBERS = frozenset((*DTYPES, *_UNSIGNED.values()))


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
    return _packed(owner, marked_state(owner, state), _no_replay)


def check_user_state(owner: str, state: Any) -> None:
    """Raise UserError, which names the owner, if a checkpoint cannot store a state; copies no array of it.

    The state of a replay may have rows.
    """
    _packed(owner, _without_content(marked_state(owner, state)), _no_rows)


def marked_state(owner: str, state: Any) -> Any:
    """A state with dictionaries in the place of what a checkpoint would restore as another type.

    Tensors, and arrays of any dtype, are left to `pack`. Raises UserError, which names the owner, for
    containers that could not be restored.
    """
    try:
        return _marked(state, "")
    except (TypeError, RecursionError) as error:
        raise _not_storable(owner, error) from error


def restored_state(marked: Any) -> Any:
    """The state that `marked_state` was given; raises ValueError for what it never returns.

    `marked` has tensors in the place of arrays. Numpy has no bfloat16: such an array is returned as a tensor.
    """
    if isinstance(marked, list):
        return [restored_state(item) for item in cast("list[Any]", marked)]
    if not isinstance(marked, dict):
        return marked
    items = cast("State", marked)
    if not _MARKS & items.keys():
        return {key: restored_state(item) for key, item in items.items()}
    if len(items) != 1:
        raise ValueError(f"a dictionary with the keys {', '.join(items)!r:.60}")
    [(mark, content)] = items.items()
    if mark == _TUPLE and isinstance(content, list):
        return tuple(restored_state(item) for item in cast("list[Any]", content))
    if mark == _NUMBER:
        array: Any = restored_state(content)
        if isinstance(array, np.ndarray) and not array.ndim:
            return cast("Any", array)[()]
    if mark in _UNSIGNED and isinstance(content, torch.Tensor):
        bits: Array = content.numpy()
        if f"u{bits.dtype}" == _UNSIGNED[mark]:
            return bits.view(_UNSIGNED[mark]).copy()
    if mark == _ARRAY and isinstance(content, torch.Tensor):
        return content if content.dtype == torch.bfloat16 else content.numpy().copy()
    raise ValueError(f"{content!r:.50} is not what {mark} stands for")


def _marked(state: Any, where: str) -> Any:
    kind = cast("type[Any]", type(state))
    if kind in (np.ndarray, np.memmap):
        return _marked_array(state)
    if issubclass(kind, np.generic) and state.dtype.name in _NUMBERS:
        return {_NUMBER: _marked_array(np.asarray(state))}
    if kind in (dict, OrderedDict):
        return {key: _marked(item, f"{where}.{key}") for key, item in _unmarked(state, where).items()}
    if kind in (list, tuple, torch.Size):
        items = [_marked(item, f"{where}[{i}]") for i, item in enumerate(state)]
        return items if kind is list else {_TUPLE: items}
    if issubclass(kind, dict | list | tuple | np.ndarray):
        raise TypeError(f"state{where} is a {kind.__name__}, which would be restored as another type")
    return state


def _marked_array(array: Any) -> State:
    mark = f"({array.dtype.name})"
    if mark not in _UNSIGNED:
        return {_ARRAY: array}
    return {mark: array.view(array.dtype.str.replace("u", "i"))}


def _packed(owner: str, marked: Any, pack_snapshot: PackSnapshot) -> Any:
    try:
        return pack(marked, pack_snapshot, depth=_DEPTH)
    except TypeError as error:
        raise _not_storable(owner, error) from error


def _without_content(marked: Any) -> Any:
    """A marked state with empty arrays and tensors in the place of its own."""
    if isinstance(marked, dict):
        return {key: _without_content(item) for key, item in cast("State", marked).items()}
    if isinstance(marked, list):
        return [_without_content(item) for item in cast("list[Any]", marked)]
    kind = cast("type[Any]", type(marked))
    if issubclass(kind, torch.Tensor) and (marked.layout is not torch.strided or marked.is_nested):
        return marked
    return marked[:0] if issubclass(kind, np.ndarray | torch.Tensor) and marked.ndim else marked


def _unmarked(state: State, where: str) -> State:
    """A dictionary; raises TypeError if it has a key that stands for something else."""
    if reserved := _MARKS & state.keys():
        raise TypeError(f"state{where} has the reserved key {min(reserved)!r}")
    return state


def _not_storable(owner: str, error: Exception) -> UserError:
    reason = "it contains itself, or is nested too deep" if isinstance(error, RecursionError) else str(error)
    for mark in _MARKS:
        reason = reason.replace(f".{mark}", "")
    return UserError(
        f"{owner}: its state_dict() must consist of numbers, texts, lists, tuples, dictionaries with texts "
        f"as keys, arrays and tensors: {reason}"
    )


def _no_replay(_: Any, where: str) -> State:
    raise TypeError(f"state{where} is a replay")


def _no_rows(_rows: Any, _where: str) -> State:
    """In the place of the rows of a replay, which are stored in files of their own."""
    return {}
