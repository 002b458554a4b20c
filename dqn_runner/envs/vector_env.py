"""Several environments stepped together, with explicit seeds; replay restores their open episodes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from typing import Any

import numpy as np

from dqn_runner.core.exceptions import RunFailedError, UserError
from dqn_runner.core.log import log
from dqn_runner.core.state import State
from dqn_runner.core.types import Array, BoolArray
from dqn_runner.envs.checked_env import TRACEBACK
from dqn_runner.envs.episode_record import EpisodeRecord, Replayed, TruncatedEpisode
from dqn_runner.envs.step_buffers import StepBuffers
from dqn_runner.envs.worker import EnvStep, EnvWorker, LocalWorker
from dqn_runner.envs.wrapping import STATISTICS, stateful_wrappers
from dqn_runner.io.signals import as_error


class VectorEnv:
    """`n` environments stepped together, with explicit seeds.

    An environment whose episode ends is reset within the same step. The result holds both the final and the
    first observation, so no extra step separates episodes. The state of an environment is the seed of
    its episode and the actions since the reset; what it answered is kept to verify that a replay repeats it.
    The last episode that ended is kept too: a replay shows whether an environment counts its episodes.
    """

    def __init__(
        self,
        workers: list[EnvWorker],
        seed_of: Callable[[int, int], int],
        max_episode_steps: int | None,
        make_replacement: Callable[[int], EnvWorker] | None = None,
        allow_inexact_resume: bool = False,
    ) -> None:
        """Reset all environments; `seed_of(env, episode)` returns the seed of each reset.

        Episodes are truncated after `max_episode_steps`. An environment that raises an exception is replaced
        once by a worker from `make_replacement(env)`, if given, and its episode is replayed. If an episode of
        a checkpoint cannot be restored, `load_state_dict` raises UserError, or, with `allow_inexact_resume`,
        truncates the episode and adds it to `truncated_episodes`. Raises RunFailedError if the first reset
        of an environment raises.
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
        self.buffers = StepBuffers(len(workers), self.spec)
        """Observations and action masks before and after the last step."""
        self._episodes = [EpisodeRecord(0) for _ in workers]
        self._ended = [EpisodeRecord(0) for _ in workers]
        self._next_seeds = [0] * len(workers)
        self._attributes: dict[str, Any] = {}
        """Attributes of the environments, from their next episodes on."""
        for index, wait in enumerate([self._replay_episode(index) for index in range(len(workers))]):
            try:
                self._start_replayed(index, wait())
            except UserError:
                raise
            except BaseException as raised:
                error = as_error(raised)
                raise RunFailedError(
                    f"{self._name}: the first reset() raised {type(error).__name__}: {error} {TRACEBACK}"
                ) from error

    @property
    def num_envs(self) -> int:
        """The number of environments."""
        return len(self.workers)

    @property
    def obs(self) -> Array:
        """[n, *obs_shape]: the observations to act on."""
        return self.buffers.obs

    @property
    def masks(self) -> BoolArray | None:
        """[n, actions]: which actions are allowed there; None without masks."""
        return self.buffers.masks

    def step(self, actions: list[int]) -> list[EnvStep]:
        """Step every environment. Every result is a real step: resets are not steps.

        `buffers` has copies of the observations, and the first ones of new episodes. If an environment
        raises, the state is that before the step, so that a checkpoint of it restores all environments to
        where they were before the step.
        """
        buffers = self.buffers
        steps: list[EnvStep] = []
        checksums: list[int] = []
        waiting = [self._begin_step(index, action) for index, action in enumerate(actions)]
        for index, wait in enumerate(waiting):
            try:
                step = wait()
            except UserError:
                raise
            except BaseException as raised:
                self._recover_env(index, as_error(raised))
                step = self._begin_step(index, actions[index])()
            checksums.append(buffers.put(index, step))
            steps.append(step)
        buffers.advance()
        for index, step in enumerate(steps):
            episode = self._episodes[index]
            episode.add(actions[index], step.reward, checksums[index])
            if step.first_obs is not None:
                self._ended[index] = episode
                following = EpisodeRecord(episode.number + 1, step.used, self._attributes)
                self._start_episode(index, following)
        return steps

    def set_attribute(self, name: str, value: Any) -> None:
        """Set an attribute of every environment from its next episode on; UserError if it has none."""
        self._pass_attributes({**self._attributes, name: deepcopy(value)})

    def state_dict(self) -> State:
        """Return each environment's open episode and last observation, and its last episode that ended."""
        return {
            "attributes": dict(self._attributes),
            "episodes": [episode.state_dict() for episode in self._episodes],
            "ended": [episode.state_dict() for episode in self._ended],
            "obs": self.obs.copy(),
            **({} if self.masks is None else {"masks": self.masks.copy()}),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore the environments: replay their open episodes, and verify that they are the same.

        Raises UserError if the number of environments or an episode differs (see `__init__`).
        """
        if len(state["episodes"]) != self.num_envs:
            raise UserError(
                f"the checkpoint was written with env.num_envs={len(state['episodes'])}, not {self.num_envs}"
            )
        self.truncated_episodes = []
        self._pass_attributes(dict(state["attributes"]))
        self._episodes = [EpisodeRecord.from_state(episode) for episode in state["episodes"]]
        self._ended = [EpisodeRecord.from_state(episode) for episode in state["ended"]]
        observations, masks = np.asarray(state["obs"]), [None] * self.num_envs
        if self.masks is not None:
            masks = np.asarray(state["masks"])
        problems = self._check_ended()
        for index, wait in enumerate([self._replay_episode(index) for index in range(self.num_envs)]):
            saved, saved_mask = observations[index], masks[index]
            self.buffers.restore(index, saved, saved_mask)
            problem = self._check_replayed(index, wait) or problems[index]
            if problem and not self._allow_inexact_resume:
                raise UserError(
                    f"{problem}. Its reset(seed=...) must make the episode repeatable{self._hint(index)}; "
                    "checkpoint.allow_inexact_resume=true resumes anyway and truncates this episode"
                )
            if problem:
                self.truncated_episodes.append(TruncatedEpisode(index, saved.copy(), saved_mask, problem))
                number = self._episodes[index].number + 1
                self._episodes[index] = EpisodeRecord(number, attributes=self._attributes)
                self._start_replayed(index, self._replay_episode(index)())

    def close(self) -> None:
        """Close every environment."""
        for worker in self.workers:
            worker.close()

    def _pass_attributes(self, attributes: dict[str, Any]) -> None:
        if repr(attributes) != repr(self._attributes):  # 6 is not 6.0, and 1 is not True
            for wait in [worker.set_attributes(attributes) for worker in self.workers]:
                wait()
        self._attributes = attributes

    def _hint(self, index: int) -> str:
        """What is known about why an episode may not be repeatable."""
        worker = self.workers[index]
        names = stateful_wrappers(worker.env.env) if isinstance(worker, LocalWorker) else []
        return f" ({', '.join(names)}: {STATISTICS})" if names else ""

    def _begin_step(self, index: int, action: int) -> Callable[[], EnvStep]:
        last = len(self._episodes[index].actions) + 1 >= self._max_episode_steps
        return self.workers[index].step(action, self._next_seeds[index], last)

    def _start_replayed(self, index: int, reset: Replayed) -> None:
        """Start the episode of an environment that was reset."""
        self.buffers.restore(index, reset.obs, reset.mask)
        self._start_episode(index, self._episodes[index])

    def _start_episode(self, index: int, episode: EpisodeRecord) -> None:
        """Note that an episode has started with the observation that is the one to act on."""
        episode.checksums = [self.buffers.checksum(index)]
        self._episodes[index] = episode
        self._next_seeds[index] = self._seed_of(index, episode.number + 1)

    def _replay_episode(self, index: int) -> Callable[[], Replayed]:
        """Start to reset an environment and repeat the actions of its open episode."""
        episode = self._episodes[index]
        self._next_seeds[index] = self._seed_of(index, episode.number + 1)
        return self._repeat(index, episode)

    def _repeat(self, index: int, episode: EpisodeRecord) -> Callable[[], Replayed]:
        seed = self._seed_of(index, episode.number)
        return self.workers[index].replay_episode(seed, episode.actions, episode.used, episode.attributes)

    def _recover_env(self, index: int, error: Exception) -> None:
        """Replace an environment that raised `error` and replay its episode; raises `error` if it cannot."""
        if self._make_replacement is None:
            raise error
        log.warning(
            "%s raised %s: %s; creating it again and replaying its %d steps since the reset",
            self._name,
            type(error).__name__,
            error,
            len(self._episodes[index].actions),
        )
        with suppress(Exception):  # closing a broken environment may fail, too
            self.workers[index].close()
        self.workers[index] = self._make_replacement(index)
        self.workers[index].set_attributes(self._attributes)()
        if problem := self._check_replayed(index, self._replay_episode(index)):
            raise error from UserError(problem)

    def _check_ended(self) -> list[str | None]:
        """Repeat the last episode of each environment; returns what is wrong with each."""
        ended = enumerate(self._ended)
        waiting = [(index, self._repeat(index, episode)) for index, episode in ended if episode.actions]
        problems: list[str | None] = [None] * self.num_envs
        for index, wait in waiting:
            problems[index] = self._difference(index, self._ended[index], wait, None)
        return problems

    def _check_replayed(self, index: int, wait: Callable[[], Replayed]) -> str | None:
        """Wait for a replayed episode; returns what is wrong if it is not the one that is open."""
        return self._difference(index, self._episodes[index], wait, self.obs[index])

    def _difference(
        self, index: int, episode: EpisodeRecord, wait: Callable[[], Replayed], obs: Array | None
    ) -> str | None:
        """Wait for a replayed episode; returns how it differs from `episode`, open if `obs` is given."""
        which = f"{self._name} ({index + 1} of {self.num_envs})" if self.num_envs > 1 else self._name
        mismatch = (
            f"{which} did not repeat its {'last' if obs is None else 'open'} episode when the seed and the "
            f"{len(episode.actions)} actions were replayed"
        )
        try:
            replayed = wait()
        except UserError:
            raise
        except BaseException as raised:
            error = as_error(raised)
            return f"{mismatch}: it raised {type(error).__name__}: {error}"
        draws_are_shared = replayed.moved and self.num_envs > 1 and not self.workers[index].is_alone
        if draws_are_shared and obs is None:
            return None  # it cannot be repeated alone, and the run does not need it
        ends = obs is None if len(episode.actions) < self._max_episode_steps else None
        if difference := episode.difference(replayed, obs, ends):
            return f"{mismatch}: {difference}"
        if draws_are_shared:
            return (
                f"{which} drew from a global random generator ({', '.join(replayed.moved)}) for the first "
                "time in its open episode, and shared it with the other environments then, so the episode "
                "cannot be repeated exactly"
            )
        return None
