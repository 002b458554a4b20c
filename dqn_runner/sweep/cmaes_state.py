"""The state of CMA-ES in a study, read as data: Optuna stores it as a pickle, which could execute code."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from importlib import import_module
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
from optuna.samplers import CmaEsSampler
from optuna.trial import FrozenTrial

from dqn_runner.core.exceptions import UserError

OPTIMIZERS = (("cmaes._cma", "CMA"), ("cmaes._sepcma", "SepCMA"), ("cmaes._cmawm", "CMAwM"))
"""The classes that Optuna stores, with their modules."""

PLAIN: tuple[type[Any], ...] = (type(None), int, float, np.generic, np.ndarray)
"""What their attributes are."""

Array = np.ndarray[Any, Any]


def read_as_data() -> None:
    """Let every CmaEsSampler of this process read stored states as data, also one within another sampler."""
    CmaEsSampler._restore_optimizer = _restore  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]


def _restore(sampler: CmaEsSampler, completed: Sequence[FrozenTrial]) -> Any:
    """The latest optimizer in these trials, or None; raises UserError if Optuna did not write it."""
    prefix = sampler._attr_key_optimizer  # pyright: ignore[reportPrivateUsage]
    for trial in reversed(completed):
        stored = {key: text for key, text in trial.system_attrs.items() if key.startswith(prefix)}
        if not stored:
            continue
        try:
            text = "".join(stored[f"{prefix}:{number}"] for number in range(len(stored)))
            return _optimizer(_Unpickler(BytesIO(bytes.fromhex(text))).load())
        except Exception as error:  # a pickle of unknown origin can raise anything
            why = str(error) if isinstance(error, _NotOfOptunaError) else f"it cannot be read ({error!r})"
            raise UserError(
                f"the study has a state of CMA-ES in trial {trial.number} that Optuna did not write: {why}; "
                "nothing of it was run; choose another hydra.sweep.dir"
            ) from error
    return None


class _NotOfOptunaError(Exception):
    """A pickle has something that does not belong to an optimizer."""


class _Dtype:
    """Stands for numpy's dtype: numbers only, because one with fields can make numpy read any memory."""

    def __init__(self, code: str, *_: object) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in "biuf":
            raise _NotOfOptunaError(f"it has an array of {code}")

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.dtype = np.dtype(f"{state[1]}{self.dtype.str[1:]}")  # the byte order


class _Array:
    """Stands for an array until all of the pickle is read."""

    array: Array

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, dtype, by_columns, content = state
        self.array = _array(content, dtype, shape, "F" if by_columns else "C")


class _Optimizer:
    """Stands for an optimizer; its attributes are the state of the optimizer."""

    named: ClassVar[tuple[str, str]]


def _array(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> Array:
    return np.ndarray(shape, dtype.dtype, content, order=order).copy(order)


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    return _array(content, dtype, (1,), "C")[0]


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _Array() for core in ("_core", "core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("_core", "core")},
    ("numpy._core.numeric", "_frombuffer"): _array,  # Python 3.14 and newer
    **{named: type(named[1], (_Optimizer,), {"named": named}) for named in OPTIMIZERS},
}


class _Unpickler(pickle.Unpickler):
    """Makes nothing but what stands for numbers, arrays and optimizers."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """What stands for a class or a function that the pickle names."""
        try:
            return _STAND_INS[module_name, global_name]
        except KeyError:
            raise _NotOfOptunaError(f"it asks for {module_name}.{global_name}") from None


def _optimizer(read: Any) -> Any:
    """The optimizer that was read."""
    if not isinstance(read, _Optimizer):
        raise _NotOfOptunaError(f"it is a {type(read).__name__}")
    module, name = read.named
    kind = getattr(import_module(module), name)
    optimizer = kind.__new__(kind)
    state = {key: _value(value) for key, value in vars(read).items()}
    if hasattr(optimizer, "__setstate__"):
        optimizer.__setstate__(state)
    else:
        vars(optimizer).update(state)
    return optimizer


def _value(value: object) -> Any:
    """An attribute of an optimizer: a number, an array, or another optimizer."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, _Optimizer):
        return _optimizer(value)
    if isinstance(value, PLAIN):
        return value
    raise _NotOfOptunaError(f"it has a {type(value).__name__}")
