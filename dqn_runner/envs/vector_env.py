"""Several environments stepped together, with explicit seeds; replay restores their open episodes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.log import log
from dqn_runner.core.state import State
from dqn_runner.core.types import Array, StepResult
from dqn_runner.envs.base import EnvConfig, EnvPart, Vectorization
from dqn_runner.envs.subprocess_worker import SubprocessWorker
from dqn_runner.envs.user_env import UserEnv
from dqn_runner.envs.worker import EnvStep, EnvWorker, LocalWorker
from dqn_runner.envs.wrapping import STATISTICS, stateful_wrappers
from dqn_runner.io.signals import as_error, exits_as_errors


def make_worker(part: EnvPart, timeout: float | None = None) -> EnvWorker:
    """Return a worker with a new training environment, in a separate process if vectorization is async.

    Such a process is killed if a step or reset takes longer than `timeout` seconds.
    """
    if isinstance(part, EnvConfig) and part.vectorization is Vectorization["async"]:
        return SubprocessWorker(part, timeout)
    return LocalWorker(part.make())


def worker_factory(part: EnvPart, timeout: float | None = None) -> Callable[[], EnvWorker] | None:
    """Return a function that makes workers of `part`; None for a UserEnv that cannot be copied again."""
    if not isinstance(part, UserEnv):
        return functools.partial(make_worker, part, timeout)
    return (lambda: LocalWorker(part.make_replacement())) if part.can_be_replaced else None


class TruncatedEpisode(NamedTuple):
    """An open episode of a checkpoint that could not be restored and was truncated instead."""

    env: int
    """Index of the environment."""
    obs: Array
    """[*obs_shape]: its last observation, from the checkpoint."""
    reason: str
    """Why it could not be restored."""


class VectorEnv:
    """`n` environments stepped together, with explicit seeds.

    An environment whose episode ends is reset within the same step. The result holds both the final and the
    first observation, so no extra step separates episodes. The state of an environment is the seed of
    its episode and the actions since the reset.
    """

    def __init__(
        self,
        workers: list[EnvWorker],
        seed_of: Callable[[int, int], int],
        max_episode_steps: int | None,
        make_replacement: Callable[[], EnvWorker] | None = None,
        allow_inexact_resume: bool = False,
    ) -> None:
        """Reset all environments; `seed_of(env, episode)` returns the seed of each reset.

        Episodes are truncated after `max_episode_steps`. An environment that raises an exception is replaced
        once by a worker from `make_replacement`, if given, and its episode is replayed. If an episode of a
        checkpoint cannot be restored, `load_state_dict` raises UserError, or, with `allow_inexact_resume`,
        truncates the episode and adds it to `truncated_episodes`.
        """
        if not workers:
            raise UserError("env.num_envs must be at least 1")
        self.workers = workers
        self.spec, self._name = workers[0].spec, workers[0].name
        self.truncated_episodes: list[TruncatedEpisode] = []
        self._seed_of = seed_of
        self._max_episode_steps = max_episode_steps or 2**63
        self._make_replacement = make_replacement
        self._allow_inexact_resume = allow_inexact_resume
        shape = (len(workers), *self.spec.obs_shape)
        self.obs = np.zeros(shape, self.spec.obs_dtype)
        self._spare = np.zeros(shape, self.spec.obs_dtype)
        self._next_obs = np.zeros(shape, self.spec.obs_dtype)
        self._episodes = [0] * len(workers)
        self._actions: list[list[int]] = [[] for _ in workers]
        self._next_seeds = [0] * len(workers)
        for index, wait in enumerate([self._replay_episode(index) for index in range(len(workers))]):
            with exits_as_errors():
                self.obs[index] = wait()

    @property
    def num_envs(self) -> int:
        """The number of environments."""
        return len(self.workers)

    def step(self, actions: list[int]) -> StepResult:
        """Step every environment. The arrays of the result are reused by the next step but one.

        If an environment raises, the state is that before the step, so that a checkpoint of it restores all
        environments to where they were before the step.
        """
        obs = self._spare
        rewards: list[float] = []
        terminations: list[bool] = []
        truncations: list[bool] = []
        life_losses: list[bool] = []
        waiting = [self._begin_step(index, action) for index, action in enumerate(actions)]
        for index, wait in enumerate(waiting):
            try:
                result = wait()
            except UserError:
                raise
            except BaseException as raised:
                self._recover_env(index, as_error(raised))
                result = self._begin_step(index, actions[index])()
            next_obs, first_obs, reward, terminated, truncated, life_lost = result
            self._next_obs[index] = next_obs
            obs[index] = next_obs if first_obs is None else first_obs
            rewards.append(reward)
            terminations.append(terminated)
            truncations.append(truncated)
            life_losses.append(life_lost)
        for index, action in enumerate(actions):
            if terminations[index] or truncations[index]:
                self._begin_episode(index, self._episodes[index] + 1)
            else:
                self._actions[index].append(action)
        self.obs, self._spare = obs, self.obs
        return StepResult(self.obs, self._next_obs, rewards, terminations, truncations, life_losses)

    def state_dict(self) -> State:
        """Return each environment's episode index, actions since the reset, and observation."""
        return {
            "episodes": list(self._episodes),
            "actions": [np.array(actions, np.int64) for actions in self._actions],
            "obs": self.obs.copy(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore the environments: replay their open episodes and compare the observations after them.

        Raises UserError if the number of environments or an observation differs (see `__init__`).
        """
        if len(state["episodes"]) != self.num_envs:
            raise UserError(
                f"the checkpoint was written with env.num_envs={len(state['episodes'])}, not {self.num_envs}"
            )
        self.truncated_episodes = []
        self._episodes = list(state["episodes"])
        self._actions = [np.asarray(actions).tolist() for actions in state["actions"]]
        observations: Array = np.asarray(state["obs"])
        for index, wait in enumerate([self._replay_episode(index) for index in range(self.num_envs)]):
            saved = observations[index]
            problem = self._check_replayed(index, wait, saved)
            if problem and not self._allow_inexact_resume:
                raise UserError(
                    f"{problem}. Its reset(seed=...) must make the episode repeatable{self._hint(index)}; "
                    "checkpoint.allow_inexact_resume=true resumes anyway and truncates this episode"
                )
            if problem:
                self.truncated_episodes.append(TruncatedEpisode(index, saved.copy(), problem))
                self._begin_episode(index, self._episodes[index] + 1)
                self.obs[index] = self._replay_episode(index)()

    def close(self) -> None:
        """Close every environment."""
        for worker in self.workers:
            worker.close()

    def _hint(self, index: int) -> str:
        """What is known about why an episode may not be repeatable."""
        worker = self.workers[index]
        names = stateful_wrappers(worker.env) if isinstance(worker, LocalWorker) else []
        return f" ({', '.join(names)}: {STATISTICS})" if names else ""

    def _begin_step(self, index: int, action: int) -> Callable[[], EnvStep]:
        last = len(self._actions[index]) + 1 >= self._max_episode_steps
        return self.workers[index].step(action, self._next_seeds[index], last)

    def _begin_episode(self, index: int, episode: int) -> None:
        self._episodes[index], self._actions[index] = episode, []
        self._next_seeds[index] = self._seed_of(index, episode + 1)

    def _replay_episode(self, index: int) -> Callable[[], Array]:
        """Start to reset an environment and repeat the actions of its open episode."""
        episode = self._episodes[index]
        self._next_seeds[index] = self._seed_of(index, episode + 1)
        return self.workers[index].replay_episode(self._seed_of(index, episode), self._actions[index])

    def _recover_env(self, index: int, error: Exception) -> None:
        """Replace an environment that raised `error` and replay its episode; raises `error` if it cannot."""
        if self._make_replacement is None:
            raise error
        log.warning(
            "%s raised %s: %s; creating it again and replaying its %d steps since the reset",
            self._name,
            type(error).__name__,
            error,
            len(self._actions[index]),
        )
        with suppress(Exception):  # closing a broken environment may fail, too
            self.workers[index].close()
        self.workers[index] = self._make_replacement()
        if problem := self._check_replayed(index, self._replay_episode(index), self.obs[index].copy()):
            raise error from UserError(problem)

    def _check_replayed(self, index: int, wait: Callable[[], Array], expected: Array) -> str | None:
        """Wait for a replayed episode; returns what is wrong if its last observation is not `expected`."""
        mismatch = (
            f"{self._name} did not return to its observation after replaying the seed and the "
            f"{len(self._actions[index])} actions of its episode"
        )
        try:
            self.obs[index] = wait()
        except UserError:
            raise
        except BaseException as raised:
            error = as_error(raised)
            return f"{mismatch}: it raised {type(error).__name__}: {error}"
        if np.array_equal(self.obs[index], expected, equal_nan=expected.dtype.kind == "f"):
            return None
        return f"{mismatch}: {_first_difference(self.obs[index], expected)}"


def _first_difference(now: Array, saved: Array) -> str:
    where = np.unravel_index(int(np.argmax(now != saved)), now.shape)
    return f"element {tuple(int(i) for i in where)} is {now[where]}, it was {saved[where]}"
