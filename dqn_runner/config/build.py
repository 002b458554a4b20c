"""The composition root: from a RunConfig to the objects of a run."""

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
from dqn_runner.training.evaluator import Evaluator
from dqn_runner.training.stopping import StopCallback
from dqn_runner.training.trainer import Trainer


def build_agent(config: DQNConfig, env: EnvPart) -> DQNAgent:
    """An agent; what its configuration leaves open is the environment's."""
    probe = env.make()
    try:
        spec = spec_of(probe)
    finally:
        probe.close()
    normalize = config.normalize_observations
    given = {
        "state_dim": spec.obs_shape if config.state_dim is None else config.state_dim,
        "action_dim": spec.num_actions if config.action_dim is None else config.action_dim,
        "normalize_observations": env.normalize_observations if normalize is None else normalize,
    }
    return DQNAgent(dataclasses.replace(config, **given))


def build_trainer(
    run: RunConfig,
    run_dir: Path,
    source: Mapping[str, Any],
    group: str | None,
    stop_callback: StopCallback | None = None,
) -> Trainer:
    """The trainer of a run that writes into `run_dir`."""
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
        stop_callback=stop_callback,
    )


def build_evaluator(run: RunConfig, render: bool) -> Evaluator:
    """The evaluator of mode=eval; its seeds are not those that chose the best checkpoint."""
    seeds = eval_seeds("test", run.evaluator.seed)
    return Evaluator(run.env.make(training=False, render=render), seeds, run.trainer.max_steps_per_episode)
