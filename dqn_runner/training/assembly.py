"""Builds the parts of a trainer from an agent, an environment part and a configuration."""

from __future__ import annotations

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.config import DQNConfig
from dqn_runner.core.rng import eval_seeds, seed_for, stream
from dqn_runner.core.types import EnvSpec
from dqn_runner.envs.base import EnvPart
from dqn_runner.envs.checked_env import make_env
from dqn_runner.envs.vector_env import VectorEnv, make_worker, worker_factory
from dqn_runner.replay.buffer import Replay
from dqn_runner.training.collector import Collector
from dqn_runner.training.config import TrainingConfig
from dqn_runner.training.evaluator import Evaluator


def make_collector(
    agent: DQNAgent, env: EnvPart, config: TrainingConfig, allow_inexact_resume: bool
) -> Collector:
    """The collector and its training environments, with separate reset seeds for each environment."""
    seed = agent.config.seed
    envs = VectorEnv(
        [make_worker(env, seed, index) for index in range(env.num_envs)],
        lambda index, episode: seed_for(seed, "env", index, episode),
        config.max_steps_per_episode,
        make_replacement=worker_factory(env, seed) if config.retry_env else None,
        allow_inexact_resume=allow_inexact_resume,
    )
    return Collector(envs, seed, env.learning_reward)


def make_evaluator(env: EnvPart, config: TrainingConfig) -> Evaluator:
    """The evaluation environment; its episodes have the same seeds in every run."""
    seeds = eval_seeds("eval")
    return Evaluator(make_env(env, seeds(-1), training=False), seeds, config.max_steps_per_episode)


def make_replay(agent: DQNConfig, spec: EnvSpec, num_envs: int) -> Replay:
    """An empty replay buffer for transitions of `num_envs` environments of shapes `spec`."""
    rng = stream(agent.seed, "replay")
    return agent.replay.build(spec, num_envs, agent.gamma, agent.n_step, rng)
