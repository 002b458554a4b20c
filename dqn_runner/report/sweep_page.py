"""The report of a sweep, from its study alone, also while it runs."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dqn_runner.config.chosen_files import BEST_CONFIG
from dqn_runner.core.secrets import redact
from dqn_runner.io.files import write_atomically
from dqn_runner.report.charts import Chart
from dqn_runner.report.configuration import shown
from dqn_runner.report.pages import render
from dqn_runner.report.sweep_charts import history_chart, parallel_coordinates, pareto_charts, slices
from dqn_runner.statistics.aggregates import iqm, mean
from dqn_runner.statistics.bootstrap import Estimate, estimate
from dqn_runner.sweep.names import REPORT
from dqn_runner.sweep.objectives import Aggregate
from dqn_runner.sweep.results.ranking import env_steps, values_of
from dqn_runner.sweep.results.stored_sweep import (
    StoredSweep,
    failures,
    importances,
    reason_of,
    savings,
    state_of,
    stored_sweep,
)
from dqn_runner.sweep.trial_record import TrialRecord

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

OVER = ("complete", "pruned", "diverged", "failed")


@dataclass(frozen=True)
class Result:
    """The result of a sweep with one objective."""

    trial: int
    selected: float
    """The value by which the trial was selected, which is optimistic."""
    seeds: list[int]
    validated: Estimate | None
    """On fresh seeds; None without validation, or if all of its runs diverged."""
    fresh_seeds: list[int]
    diverged: int
    """Validation runs that diverged."""


@dataclass(frozen=True)
class TrialRow:
    """A trial in the table."""

    number: int
    state: str
    values: list[float | None]
    curve: list[float]
    parameters: list[str]
    env_steps: float | None
    seconds: float | None
    reason: str
    command: str


@dataclass(frozen=True)
class Failure:
    """Trials that ended for the same reason."""

    reason: str
    trials: list[int]
    traceback: str


def write_page(study: Study, directory: Path) -> None:
    """Write the report of a study to the directory of its sweep."""
    write_atomically(directory / REPORT, sweep_page(study, directory).encode())


def sweep_page(study: Study, directory: Path, live: bool = False) -> str:
    """The report of a study as one HTML page; raises UserError for one that lacks what a report needs."""
    sweep = stored_sweep(study)
    importance = importances(sweep)
    counts = Counter(state_of(trial) for trial in sweep.trials)
    return render(
        "sweep.html.j2",
        charts=sweep_charts(sweep, importance),
        live=live,
        title=study.study_name,
        directory=str(directory.absolute()),
        objectives=list(zip(sweep.settings.objectives, sweep.settings.directions, strict=True)),
        result=result_of(sweep),
        front=[_row(sweep, trial) for trial in sweep.best] if len(sweep.settings.objectives) > 1 else [],
        aggregate=sweep.settings.aggregate.value,
        counts={state: counts[state] for state in (*OVER, "running", "waiting") if counts[state]},
        finished=sum(counts[state] for state in OVER),
        n_trials=max(sweep.settings.n_trials, len(sweep.trials)),
        env_steps=env_steps(study),
        savings=savings(sweep),
        importance=list(importance.items()),
        parameters=list(sweep.parameters),
        rows=[_row(sweep, trial) for trial in sweep.trials],
        failures=[_failure(reason, trials) for reason, trials in failures(sweep)],
        command=best_command(directory),
        constraints=sweep.settings.constraints,
    )


def sweep_charts(sweep: StoredSweep, importance: dict[str, float]) -> list[Chart]:
    """All charts of the page."""
    parallel = parallel_coordinates(sweep)
    return [
        *pareto_charts(sweep),
        history_chart(sweep),
        *([parallel] if parallel else []),
        *slices(sweep, importance),
    ]


def result_of(sweep: StoredSweep) -> Result | None:
    """The best trial, and its validation; None before a trial has completed, or with several objectives."""
    objectives = sweep.settings.objectives
    if not sweep.best or len(objectives) > 1:
        return None
    best, runs = sweep.best[0], sweep.validation()
    values = [value for value in values_of(runs, objectives[0]) if np.isfinite(value)]
    how = mean if sweep.settings.aggregate is Aggregate.mean else iqm
    return Result(
        trial=best.number,
        selected=best.values[0],
        seeds=[run.seed for run in TrialRecord(best).runs],
        validated=estimate(values, how, resamples=10_000) if values else None,
        fresh_seeds=[run.seed for run in runs],
        diverged=len(runs) - len(values),
    )


def best_command(directory: Path) -> str:
    """The command that trains with the best configuration; empty before there is one."""
    if not (directory / "experiment" / f"{BEST_CONFIG}.yaml").is_file():
        return ""
    where = str(directory.absolute())
    return shlex.join(["python", "-m", "dqn_runner", "--config-dir", where, f"experiment={BEST_CONFIG}"])


def _row(sweep: StoredSweep, trial: FrozenTrial) -> TrialRow:
    record = TrialRecord(trial)
    runs = record.runs
    state = state_of(trial)
    values: list[float | None] = [*trial.values] if state == "complete" and trial.values else []
    steps = [run.metrics["env_steps"] for run in runs if "env_steps" in run.metrics]
    seconds = [run.metrics["seconds"] for run in runs if "seconds" in run.metrics]
    overrides = record.overrides if record.has_overrides else []
    words = [*sweep.command_start, *overrides, f"seed={sweep.first_seed}"]
    return TrialRow(
        number=trial.number,
        state=state,
        values=values or [None] * len(sweep.settings.objectives),
        curve=[trial.intermediate_values[step] for step in sorted(trial.intermediate_values)],
        parameters=[_parameter(trial.params, name) for name in sweep.parameters],
        env_steps=sum(steps) if steps else None,
        seconds=sum(seconds) if seconds else None,
        reason=redact(reason_of(trial)),
        command=redact(shlex.join(words)) if overrides else "",
    )


def _parameter(params: dict[str, Any], name: str) -> str:
    value = params.get(name, "")
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def _failure(reason: str, trials: list[FrozenTrial]) -> Failure:
    tracebacks = (TrialRecord(trial).traceback for trial in trials)
    return Failure(
        redact(reason), [trial.number for trial in trials], redact(next((t for t in tracebacks if t), ""))
    )
