"""A wrapper that reports lost lives. It imports gymnasium, so import it inside functions."""

from __future__ import annotations

from typing import Any

import gymnasium


class LostLives(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Sets `info["life_lost"]` at each step: whether it cost a life. The episode continues.

    The environment must report the number of lives in `info["lives"]`.
    """

    _lives = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and the count of lives."""
        obs, info = self.env.reset(**kwargs)
        self._lives = info["lives"]
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step and compare the number of lives with that before."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        info["life_lost"] = info["lives"] < self._lives
        self._lives = info["lives"]
        return obs, reward, terminated, truncated, info
