"""n-step returns: combines the steps of an episode into transitions."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.state import State
from dqn_runner.core.types import Array

Window = deque[tuple[Any, ...]]
"""The (obs, action, reward) of up to n successive steps, oldest first; with action masks also that of obs."""


class NStepTransition(NamedTuple):
    """One n-step transition; `core.types.Transition` explains the fields."""

    obs: Array
    action: int
    reward: float
    discount: float
    next_obs: Array
    masks: tuple[Array, ...] = ()
    """The action masks [actions] of `obs` and `next_obs`, if the environment has any."""


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
        *masks: Array,
    ) -> list[NStepTransition]:
        """Add one step of environment `env`; returns the transitions that it completes, oldest first.

        `masks` are the action masks of `obs` and `next_obs`, if the environment has any.
        """
        if self.n_step == 1:
            discount = 0.0 if terminated else self.gamma
            return [NStepTransition(obs, action, reward, discount, next_obs, masks)]
        window = self._windows[env]
        window.append((obs.copy(), action, reward, *map(np.copy, masks[:1])))
        finished: list[NStepTransition] = []
        while len(window) == self.n_step or ((terminated or truncated) and window):
            finished.append(self._pop(window, terminated, next_obs, masks[1:]))
        return finished

    def truncate(self, env: int, next_obs: Array, *next_mask: Array) -> list[NStepTransition]:
        """The transitions that end because the episode of environment `env` is truncated at `next_obs`."""
        window = self._windows[env]
        return [self._pop(window, False, next_obs, next_mask) for _ in range(len(window))]

    def _pop(
        self, window: Window, terminated: bool, next_obs: Array, next_mask: tuple[Array, ...]
    ) -> NStepTransition:
        """Remove the oldest step; returns the transition from it to `next_obs`."""
        total = sum(self.gamma**i * step[2] for i, step in enumerate(window))
        discount = 0.0 if terminated else self.gamma ** len(window)
        obs, action, _, *mask = window.popleft()
        return NStepTransition(obs, action, total, discount, next_obs, (*mask, *next_mask))

    def state_dict(self) -> State:
        """The unfinished windows, and the settings that they depend on."""
        return {
            "gamma": self.gamma,
            "n_step": self.n_step,
            "windows": [[[o, a, float(r), *mask] for o, a, r, *mask in w] for w in self._windows],
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
            deque((np.asarray(o), a, r, *map(np.asarray, mask)) for o, a, r, *mask in window)
            for window in windows
        ]
