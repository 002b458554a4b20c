"""mode=eval: evaluate a checkpoint; write eval.json, and a video on request."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.checkpointing.recovery import nonsense_is_damage
from dqn_runner.cli.job import Job
from dqn_runner.config.build import build_agent, build_evaluator
from dqn_runner.config.schema import RunConfig
from dqn_runner.core.exceptions import DamagedError, UserError
from dqn_runner.core.rng import eval_seeds
from dqn_runner.core.state import State
from dqn_runner.io import json_io
from dqn_runner.io.signals import exits_as_errors
from dqn_runner.io.terminal import precise
from dqn_runner.statistics.aggregates import mean
from dqn_runner.statistics.bootstrap import estimate
from dqn_runner.training.evaluator import Evaluation, Evaluator
from dqn_runner.training.stored_state import check_structure
from dqn_runner.training.video import record, rendering_evaluator
from dqn_runner.training.watchdog import Watchdog


def evaluate(job: Job) -> float:
    """Evaluate the checkpoint of a job and return the mean return."""
    if job.stored is None:
        raise UserError("mode=eval needs checkpoint=PATH, a checkpoint or a run directory")
    for change in job.changes:
        print(f"changed for this evaluation: {change}")
    return evaluate_checkpoint(job.run, job.stored.path, job.run_dir).mean


def evaluate_checkpoint(run: RunConfig, path: Path, run_dir: Path) -> Evaluation:
    """Evaluate the agent of checkpoint `path` as `run.evaluator` says; write eval.json to `run_dir`."""
    with scored_checkpoint(run, path) as (agent, evaluation, result):
        json_io.write_json(run_dir / "eval.json", result)
        print(f"written to {run_dir / 'eval.json'}", flush=True)
    if run.evaluator.video:
        print(f"video: {_record_video(run, agent.greedy, run_dir / 'eval')}")
    return evaluation


@contextmanager
def scored_checkpoint(run: RunConfig, path: Path) -> Generator[tuple[DQNAgent, Evaluation, dict[str, Any]]]:
    """The agent of checkpoint `path`, its evaluation, and that as plain values; prints a summary.

    The environment is closed after the block, so that one that hangs then loses nothing.
    """
    document = load_checkpoint(path)
    agent = stored_agent(run, path, document)
    evaluator, timeout = build_evaluator(run), run.trainer.env_timeout
    watchdog = Watchdog(timeout, "nothing was written; repeat the command to evaluate again")
    with closing(evaluator, timeout, "the evaluation itself is complete"):
        with exits_as_errors(), watchdog:
            evaluation = evaluator.run(agent.greedy, run.evaluator.episodes)
        yield agent, evaluation, _summarise(run, path, document, evaluation)


@contextmanager
def closing(evaluator: Evaluator, timeout: float | None, advice: str) -> Generator[None]:
    """Close the environment after the block; if it hangs then, the process ends with `advice`."""
    try:
        yield
    except BaseException as error:
        advice = f"before that, the command had failed: {type(error).__name__}: {error}"
        raise
    finally:
        with Watchdog(timeout, advice):
            evaluator.close()


def _summarise(run: RunConfig, path: Path, document: State, evaluation: Evaluation) -> dict[str, Any]:
    """Print a summary of an evaluation, and return it as plain values."""
    found = estimate(evaluation.returns, mean)
    interval = None if math.isnan(found.low) else [found.low, found.high]  # of a single episode
    summary = evaluation.summary()
    shown = f", 95% CI [{precise(found.low)}, {precise(found.high)}]" if interval else ""
    print(
        f"{path}\n{run.evaluator.episodes} greedy episodes on fixed seeds: mean {precise(evaluation.mean)}, "
        f"std {precise(evaluation.std)}{shown}, min {summary['return_min']:g}, max {summary['return_max']:g}"
    )
    for key, value in evaluation.metrics.means.items():
        print(f"{key}: mean {value:.4g}")
    for key, problem in evaluation.metrics.problems.items():
        print(f"the environment's metric {key} is left out: {problem}")
    return {
        "checkpoint": str(path),
        "step": document["step"],
        "episodes": run.evaluator.episodes,
        "seed": run.evaluator.seed,
        **summary,
        "return_ci95": interval,
        "metrics": evaluation.metrics.means,
        "returns": evaluation.returns,
        "lengths": evaluation.lengths,
    }


def stored_agent(run: RunConfig, path: Path, document: State) -> DQNAgent:
    """The agent of a run with the weights of its checkpoint `path`, which holds `document`.

    Raises UserError if the command changed settings so that they do not fit.
    """
    with Watchdog(run.trainer.env_timeout, "nothing was written; the same command starts again"):
        agent = build_agent(replace(run.agent, device="cpu"), run.env)
    try:
        with nonsense_is_damage(path):
            stored = document["state"]["agent"]
            check_structure(stored, agent.state_dict(), "state.agent")
            agent.load_state_dict(stored)
    except DamagedError:
        raise
    except UserError as error:
        raise UserError(
            f"the agent of {path} does not fit the settings of this command; leave those of the agent and "
            f"the environment as they were in the run ({error})"
        ) from error
    return agent


def _record_video(run: RunConfig, policy: Any, stem: Path) -> Path:
    """The first evaluation episodes as a video."""
    try:
        seeds = eval_seeds("test", run.evaluator.seed)
        evaluator = rendering_evaluator(run.env, seeds, run.trainer.max_steps_per_episode)
        timeout, advice = run.trainer.env_timeout, "eval.json is written"
        with closing(evaluator, timeout, f"{advice}, and so is the video"), Watchdog(timeout, advice):
            return record(evaluator, policy, run.evaluator.video_episodes, stem)
    except UserError as error:
        raise UserError(f"evaluator.video: {error}") from error
