"""mode=eval: evaluate a checkpoint; write eval.json, and a video on request."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.checkpointing.recovery import nonsense_is_damage
from dqn_runner.cli.job import Job
from dqn_runner.config.build import build_agent, build_evaluator
from dqn_runner.config.schema import RunConfig
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_module
from dqn_runner.core.types import Array
from dqn_runner.envs.base import Env
from dqn_runner.io import json_io
from dqn_runner.io.entries import require_file
from dqn_runner.io.signals import exits_as_errors
from dqn_runner.training.evaluator import Evaluation
from dqn_runner.training.stored_state import check_structure
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
    if run.evaluator.video:
        import_module("PIL", "evaluator.video=true", extra="render")
    document = load_checkpoint(path)
    agent = build_agent(replace(run.agent, device="cpu"), run.env)
    with nonsense_is_damage(path):
        stored = document["state"]["agent"]
        check_structure(stored, agent.state_dict(), "state.agent")
        agent.load_state_dict(stored)
    evaluator = build_evaluator(run, render=False)
    watchdog = Watchdog(run.trainer.env_timeout, "nothing was written; repeat the command to evaluate again")
    try:
        with exits_as_errors(), watchdog:
            evaluation = evaluator.run(agent.greedy, run.evaluator.episodes)
    finally:
        evaluator.close()
    low, high = evaluation.confidence_interval()
    summary = evaluation.summary()
    print(
        f"{path}\n{run.evaluator.episodes} greedy episodes on fixed seeds: mean {evaluation.mean:.2f}, "
        f"std {evaluation.std:.2f}, 95% CI [{low:.2f}, {high:.2f}], min {summary['return_min']:g}, "
        f"max {summary['return_max']:g}"
    )
    for key, value in evaluation.metrics.means.items():
        print(f"{key}: mean {value:.4g}")
    for key, problem in evaluation.metrics.problems.items():
        print(f"the environment's metric {key} is left out: {problem}")
    result = {
        "checkpoint": str(path),
        "step": document["step"],
        "episodes": run.evaluator.episodes,
        "seed": run.evaluator.seed,
        **summary,
        "return_ci95": [low, high],
        "metrics": evaluation.metrics.means,
        "returns": evaluation.returns,
        "lengths": evaluation.lengths,
    }
    json_io.write_json(run_dir / "eval.json", result)
    print(f"written to {run_dir / 'eval.json'}")
    if run.evaluator.video:
        print(f"video: {_record_video(run, agent.greedy, run_dir / 'eval.gif')}")
    return evaluation


def _pixels(frame: Array) -> Array:
    """A rendered frame as uint8, at least 200 pixels wide; MinAtar renders 10x10 floats in [0, 1]."""
    if frame.dtype != np.uint8:
        frame = (np.clip(frame, 0, 1) * 255).astype(np.uint8)
    scale = max(1, 200 // min(frame.shape[:2]))
    return frame.repeat(scale, axis=0).repeat(scale, axis=1)


def _record_video(run: RunConfig, policy: Any, path: Path) -> Path:
    """The first evaluation episode as an animated GIF."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without a display
    try:
        from PIL import Image

        evaluator = build_evaluator(run, render=True)
        frames: list[Any] = []

        def keep(env: Env) -> None:
            frames.append(Image.fromarray(_pixels(env.render())))

        evaluator.run(policy, 1, keep)
        fps = evaluator.env.metadata.get("render_fps", 30)
        evaluator.close()
    except Exception as error:
        raise UserError(f"evaluator.video: this environment cannot be rendered: {error}") from error
    require_file(path)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=max(20, 1000 // fps), loop=0)
    return path
