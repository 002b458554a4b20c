"""Normalises observations by the running mean and variance of the training observations."""

from __future__ import annotations

import numpy as np

from dqn_runner.core.state import State
from dqn_runner.core.types import Array, FloatArray

LIMIT = 10.0
"""Normalised observations are clipped to [-LIMIT, LIMIT]."""


class ObservationNormalizer:
    """Running mean and variance of observations (Welford 1962, in the form of Chan et al. 1979 for batches).

    The replay stores raw observations; they are normalised whenever they are used.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Start without observations, whose shape is `shape`."""
        self._count = 0
        self._mean = np.zeros(shape)
        self._squares = np.zeros(shape)
        """Sum of squared differences from the mean."""

    def update(self, obs: Array) -> None:
        """Include observations [n, *obs_shape] in the mean and variance."""
        n = len(obs)
        mean = obs.mean(0, dtype=np.float64)
        total = self._count + n
        difference = mean - self._mean
        self._squares += ((obs - mean) ** 2).sum(0) + difference**2 * (self._count * n / total)
        self._mean += difference * (n / total)
        self._count = total

    def __call__(self, obs: Array) -> FloatArray:
        """Observations [n, *obs_shape], normalised."""
        return ((obs - self._mean) / self.deviation).clip(-LIMIT, LIMIT).astype(np.float32)

    @property
    def mean(self) -> Array:
        """[*obs_shape] float64."""
        return self._mean

    @property
    def deviation(self) -> Array:
        """[*obs_shape] float64, never 0."""
        return np.sqrt(self._squares / max(1, self._count) + 1e-8)

    def state_dict(self) -> State:
        """Count, mean and sum of squared differences of the observations so far."""
        return {"count": self._count, "mean": self._mean, "squares": self._squares}

    def load_state_dict(self, state: State) -> None:
        """Restore the mean and variance."""
        self._count = state["count"]
        self._mean[...] = np.asarray(state["mean"])
        self._squares[...] = np.asarray(state["squares"])
