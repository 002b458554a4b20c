"""Normalises observations by the running mean and variance of the training observations."""

from __future__ import annotations

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.observation_layout import ObservationLayout
from dqn_runner.core.state import State
from dqn_runner.core.types import Array, EnvSpec, FloatArray

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


class VectorNormalizer:
    """Normalises the vectors of floats in packed observations, and nothing else in them."""

    def __init__(self, layout: ObservationLayout) -> None:
        """Start without observations; raises UserError if `layout` has no vectors."""
        if not layout.vector_bytes:
            raise UserError(
                "normalize_observations normalises vectors of floats, but the observations have none: "
                f"{layout.describe()}; set it to false"
            )
        self._bytes = layout.vector_bytes
        self._normalizer = ObservationNormalizer((*layout.lead, self._bytes // 4))

    def update(self, obs: Array) -> None:
        """Include observations [n, *obs_shape] in the mean and variance."""
        self._normalizer.update(obs[..., : self._bytes].view(np.float32))

    def __call__(self, obs: Array) -> Array:
        """Observations [n, *obs_shape] with normalised vectors."""
        normalized = obs.copy()
        vectors = normalized[..., : self._bytes].view(np.float32)
        vectors[...] = self._normalizer(vectors)
        return normalized

    @property
    def mean(self) -> Array:
        """[*frames, elements] float64, of all vectors in the order of the layout."""
        return self._normalizer.mean

    @property
    def deviation(self) -> Array:
        """[*frames, elements] float64, never 0."""
        return self._normalizer.deviation

    def state_dict(self) -> State:
        """Those of the vectors."""
        return self._normalizer.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Restore the mean and variance."""
        self._normalizer.load_state_dict(state)


def make_normalizer(spec: EnvSpec) -> ObservationNormalizer | VectorNormalizer:
    """A normalizer for observations of `spec`; raises UserError if there is nothing to normalise."""
    return ObservationNormalizer(spec.obs_shape) if spec.layout is None else VectorNormalizer(spec.layout)
