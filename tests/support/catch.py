"""A game with grey images, as a user may write one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Catch(gymnasium.Env[Any, Any]):
    """A ball falls from the upper half of a 10x10 screen; the player below moves left, stays or moves right.

    All observations are one buffer that each step overwrites, as in many simulators.
    """

    observation_space = spaces.Box(0, 255, (10, 10), np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(self) -> None:
        self.screen = np.zeros((10, 10), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.row, self.ball = self.np_random.integers((5, 10)).tolist()
        self.player = 5
        return self._draw(), {}

    def step(self, action: Any) -> Any:
        self.row += 1
        self.player = min(9, max(0, self.player + int(action) - 1))
        over = self.row == 9
        return self._draw(), float(over and self.player == self.ball), over, False, {}

    def _draw(self) -> Any:
        self.screen.fill(0)
        self.screen[self.row, self.ball] = 255
        self.screen[9, self.player] = 128
        return self.screen
