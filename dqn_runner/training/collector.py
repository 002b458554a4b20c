"""Collects experience: steps the training environments and records their episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.core.rng import stream
from dqn_runner.core.state import State
from dqn_runner.envs.episode_metrics import NO_METRICS, EpisodeMetrics
from dqn_runner.envs.episode_record import TruncatedEpisode
from dqn_runner.envs.vector_env import VectorEnv
from dqn_runner.replay.buffer import Replay


class Episode(NamedTuple):
    """A finished training episode."""

    step: int
    """Env steps of the run at its end."""
    episode_return: float
    """Undiscounted sum of rewards."""
    length: int
    metrics: EpisodeMetrics = NO_METRICS
    """What the environment reported in it."""


@dataclass
class Progress:
    """What was collected so far; valid even if an environment raises."""

    step: int
    """Env steps of the run, summed over environments."""
    ended: list[Episode] = field(default_factory=list[Episode])


class Collector:
    """Owns the training environments and the random numbers of exploration."""

    def __init__(self, envs: VectorEnv, seed: int, learning_reward: Callable[[float], float]) -> None:
        """`learning_reward` gives the reward that replay stores; returns are sums of the original rewards."""
        self.envs = envs
        self._learning_reward = learning_reward
        self._rng = stream(seed, "exploration")
        self._returns = [0.0] * envs.num_envs
        self._lengths = [0] * envs.num_envs
        self.is_adding = False
        """Whether an env step is in part in replay and counts: it stays so if one of them raises."""
        self._actions: list[int] | None = None
        """Actions that were chosen, but not taken because an environment raised."""

    def collect(
        self, agent: DQNAgent, replay: Replay, progress: Progress, until_step: int, max_episodes: int
    ) -> None:
        """Act until env step `until_step` or until `max_episodes` episodes ended; updates `progress`."""
        envs, rng, returns, lengths = self.envs, self._rng, self._returns, self._lengths
        buffers, num_envs = envs.buffers, envs.num_envs
        while progress.step < until_step and len(progress.ended) < max_episodes:
            obs, masks = buffers.obs, buffers.masks
            actions = self._actions or agent.act(obs, progress.step, rng, masks).tolist()
            self._actions = actions
            steps = envs.step(actions)
            self._actions = None
            progress.step += num_envs
            next_obs, next_masks = buffers.next_obs, buffers.next_masks
            self.is_adding = True
            for index, step in enumerate(steps):
                replay.add(
                    index,
                    obs[index],
                    actions[index],
                    self._learning_reward(step.reward),
                    step.terminated or step.life_lost,
                    step.truncated,
                    next_obs[index],
                    *(() if masks is None or next_masks is None else (masks[index], next_masks[index])),
                )
                returns[index] += step.reward
                lengths[index] += 1
                if step.first_obs is not None:
                    progress.ended.append(
                        Episode(progress.step, returns[index], lengths[index], step.metrics)
                    )
                    returns[index], lengths[index] = 0.0, 0
            self.is_adding = False

    def truncate_lost_episodes(self, step: int) -> list[tuple[TruncatedEpisode, Episode]]:
        """End the episodes that a resume at env step `step` could not recover, and return them."""
        found: list[tuple[TruncatedEpisode, Episode]] = []
        for lost in self.envs.truncated_episodes:
            found.append((lost, Episode(step, self._returns[lost.env], self._lengths[lost.env])))
            self._returns[lost.env], self._lengths[lost.env] = 0.0, 0
        return found

    def state_dict(self) -> State:
        """Environments, the generator of exploration, and returns and lengths of the open episodes."""
        return {
            "envs": self.envs.state_dict(),
            "rng": self._rng.bit_generator.state,
            "returns": list(self._returns),
            "lengths": list(self._lengths),
            "actions": self._actions,
        }

    def load_state_dict(self, state: State) -> None:
        """Restore them; the environments replay their open episodes."""
        self.envs.load_state_dict(state["envs"])
        self._rng.bit_generator.state = state["rng"]
        self._returns[:] = state["returns"]
        self._lengths[:] = state["lengths"]
        self._actions = state["actions"]
