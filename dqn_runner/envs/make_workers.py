"""Makes the workers of a run's environments."""

from __future__ import annotations

import functools
from collections.abc import Callable

from dqn_runner.core.rng import seed_for
from dqn_runner.envs.base import EnvConfig, EnvPart, Vectorization
from dqn_runner.envs.checked_env import make_env
from dqn_runner.envs.episode_metrics import info_metrics_of
from dqn_runner.envs.subprocess_worker import SubprocessWorker
from dqn_runner.envs.user_env import UserEnv
from dqn_runner.envs.worker import EnvWorker, LocalWorker


def make_worker(part: EnvPart, seed: int = 0, index: int = 0, timeout: float | None = None) -> EnvWorker:
    """Return a worker with a new training environment, in a separate process if vectorization is async.

    `seed` is that of the run, `index` the number of the environment in it; they matter to an environment that
    draws from a global random generator. A process is killed if a step or reset takes longer than `timeout`
    seconds.
    """
    creation_seed, shared_seed = _generator_seeds(seed, index)
    if isinstance(part, EnvConfig) and part.vectorization is Vectorization["async"]:
        return SubprocessWorker(part, creation_seed, shared_seed, timeout)
    return LocalWorker(make_env(part, creation_seed), shared_seed, info_metrics_of(part))


def worker_factory(
    part: EnvPart, seed: int = 0, timeout: float | None = None
) -> Callable[[int], EnvWorker] | None:
    """Return a function from an index to a new worker; None for a UserEnv that cannot be copied again."""
    if not isinstance(part, UserEnv):
        return functools.partial(make_worker, part, seed, timeout=timeout)
    if not part.can_be_replaced:
        return None
    return lambda index: LocalWorker(part.make_replacement(), _generator_seeds(seed, index)[1])


def _generator_seeds(seed: int, index: int) -> tuple[int, int]:
    """Seeds of the global generators: for the creation of an environment, and common to all of a process."""
    return seed_for(seed, "global generators", index), seed_for(seed, "global generators")
