"""Environments with several observation entries."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Keys(gymnasium.Env[Any, Any]):
    """One entry shows which of two actions gives a reward; the others are noise.

    `informative` is `image`, `vector` or `category`. Episodes have `length` steps.
    """

    action_space = spaces.Discrete(2)

    def __init__(self, informative: str = "image", length: int = 1) -> None:
        self.informative, self.length = informative, length
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (4, 5, 2), np.uint8),
                "vector": spaces.Box(-np.inf, np.inf, (3,), np.float64),
                "category": spaces.Discrete(4, start=1),
            }
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        reward = 1.0 if int(action) == self.goal else -1.0
        self.t += 1
        return self.observe(), reward, self.t == self.length, False, {}

    def observe(self) -> Any:
        draw = self.np_random.integers
        self.goal = int(draw(2))
        shown = dict.fromkeys(("image", "vector", "category"), int(draw(2))) | {self.informative: self.goal}
        image = draw(64, size=(4, 5, 2))
        image[..., 1] += 190 * shown["image"]
        vector = self.np_random.normal(size=3)
        vector[1] = 2 * shown["vector"] - 1
        category = int(draw(1, 3)) + 2 * shown["category"]
        return {"category": category, "vector": vector, "image": image.astype(np.uint8)}


class Stacked(Keys):
    """Entries that can be stacked: a grey image, and a vector and bits in nested containers."""

    def __init__(self, length: int = 5) -> None:
        super().__init__(length=length)
        self.observation_space = spaces.Dict(
            {
                "screen": spaces.Box(0, 255, (6, 6), np.uint8),
                "body": spaces.Dict({"speed": spaces.Box(-9, 9, (2,)), "on": spaces.MultiBinary(3)}),
                "pair": spaces.Tuple([spaces.MultiDiscrete([3, 2]), spaces.Box(-1, 1, (1,))]),
            }
        )

    def observe(self) -> Any:
        draw = self.np_random.integers
        self.goal = int(draw(2))
        return {
            "screen": (draw(200, size=(6, 6)) + 50 * self.goal).astype(np.uint8),
            "body": {"speed": self.np_random.normal(size=2), "on": draw(2, size=3).astype(np.int8)},
            "pair": (np.array([draw(3), draw(2)]), self.np_random.uniform(-1, 1, 1)),
        }


class Answers(gymnasium.Env[Any, Any]):
    """Returns what it is told, whatever its space is."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: Any, *answers: Any) -> None:
        self.observation_space = space
        self.answers = list(answers)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.answers[0], {}

    def step(self, action: Any) -> Any:
        return self.answers[-1], 0.0, False, False, {}
