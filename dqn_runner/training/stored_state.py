"""Checks a stored state of a run before it is loaded: it must have the structure of the run that loads it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import RowSnapshot, State
from dqn_runner.core.types import EnvSpec
from dqn_runner.training.state_values import inconsistencies

_OPTIONAL = ("actions", "finished", "normalizer", "generators")
"""Keys whose value may be missing (None) at some times of a run and not at others."""
_FREE = ("loggers", "moments", "limits", "user", "callbacks", "attributes", "buffers", "parts", "own")
"""Keys of dictionaries whose keys may differ from those of this run; their owner checks them."""
_ADDED = {"parts"}
"""Keys that may be in one of two states only: a resumed run can have other parts."""


def check_state(stored: Any, ours: State, spec: EnvSpec, own_optimizer: bool = False) -> None:
    """Raise ValueError, naming the place, if `stored` cannot be a later or earlier state of the run `ours`.

    Compares keys, types, and the dtypes and dimensions of arrays; then whether lengths agree with each other
    and numbers are in their ranges. A number that counts something is not negative. Where settings of the two
    runs differ, the parts that load the state say so.
    """
    template = ours
    if isinstance(stored, dict) and (finished := cast("State", stored).get("finished")) is not None:
        template = {**ours, "finished": finished and _finished_like(ours)}
    check_structure(stored, template, "state")
    for problem in inconsistencies(cast("State", stored), ours, spec, own_optimizer):
        raise ValueError(problem)


def check_structure(stored: Any, ours: Any, where: str) -> None:
    """Raise ValueError for the first place at which `stored` has not the structure of `ours`."""
    for problem in _differences(stored, ours, where):
        raise ValueError(problem)


def _finished_like(ours: State) -> State:
    return {"reason": "", "pruned": False, "limits": {}, "before": ours["progress"]}


def _differences(stored: Any, ours: Any, where: str) -> Iterator[str]:
    key = where.rpartition(".")[2]
    if ours is None or (stored is None and key in _OPTIONAL):
        return
    if isinstance(ours, RowSnapshot):
        if not isinstance(stored, RowSnapshot):
            yield f"{where} is not a table of rows"
    elif isinstance(ours, dict):
        yield from _in_dict(stored, cast("State", ours), where)
    elif isinstance(ours, (list, tuple)):
        yield from _in_list(stored, list(cast("list[Any]", ours)), where)
    elif isinstance(ours, (np.ndarray, torch.Tensor)):
        yield from _in_array(stored, np.asarray(cast("Any", ours)), where)
    else:
        yield from _in_number(stored, ours, where)


def _in_dict(stored: Any, ours: State, where: str) -> Iterator[str]:
    if not isinstance(stored, dict):
        yield f"{where} is not a dictionary"
        return
    found = cast("State", stored)
    if where.rpartition(".")[2] in _FREE:
        return
    if missing := ours.keys() - found.keys() - _ADDED:
        yield f"{sorted(missing)[0]!r} is missing in {where}"
    if unknown := found.keys() - ours.keys() - _ADDED:
        yield f"{where} has an unknown key {sorted(unknown)[0]!r}"
    for key in [key for key in ours if key in found]:
        yield from _differences(found[key], ours[key], f"{where}.{key}")


def _in_list(stored: Any, ours: list[Any], where: str) -> Iterator[str]:
    """Elements must be like the first of ours: the lists of a state hold values of one kind."""
    if not isinstance(stored, list):
        yield f"{where} is not a list"
        return
    for index, item in enumerate(cast("list[Any]", stored) if ours else []):
        yield from _differences(item, ours[0], f"{where}[{index}]")


def _in_array(stored: Any, ours: Any, where: str) -> Iterator[str]:
    if not isinstance(stored, torch.Tensor):
        yield f"{where} is not an array"
        return
    array = np.asarray(stored)
    if array.ndim != ours.ndim:
        yield f"{where} has {array.ndim} dimensions, not {ours.ndim}"
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        yield f"{where} has a negative number"
    if array.dtype != ours.dtype:
        yield f"{where} is {array.dtype}, not {ours.dtype}"


def _in_number(stored: Any, ours: Any, where: str) -> Iterator[str]:
    accepted: tuple[type, ...] = (int, float) if type(ours) is float else (type(cast("object", ours)),)
    if type(stored) not in accepted:
        yield f"{where} is {stored!r:.50}, not of type {type(ours).__name__}"
    elif type(stored) is int and not 0 <= stored <= (2**128 if ".rng." in where else 2**62):
        yield f"{where} is {stored:.6g}, which is out of range"
    elif type(stored) is float and math.isnan(stored) and "[" not in where:
        yield f"{where} is not a number"
