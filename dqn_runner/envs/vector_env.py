"""Batches of environments: explicit seeds, and episodes that can be brought back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.log import log
from dqn_runner.core.state import State
from dqn_runner.core.types import Array, StepResult
from dqn_runner.envs.worker import EnvStep, EnvWorker


class TruncatedEpisode(NamedTuple):
    """An open episode that could not be brought back, and was cut short where the checkpoint left it."""

    env: int
    obs: Array
    reason: str


class VectorEnv:
    """`n` environments stepped together, with explicit seeds.

    An environment that ends is reset within the same step, and both observations are handed out, so no
    ghost transition exists. The state of an environment is the seed of its episode and the actions since.
    """

    def __init__(
        self,
        envs: list[EnvWorker],
        seed_of: Callable[[int, int], int],
        max_episode_steps: int | None,
        remake: Callable[[], EnvWorker] | None = None,
        allow_inexact_resume: bool = False,
    ) -> None:
        """`seed_of(env, episode)` gives reset seeds; episodes are truncated after `max_episode_steps`.

        With `remake`, an environment that raises is made again once and brought back. With `allow_inexact_resume`, an
        episode that a checkpoint cannot bring back is cut short, and stands in `truncated_episodes`.
        """
        if not envs:
            raise UserError("env.num_envs must be at least 1")
        self.envs = envs
        self.spec, self._name = envs[0].spec, envs[0].name
        self.truncated_episodes: list[TruncatedEpisode] = []
        self._seed_of = seed_of
        self._limit = max_episode_steps or 2**63
        self._remake = remake
        self._inexact = allow_inexact_resume
        shape = (len(envs), *self.spec.obs_shape)
        self.obs = np.zeros(shape, self.spec.obs_dtype)
        self._spare = np.zeros(shape, self.spec.obs_dtype)
        self._next_obs = np.zeros(shape, self.spec.obs_dtype)
        self._episodes = [0] * len(envs)
        self._actions: list[list[int]] = [[] for _ in envs]
        self._next_seeds = [0] * len(envs)
        for index, wait in enumerate([self._play(index) for index in range(len(envs))]):
            self.obs[index] = wait()

    def step(self, actions: list[int]) -> StepResult:
        """One step of every environment. The arrays of the result are overwritten by the next but one.

        If an environment raises, the batch stands where it stood: nobody has seen any of the step, and
        a checkpoint of it plays all environments again up to there.
        """
        obs = self._spare
        rewards: list[float] = []
        terminations: list[bool] = []
        truncations: list[bool] = []
        lives: list[bool] = []
        waiting = [self._begin_step(index, action) for index, action in enumerate(actions)]
        for index, wait in enumerate(waiting):
            try:
                stepped = wait()
            except UserError:
                raise
            except Exception as error:
                self._bring_back(index, error)
                stepped = self._begin_step(index, actions[index])()
            next_obs, first_obs, reward, terminated, truncated, life_lost = stepped
            self._next_obs[index] = next_obs
            obs[index] = next_obs if first_obs is None else first_obs
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
            lives.append(life_lost)
        for index, action in enumerate(actions):
            if terminations[index] or truncations[index]:
                self._begin_episode(index, self._episodes[index] + 1)
            else:
                self._actions[index].append(action)
        self.obs, self._spare = obs, self.obs
        return StepResult(self.obs, self._next_obs, rewards, terminations, truncations, lives)

    def state_dict(self) -> State:
        """Which episode each environment is in, its actions since the reset, and what it shows."""
        return {
            "episodes": list(self._episodes),
            "actions": [np.array(actions, np.int64) for actions in self._actions],
            "obs": self.obs.copy(),
        }

    def load_state_dict(self, state: State) -> None:
        """Play the open episodes again; raises if an environment then shows something else."""
        if len(state["episodes"]) != len(self.envs):
            raise UserError(
                f"the checkpoint was written with env.num_envs={len(state['episodes'])}, not {len(self.envs)}"
            )
        self.truncated_episodes = []
        self._episodes = list(state["episodes"])
        self._actions = [np.asarray(actions).tolist() for actions in state["actions"]]
        observations: Array = np.asarray(state["obs"])
        for index, wait in enumerate([self._play(index) for index in range(len(self.envs))]):
            saved = observations[index]
            problem = self._take_up(index, wait, saved)
            if problem and not self._inexact:
                raise UserError(
                    f"{problem}. Its reset(seed=...) must make the episode repeatable; "
                    "checkpoint.allow_inexact_resume=true goes on all the same, with this episode cut short"
                )
            if problem:
                self.truncated_episodes.append(TruncatedEpisode(index, saved.copy(), problem))
                self._begin_episode(index, self._episodes[index] + 1)
                self.obs[index] = self._play(index)()

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()

    def _begin_step(self, index: int, action: int) -> Callable[[], EnvStep]:
        last = len(self._actions[index]) + 1 >= self._limit
        return self.envs[index].step(action, self._next_seeds[index], last)

    def _begin_episode(self, index: int, episode: int) -> None:
        self._episodes[index], self._actions[index] = episode, []
        self._next_seeds[index] = self._seed_of(index, episode + 1)

    def _play(self, index: int) -> Callable[[], Array]:
        """Begin to play the open episode of an environment up to where it stands."""
        episode = self._episodes[index]
        self._next_seeds[index] = self._seed_of(index, episode + 1)
        return self.envs[index].play(self._seed_of(index, episode), self._actions[index])

    def _bring_back(self, index: int, error: Exception) -> None:
        """Make an environment that raised `error` again, where it stood; raise it if that is not possible."""
        if self._remake is None:
            raise error
        log.warning(
            "%s raised %s: %s; it is made again, and its %d steps since the reset are repeated",
            self._name,
            type(error).__name__,
            error,
            len(self._actions[index]),
        )
        with suppress(Exception):  # it is broken, and may not even close
            self.envs[index].close()
        self.envs[index] = self._remake()
        if problem := self._take_up(index, self._play(index), self.obs[index].copy()):
            raise error from UserError(problem)

    def _take_up(self, index: int, wait: Callable[[], Array], expected: Array) -> str | None:
        """Wait for an episode that was played again; says what is wrong if it ends elsewhere."""
        found = (
            f"{self._name} did not come back to its observation after the seed and "
            f"{len(self._actions[index])} actions"
        )
        try:
            self.obs[index] = wait()
        except UserError:
            raise
        except Exception as error:
            return f"{found}: it raised {type(error).__name__}: {error}"
        if np.array_equal(self.obs[index], expected, equal_nan=expected.dtype.kind == "f"):
            return None
        return f"{found}: {_difference(self.obs[index], expected)}"


def _difference(now: Array, saved: Array) -> str:
    where = np.unravel_index(int(np.argmax(now != saved)), now.shape)
    return f"element {tuple(int(i) for i in where)} is {now[where]}, it was {saved[where]}"
