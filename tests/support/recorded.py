"""An environment that is recorded, and one that plays a record."""

from __future__ import annotations

from typing import Any

import gymnasium

from dqn_runner.core.types import Array


class Record(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Remembers what an environment returned, and the actions."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.resets: list[Array] = []
        self.returned: list[tuple[Array, float, bool, bool]] = []
        self.actions: list[int] = []

    def reset(self, **options: Any) -> tuple[Array, dict[str, Any]]:
        obs, info = self.env.reset(**options)
        self.resets.append(obs)
        return obs, info

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.actions.append(int(action))
        self.returned.append((obs, float(reward), terminated, truncated))
        return obs, reward, terminated, truncated, info


class Playback(gymnasium.Env[Any, Any]):
    """Returns what a record holds, whatever the actions are; the record may grow."""

    def __init__(self, record: Record) -> None:
        self.observation_space, self.action_space = record.observation_space, record.action_space
        self._resets, self._returned = iter(record.resets), iter(record.returned)

    def reset(self, **_: Any) -> tuple[Array, dict[str, Any]]:
        return next(self._resets), {}

    def step(self, action: Any) -> Any:
        return *next(self._returned), {}
