"""Environments that draw from global random generators, or have a state that no seed determines."""

from __future__ import annotations

import random
from random import gauss
from typing import Any

import gymnasium
import numpy as np

LENGTH = 12


class Drawing(gymnasium.Env[Any, Any]):
    """Draws from `source` at every step, or in the second half of every third episode if `rare`.

    The draws change observations, only the rewards, or only the end of the episode, as `what` says.
    """

    observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, source: str = "random", what: str = "obs", rare: bool = False) -> None:
        self.source, self.what, self.rare = source, what, rare
        self.size = self._draw() if source in ("random", "numpy", "torch") and not rare else 0.0
        self.episodes = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episodes += 1
        self.t = 0
        self.draws_now = not self.rare or self.np_random.random() < 0.3
        return self._observation(self._noise()), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        noise = self._noise()
        reward = noise if self.what == "reward" else 1.0
        over = self.t >= LENGTH or (self.what == "end" and self.t > 3 and noise > 1)
        return self._observation(noise), reward, over, False, {}

    def _observation(self, noise: float) -> Any:
        return np.array([self.t, noise + self.size if self.what == "obs" else 0.0], np.float32)

    def _noise(self) -> float:
        if self.rare and (not self.draws_now or self.t < LENGTH // 2):
            return 0.0
        return self._draw()

    def _draw(self) -> float:
        if self.source == "random":
            return gauss(0.0, 1.0) + random.random() * 0.1
        if self.source == "numpy":
            return float(np.random.randn())  # noqa: NPY002
        if self.source == "torch":
            import torch  # late: it takes most of the time in which a process for an environment starts

            return float(torch.rand(()))
        if self.source == "episodes":
            return 0.1 * self.episodes
        return float(np.random.default_rng().normal())  # no seed determines it
