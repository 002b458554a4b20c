"""n-step returns: combines the steps of an episode into transitions."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.state import State
from dqn_runner.core.types import Array

Window = deque[tuple[Array, int, float]]
"""The (obs, action, reward) of up to n successive steps, oldest first."""


class NStepTransition(NamedTuple):
    """One n-step transition; `core.types.Transition` explains the fields."""

    obs: Array
    action: int
    reward: float
    discount: float
    next_obs: Array


class NStepAccumulator:
    """Combines steps into n-step transitions (Sutton & Barto, chapter 7), separately for each environment.

    When an episode ends, by termination or truncation, the remaining windows of fewer than n steps become
    transitions too, each with the discount for its length. No window spans two episodes.
    """

    def __init__(self, num_envs: int, gamma: float, n_step: int) -> None:
        """Start without steps; `gamma` is the discount per step."""
        self.gamma = gamma
        self.n_step = n_step
        self._windows: list[Window] = [deque() for _ in range(num_envs)]

    def add(
        self,
        env: int,
        obs: Array,
        action: int,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_obs: Array,
    ) -> list[NStepTransition]:
        """Add one step of environment `env`; returns the transitions that it completes, oldest first."""
        if self.n_step == 1:
            return [NStepTransition(obs, action, reward, 0.0 if terminated else self.gamma, next_obs)]
        window = self._windows[env]
        window.append((obs.copy(), action, reward))
        finished: list[NStepTransition] = []
        while len(window) == self.n_step or ((terminated or truncated) and window):
            finished.append(self._pop(window, terminated, next_obs))
        return finished

    def truncate(self, env: int, next_obs: Array) -> list[NStepTransition]:
        """The transitions that end because the episode of environment `env` is truncated at `next_obs`."""
        window = self._windows[env]
        return [self._pop(window, False, next_obs) for _ in range(len(window))]

    def _pop(self, window: Window, terminated: bool, next_obs: Array) -> NStepTransition:
        """Remove the oldest step; returns the transition from it to `next_obs`."""
        total = sum(self.gamma**i * r for i, (_, _, r) in enumerate(window))
        discount = 0.0 if terminated else self.gamma ** len(window)
        obs, action, _ = window.popleft()
        return NStepTransition(obs, action, total, discount, next_obs)

    def state_dict(self) -> State:
        """The unfinished windows, and the settings that they depend on."""
        return {
            "gamma": self.gamma,
            "n_step": self.n_step,
            "windows": [[[obs, action, float(r)] for obs, action, r in w] for w in self._windows],
            "lengths": [len(window) for window in self._windows],
        }

    def load_state_dict(self, state: State) -> None:
        """Restore the windows; raises a UserError if gamma, n_step or the number of environments differ."""
        for name in ("gamma", "n_step"):
            if state[name] != getattr(self, name):
                raise UserError(
                    f"the checkpoint's transitions were made with agent.{name}={state[name]}, "
                    f"not {getattr(self, name)}"
                )
        windows = state["windows"]
        if len(windows) != len(self._windows):
            raise UserError(
                f"the checkpoint was written with {len(windows)} environments, not {len(self._windows)}"
            )
        self._windows = [
            deque((np.asarray(obs), action, reward) for obs, action, reward in window) for window in windows
        ]
