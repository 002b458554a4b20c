"""Greedy evaluation on a separate environment, with the same seeds each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dqn_runner.core.registry import option
from dqn_runner.core.settings import check_settings, setting
from dqn_runner.core.types import Array, BoolArray, IntArray
from dqn_runner.envs.base import Env
from dqn_runner.envs.checked_env import CheckedEnv
from dqn_runner.envs.episode_metrics import NO_METRICS, EpisodeMetrics, mean_of_episodes
from dqn_runner.envs.generators import OwnGenerators


@option("evaluator", "default")
@dataclass(kw_only=True)
class EvaluatorConfig:
    """How mode=eval evaluates a checkpoint."""

    episodes: int = setting(100, at_least=1)
    """Number of greedy episodes."""
    seed: int = setting(0, at_least=0, below=2**63)
    """Selects the fixed set of evaluation episodes."""
    video: bool = False
    """Record the first episodes as an mp4, or as a gif without ffmpeg; the environment must render."""
    video_episodes: int = setting(1, at_least=1)
    """Episodes in the video."""

    __post_init__ = check_settings


Policy = Callable[..., IntArray]
"""Observations [n, *obs_shape], and action masks [n, actions] if the environment has any, to actions [n]."""
OnFrame = Callable[[Env], None]


class Witness(Protocol):
    """Sees every step of an evaluation."""

    def begin(self, obs: Array, mask: BoolArray | None) -> None:
        """An episode begins at `obs`, which is to be copied."""
        ...

    def step(
        self,
        action: int,
        reward: float,
        terminated: bool,
        truncated: bool,
        obs: Array,
        mask: BoolArray | None,
    ) -> None:
        """A step ended at `obs`, which is to be copied; `terminated` also if a life was lost in it."""
        ...


class EvaluationStopped(Exception):  # noqa: N818, it is not an error
    """An evaluation was told to stop; it has no result, and can be repeated."""


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of the episodes of one evaluation."""

    returns: list[float]
    lengths: list[int]
    metrics: EpisodeMetrics = NO_METRICS
    """What the environment reported: means over the episodes."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the return over episodes."""
        return float(np.std(self.returns))

    def summary(self) -> dict[str, float]:
        """Mean, spread and range of the return, and the mean length."""
        return {
            "return_mean": self.mean,
            "return_std": self.std,
            "return_min": min(self.returns),
            "return_max": max(self.returns),
            "length_mean": float(np.mean(self.lengths)),
        }


class Evaluator:
    """Owns the evaluation environment; evaluating does not affect training."""

    def __init__(
        self,
        env: Env,
        seed_of: Callable[[int], int],
        max_episode_steps: int | None,
        info_metrics: Sequence[str] = (),
    ) -> None:
        """Episode `k` is reset with seed `seed_of(k)` and truncated after `max_episode_steps` steps.

        `info_metrics` are keys of `info` that are metrics.
        """
        self.env = env
        self._checked = CheckedEnv(env, info_metrics)
        self._seed_of = seed_of
        self._limit = max_episode_steps or 2**63
        self._dtype = self._checked.spec.obs_dtype

    def run(
        self,
        policy: Policy,
        episodes: int,
        on_frame: OnFrame | None = None,
        stops: Callable[[], bool] = lambda: False,
        first: int = 0,
        witness: Witness | None = None,
    ) -> Evaluation:
        """Run `episodes` episodes from number `first` on.

        `on_frame` is called with the environment after each reset and step, `witness` with what they
        returned. Raises EvaluationStopped after a step if `stops()` is true.
        """
        played = [
            self._play(policy, self._seed_of(index), on_frame, stops, witness)
            for index in range(first, first + episodes)
        ]
        returns, lengths, metrics = zip(*played, strict=True)
        return Evaluation(list(returns), list(lengths), mean_of_episodes(metrics))

    def close(self) -> None:
        """Close the environment."""
        self._checked.close()

    def _play(
        self,
        policy: Policy,
        seed: int,
        on_frame: OnFrame | None,
        stops: Callable[[], bool],
        witness: Witness | None,
    ) -> tuple[float, int, EpisodeMetrics]:
        """Return, length and metrics of an episode.

        It is a function of its seed and does not disturb training.
        """
        env = self._checked
        total, length, done = 0.0, 0, False
        with OwnGenerators(seed):
            obs = env.reset(seed)
            if on_frame:
                on_frame(self.env)
            if witness:
                witness.begin(obs, env.mask)
            while not done and length < self._limit:
                mask = () if env.mask is None else (env.mask[None],)
                action = policy(np.asarray(obs, self._dtype)[None], *mask)[0]
                obs, reward, terminated, truncated, life_lost = env.step(int(action))
                total += reward
                length += 1
                done = terminated or truncated
                if on_frame:
                    on_frame(self.env)
                if witness:
                    cut = truncated or length >= self._limit
                    witness.step(int(action), reward, terminated or life_lost, cut, obs, env.mask)
                if stops():
                    raise EvaluationStopped
        return total, length, env.metrics.end_episode()
