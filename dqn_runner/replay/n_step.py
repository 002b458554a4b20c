"""n-step windows: from steps to transitions."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.state import State
from dqn_runner.core.types import Array


class NStepTransition(NamedTuple):
    """A finished n-step window."""

    obs: Array
    action: int
    reward: float
    discount: float
    next_obs: Array


class NStepAccumulator:
    """Turns steps into n-step transitions (Sutton & Barto, chapter 7), with open windows per environment.

    At the end of an episode, by termination or truncation, the shorter windows that remain are finished
    too, each with the discount of its own length; nothing reaches across an episode's edge.
    """

    def __init__(self, num_envs: int, gamma: float, n_step: int) -> None:
        """No window is open yet."""
        self.gamma = gamma
        self.n_step = n_step
        self._open: list[deque[tuple[Array, int, float]]] = [deque() for _ in range(num_envs)]

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
        """The windows that this step finishes, oldest first."""
        if self.n_step == 1:
            return [NStepTransition(obs, action, reward, 0.0 if terminated else self.gamma, next_obs)]
        window = self._open[env]
        window.append((obs.copy(), action, reward))
        finished: list[NStepTransition] = []
        while len(window) == self.n_step or ((terminated or truncated) and window):
            finished.append(self._finish(window, terminated, next_obs))
        return finished

    def truncate(self, env: int, next_obs: Array) -> list[NStepTransition]:
        """The windows that end because the episode of `env` is cut short at `next_obs`."""
        window = self._open[env]
        return [self._finish(window, False, next_obs) for _ in range(len(window))]

    def _finish(
        self, window: deque[tuple[Array, int, float]], terminated: bool, next_obs: Array
    ) -> NStepTransition:
        total = sum(self.gamma**i * r for i, (_, _, r) in enumerate(window))
        discount = 0.0 if terminated else self.gamma ** len(window)
        obs, action, _ = window.popleft()
        return NStepTransition(obs, action, total, discount, next_obs)

    def state_dict(self) -> State:
        """The open windows, and what they are made by."""
        return {
            "gamma": self.gamma,
            "n_step": self.n_step,
            "open": [[list(step) for step in window] for window in self._open],
        }

    def load_state_dict(self, state: State) -> None:
        """Reopen the windows."""
        for name in ("gamma", "n_step"):
            if state[name] != getattr(self, name):
                raise UserError(
                    f"the checkpoint's transitions were made with agent.{name}={state[name]}, "
                    f"not {getattr(self, name)}"
                )
        if len(state["open"]) != len(self._open):
            raise UserError(
                f"the checkpoint was written with {len(state['open'])} environments, not {len(self._open)}"
            )
        self._open = [
            deque((np.asarray(obs), action, reward) for obs, action, reward in window)
            for window in state["open"]
        ]
