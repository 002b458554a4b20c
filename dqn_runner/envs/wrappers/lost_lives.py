"""Wrappers that make what an environment shows fit for a network. Imports gymnasium: import this late."""

from __future__ import annotations

from typing import Any

import gymnasium


class LostLives(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Says in `info["life_lost"]` that a step cost a life; the game goes on."""

    _lives = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """A new game with all its lives."""
        obs, info = self.env.reset(**kwargs)
        self._lives = info["lives"]
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """A step, with its loss."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        info["life_lost"] = info["lives"] < self._lives
        self._lives = info["lives"]
        return obs, reward, terminated, truncated, info
