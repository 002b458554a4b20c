"""Checks that observations fit the space that their environment declares."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import Array, EnvSpec

LARGE = 1e38
"""A sum of squares below it shows at once that all numbers are finite, and in the range of float32."""

SHORT = 16
"""Up to this length, Python adds a vector faster than numpy multiplies it."""


class ObservationCheck:
    """Returns an observation as an array that the spec's dtype holds without loss.

    Floats are only rounded to float32: they must be finite, but may be outside of the declared bounds, which
    are often wrong. Integers and bools are stored in few bits, so values that do not fit are rejected.
    """

    def __init__(self, env: str, space: Any, spec: EnvSpec) -> None:
        """`env` is the name of the environment in messages."""
        self._env, self._space = env, space
        self._shape = spec.obs_shape
        self._dtype = np.dtype(spec.obs_dtype)
        self._is_float = self._dtype.kind == "f"
        self._is_vector = len(spec.obs_shape) == 1
        self._is_short = self._is_vector and spec.obs_shape[0] <= SHORT
        self._fast = {np.dtype(np.float32), np.dtype(np.float64)} if self._is_float else {self._dtype}

    def check(self, obs: Any, method: str) -> Array:
        """Return what `method` returned, as an array; raises UserError if it does not fit."""
        if type(obs) is np.ndarray and obs.shape == self._shape and obs.dtype in self._fast:
            if not self._is_float:
                return obs
            if self._is_short and obs.dtype.itemsize == 4 and math.isfinite(sum(obs.tolist())):
                return obs  # a sum of float32 in Python's double precision cannot overflow
            flat = obs if self._is_vector else obs.ravel()
            if flat.dot(flat) < LARGE:
                return obs
        return self._convert(obs, method)

    def _convert(self, obs: Any, method: str) -> Array:
        try:
            array = np.asarray(obs)
        except Exception:  # such as a list of arrays of different shapes
            raise self._error(method, f"a {type(obs).__name__}") from None
        if array.dtype.kind not in "fiub":
            kind = (
                f"an array of dtype {obs.dtype}" if isinstance(obs, np.ndarray) else f"a {type(obs).__name__}"
            )
            raise self._error(method, "None" if obs is None else kind)
        if array.shape != self._shape:
            raise self._error(method, f"an observation of shape {array.shape}")
        with np.errstate(all="ignore"):
            converted = array.astype(self._dtype)
        wrong = ~np.isfinite(converted) if self._is_float else converted != array
        if wrong.any():
            where = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), array.shape))
            value = array[where]
            reason = f", which {self._dtype} cannot hold" if np.isfinite(value) else ", not a finite number"
            raise self._error(method, f"{value} ({array.dtype}) as element {where}{reason}")
        return converted

    def _error(self, method: str, found: str) -> UserError:
        return UserError(
            f"{self._env}: {method}() returned {found}, but its observation_space is a Box of shape "
            f"{self._shape} and dtype {self._space.dtype}; let the space and the observations agree"
        )
