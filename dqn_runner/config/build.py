"""The composition root: builds the objects of a run from its RunConfig."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.config import DQNConfig
from dqn_runner.config.schema import RunConfig
from dqn_runner.core.rng import eval_seeds
from dqn_runner.envs.base import EnvPart, spec_of
from dqn_runner.envs.checked_env import close_env, make_env
from dqn_runner.envs.episode_metrics import info_metrics_of
from dqn_runner.training.assembly import make_first_watchdog
from dqn_runner.training.evaluator import Evaluator
from dqn_runner.training.trainer import Trainer


def build_agent(config: DQNConfig, env: EnvPart) -> DQNAgent:
    """An agent; shapes and normalisation that its configuration leaves open are those of the environment."""
    probe = make_env(env, config.seed)
    try:
        spec = spec_of(probe)
    finally:
        close_env(probe)
    normalize = config.normalize_observations
    completed = {
        "state_dim": (spec.layout or spec.obs_shape) if config.state_dim is None else config.state_dim,
        "action_dim": spec.num_actions if config.action_dim is None else config.action_dim,
        "normalize_observations": env.normalize_observations if normalize is None else normalize,
    }
    return DQNAgent(dataclasses.replace(config, **completed))


def build_trainer(
    run: RunConfig,
    run_dir: Path,
    source: Mapping[str, Any],
    group: str | None,
    pruner: Any = None,
) -> Trainer:
    """The trainer of a run that writes to `run_dir`; see `Trainer` for the other arguments."""
    with make_first_watchdog(run.trainer):
        agent = build_agent(run.agent, run.env)
    return Trainer(
        agent,
        run.env,
        run.trainer,
        run_dir,
        loggers=run.logging,
        source=source,
        group=group,
        allow_inexact_resume=run.checkpoint.allow_inexact_resume,
        callbacks=run.callbacks,
        pruner=pruner,
    )


def build_evaluator(run: RunConfig, render: bool | str = False) -> Evaluator:
    """The evaluator of mode=eval; its seeds differ from those that chose the best checkpoint."""
    seeds = eval_seeds("test", run.evaluator.seed)
    env = make_env(run.env, seeds(-1), training=False, render=render)
    return Evaluator(env, seeds, run.trainer.max_steps_per_episode, info_metrics_of(run.env))
