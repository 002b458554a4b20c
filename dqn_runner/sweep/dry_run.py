"""What a sweep would take: how many runs, how long, how much memory and disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig

from dqn_runner.config.build import build_trainer
from dqn_runner.config.schema import RunConfig
from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.jobs import Command
from dqn_runner.sweep.plan import Plan
from dqn_runner.training.resources import ResourceEstimate, estimate_resources, format_bytes

CALIBRATION = 60.0
"""Seconds after which the calibration run has said enough, however slow it is."""
RECORDS = 3
"""So many log records from the time when the agent learns are enough earlier."""


class Calibration(NamedTuple):
    """What one run takes."""

    seconds: float
    """From its start to the end of its budget; a run that reaches its target earlier takes less."""
    resident: int
    """Bytes of memory of its process, as the run begins."""


def estimate(plan: Plan) -> str:
    """A text that says what `plan` would take, after a short run of its first proposal."""
    settings = plan.settings
    runs = settings.n_trials * settings.seeds + settings.validate
    with tempfile.TemporaryDirectory() as folder:
        size = _footprint(plan.job, Path(folder) / "size")
        one = _calibrate(plan, Path(folder) / "run")
    at_once = min(settings.n_jobs, runs)
    time_each, memory, disk = _duration(one.seconds), one.resident + size.memory, size.disk
    trials = f"{settings.n_trials} trials of {settings.seeds} seed(s)"
    validation = f" and {settings.validate} to validate the best" if settings.validate else ""
    less = "; pruning makes it less" if settings.prunes else ""
    return "\n".join(
        [
            f"runs    {runs}: {trials}{validation}, {at_once} at once on {os.cpu_count()} cores",
            f"time    {_duration(runs / at_once * one.seconds)} at most: {time_each} for a run that uses up "
            f"its budget, measured with one alone{less}",
            f"memory  {format_bytes(at_once * memory)}: {at_once} times {format_bytes(one.resident)} and a "
            f"replay of up to {format_bytes(size.memory)}",
            f"disk    {format_bytes(runs * disk)} at most: {runs} times {format_bytes(disk)} of checkpoints",
            "nothing was started; without dry_run it is",
        ]
    )


def _footprint(job: DictConfig, directory: Path) -> ResourceEstimate:
    run: RunConfig = instantiate({k: v for k, v in job.items() if k != "hydra"}, _convert_="object")
    trainer = build_trainer(run, directory, {}, None)
    spec = trainer.collector.envs.spec
    return estimate_resources(trainer.agent.config, trainer.config, spec, trainer.agent.num_bytes())


def _calibrate(plan: Plan, directory: Path) -> Calibration:
    """Run a job of the plan until it has logged what its pace is."""
    fixed = [override for override in plan.command.fixed if not override.startswith("logging")]
    command = Command(plan.command.flags, tuple(fixed), plan.command.hydra, "basic")
    arguments = command.job([*plan.proposal, "logging=[jsonl]"], directory)
    output = directory.with_name("output")
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "dqn_runner", *arguments], stdout=file, stderr=subprocess.STDOUT
        )
        begun, starting = time.monotonic(), 0.0
        try:
            while process.poll() is None and time.monotonic() - begun < CALIBRATION:
                progress = _progress(directory, plan.job.agent.learning_starts)
                if progress and not starting:
                    starting = time.monotonic() - begun - progress[-1][0]
                if len(progress) >= RECORDS:
                    break
                time.sleep(0.2)
        finally:  # Ctrl-C must not leave it behind
            process.send_signal(signal.SIGTERM)
            process.wait()
    progress = _progress(directory, plan.job.agent.learning_starts)
    if len(progress) < 2:
        raise UserError(
            f"the calibration run logged too little in {CALIBRATION:g} s to tell its pace; choose a smaller "
            f"trainer.log_frequency. It said: {output.read_text().strip()[-500:]}"
        )
    (early, first), (late, last) = progress[0], progress[-1]
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return Calibration(starting + (late - early) / (last - first), memory)


def _progress(directory: Path, learning_starts: int) -> list[tuple[float, float]]:
    """Elapsed seconds and the share of the budget used up, of each log record since learning began."""
    path = directory / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    records: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("\n")]
    timed = [r for r in records if "time/eta" in r and r["step"] >= learning_starts]
    return [(r["time/elapsed"], r["time/elapsed"] / (r["time/elapsed"] + r["time/eta"])) for r in timed]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
