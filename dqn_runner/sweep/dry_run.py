"""Estimates a sweep: the number of runs, their time, memory and disk space."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from omegaconf import DictConfig

from dqn_runner.config.build import build_trainer
from dqn_runner.config.schema import to_typed_config
from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.jobs import Command
from dqn_runner.sweep.optuna_parts import is_sampler
from dqn_runner.sweep.plan import Plan
from dqn_runner.training.resources import ResourceEstimate, estimate_resources, format_bytes

CALIBRATION_SECONDS = 60.0
"""The calibration run is stopped after this time."""
RECORDS = 3
"""The calibration run is stopped earlier after this many log records since learning started."""


class Calibration(NamedTuple):
    """Time and memory of one run."""

    seconds: float
    """Until its budget is used up; a run that reaches its target takes less."""
    resident: int
    """Memory of its process at the start, in bytes."""


def estimate(plan: Plan) -> str:
    """The estimate as a text, after a short run of the example trial of `plan`."""
    settings = plan.settings
    n_trials = _number_of_trials(plan)
    runs = n_trials * settings.seeds + settings.validate
    with tempfile.TemporaryDirectory() as folder:
        size = _estimate_size(plan.job, Path(folder) / "size")
        one = _calibrate(plan, Path(folder) / "run")
    at_once = min(settings.n_jobs, runs)
    time_each, memory, disk = _duration(one.seconds), one.resident + size.memory, size.disk
    trials = f"{n_trials} trials of {settings.seeds} seed(s)"
    validation = f" and {settings.validate} to validate the best" if settings.validate else ""
    less = "; less with pruning" if settings.prunes else ""
    return "\n".join(
        [
            f"runs    {runs}: {trials}{validation}, {at_once} at a time on {os.cpu_count()} cores",
            f"time    {_duration(runs / at_once * one.seconds)} at most: {time_each} for a run that uses up "
            f"its budget, measured with a single job{less}",
            f"memory  {format_bytes(at_once * memory)}: {at_once} times {format_bytes(one.resident)} and a "
            f"replay of up to {format_bytes(size.memory)}",
            f"disk    {format_bytes(runs * disk)} at most: {runs} times {format_bytes(disk)} of checkpoints",
            "dry run: nothing was started",
        ]
    )


def _number_of_trials(plan: Plan) -> int:
    """`n_trials`, or the number of points of a grid that has fewer."""
    if not is_sampler(plan.settings.sampler, "GridSampler"):
        return plan.settings.n_trials
    return min(plan.settings.n_trials, math.prod(map(len, plan.space.grid().values())))


def _estimate_size(job: DictConfig, directory: Path) -> ResourceEstimate:
    run = to_typed_config(job)
    trainer = build_trainer(run, directory, {}, None)
    try:
        spec = trainer.collector.envs.spec
        return estimate_resources(trainer.agent.config, trainer.config, spec, trainer.agent.num_bytes())
    finally:
        trainer.collector.envs.close()
        trainer.evaluator.close()


def _calibrate(plan: Plan, directory: Path) -> Calibration:
    """Run a job of the plan until its log shows how fast it is."""
    fixed = [override for override in plan.command.fixed if not override.startswith("logging")]
    command = Command(plan.command.flags, tuple(fixed), plan.command.hydra, "basic")
    arguments = command.job([*plan.proposal, "logging=[jsonl]"], directory)
    output = directory.with_name("output")
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "dqn_runner", *arguments], stdout=file, stderr=subprocess.STDOUT
        )
        start, startup, resident = time.monotonic(), 0.0, 0
        try:
            while process.poll() is None and time.monotonic() - start < CALIBRATION_SECONDS:
                resident = max(resident, _resident(process.pid))
                progress = _progress(directory, plan.job.agent.learning_starts)
                if progress and not startup:
                    startup = time.monotonic() - start - progress[-1][0]
                if len(progress) >= RECORDS:
                    break
                time.sleep(0.2)
            status, elapsed = process.poll(), time.monotonic() - start
        finally:  # also after Ctrl-C
            process.terminate()
            process.wait()
    progress = _progress(directory, plan.job.agent.learning_starts)
    if len(progress) >= 2:
        (early, first), (late, last) = progress[0], progress[-1]
        return Calibration(startup + (late - early) / (last - first), resident)
    if status == 0:
        return Calibration(elapsed, resident)
    why = f"logged too little in {CALIBRATION_SECONDS:g} s; choose a smaller trainer.log_frequency"
    if status is not None:
        why = f"ended with status {status}"
    printed = output.read_text(encoding="utf-8", errors="replace").strip()
    raise UserError(f"the calibration run {why}. Its output: {printed[-500:]}")


def _resident(pid: int) -> int:
    """Memory of a process in bytes; 0 if it has just ended."""
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


def _progress(directory: Path, learning_starts: int) -> list[tuple[float, float]]:
    """Elapsed seconds and the share of the budget used, for each log record since learning started."""
    path = directory / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    records: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("\n")]
    # The time left is unknown (null) until a part of the budget is used up.
    timed = [r for r in records if r.get("time/eta") is not None and r["step"] >= learning_starts]
    return [(r["time/elapsed"], r["time/elapsed"] / (r["time/elapsed"] + r["time/eta"])) for r in timed]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
