"""What a sweep leaves behind and says in the end: its results as files, and as a table for the screen."""

from __future__ import annotations

import fcntl
import os
import shlex
import textwrap
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from optuna.study import Study
from optuna.trial import FrozenTrial

from dqn_runner.config.error_messages import explain
from dqn_runner.config.overrides import parse_overrides
from dqn_runner.core.log import log
from dqn_runner.io.files import make_directory, write_atomically
from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.jobs import Command
from dqn_runner.sweep.plan import Plan
from dqn_runner.sweep.results.best_config import (
    NAME,
    PRIMARY,
    is_about_the_session,
    search_path,
    write_best_config,
)
from dqn_runner.sweep.results.ranking import (
    completed,
    counts,
    env_steps,
    ranked,
    runs_of,
    summary_of,
    validation_of,
    values_of,
)
from dqn_runner.sweep.trial_queue import DIRECTORY, OVERRIDES

RESULTS = "optimization_results.yaml"
SHOWN = 10
"""Trials in the table."""
WIDTH = 80


def write_results(study: Study, plan: Plan) -> None:
    """Write optimization_results.yaml and, for one objective, experiment/best_config.yaml.

    To be called within a Hydra run, whenever something new is known; by one of several threads or processes
    at a time. A disk that is full or a configuration that was broken meanwhile ends no sweep: it is logged.
    """
    try:
        make_directory(plan.directory)
        with _alone(plan.directory):
            _write(study, plan)
    except Exception as error:
        message = str(error) if isinstance(error, OSError) else explain(error)
        if message is None:
            raise
        log.warning("the results in %s could not be brought up to date: %s", plan.directory, message)


def table(study: Study, plan: Plan) -> str:
    """The best trials, or the Pareto front, each with the command that runs it again; and the result."""
    settings, best = plan.settings, ranked(study, plan.settings)
    states = ", ".join(f"{count} {state}" for state, count in counts(study).items() if count)
    head = f"{plan.name}: {states or 'no trials'}; {env_steps(study):,} env steps"
    shown = [_entry(trial, plan) for trial in best[:SHOWN]]
    last = _verdict(study, best[0], plan) if best and len(settings.objectives) == 1 else ""
    parts = [_wrapped(head), *_failures(study), _heading(study, best, settings), *shown, last]
    return "\n\n".join(part for part in parts if part)


def rerun(trial: FrozenTrial, command: Command) -> str:
    """The command line that runs a trial's first seed again, in a directory of its own."""
    fixed = [
        o
        for o in command.fixed
        if not is_about_the_session(o) and parse_overrides([o])[0].key_or_group != "seed"
    ]
    seed = [f"seed={runs_of(trial)[0]['seed']}"]
    overrides = [*fixed, *search_path(command), *trial.user_attrs[OVERRIDES], *seed]
    flags = [flag for flag in command.flags if flag != f"--config-name={PRIMARY}"]
    return shlex.join(["python", "-m", "dqn_runner", *flags, *overrides])


def _write(study: Study, plan: Plan) -> None:
    best = ranked(study, plan.settings)
    content = OmegaConf.to_yaml(OmegaConf.create(_summary(study, best, plan)))
    write_atomically(plan.directory / RESULTS, content.encode())
    if not best or len(plan.settings.objectives) > 1:
        return
    trial = best[0]
    title = f"Trial {trial.number} of the study {plan.name}: {plan.settings.objectives[0]} {trial.value:g}."
    header = (title, rerun(trial, plan.command))
    different = write_best_config(plan.command, trial.user_attrs[OVERRIDES], plan.directory, header)
    for line in different:
        log.warning("%s.yaml cannot say what trial %d had: %s", NAME, trial.number, line)


def _summary(study: Study, best: Sequence[FrozenTrial], plan: Plan) -> dict[str, Any]:
    """The content of optimization_results.yaml; the first keys are those of hydra-optuna-sweeper."""
    settings = plan.settings
    found: dict[str, Any] = {"name": "optuna"}
    if len(settings.objectives) > 1:
        found["solutions"] = [
            {"params": t.params, "values": t.values, "trial": t.number, DIRECTORY: t.user_attrs[DIRECTORY]}
            for t in best
        ]
    else:
        trial = best[0] if best else None
        found["best_params"] = trial and trial.params
        found["best_value"] = trial and trial.value
        found["best_trial"] = trial and trial.number
        found["best_directory"] = trial and trial.user_attrs[DIRECTORY]
        if trial and (runs := validation_of(study, trial, settings)):
            by_seed = {run["seed"]: values_of([run], settings.objectives[0]) for run in runs}
            values = [value for found in by_seed.values() for value in found]
            listed = [found[0] if found else None for found in by_seed.values()]
            validation = {"seeds": list(by_seed), "values": listed, **summary_of(values, settings)}
            found["validation"] = validation
    if not best:
        found["note"] = _why_none(study)
    about = {"study": plan.name, "objective": settings.objectives, "direction": settings.directions}
    return {**found, **about, "trials": counts(study), "env_steps": env_steps(study)}


def _why_none(study: Study) -> str:
    if completed(study):
        return "no trial that completed keeps to hydra.sweeper.constraints"
    return "no trial has completed"


def _heading(study: Study, best: Sequence[FrozenTrial], settings: SweepConfig) -> str:
    if not best:
        return f"There is no best trial: {_why_none(study)}."
    names = ", ".join(
        f"{name} ({direction})"
        for name, direction in zip(settings.objectives, settings.directions, strict=True)
    )
    total = len(completed(study))
    if len(settings.objectives) > 1:
        which = f"No other trial beats these {len(best)} of {total}"
    else:
        which = f"The best {min(SHOWN, len(best))} of {total}"
    more = f"; {SHOWN} are shown" if len(settings.objectives) > 1 and len(best) > SHOWN else ""
    seeds = [run["seed"] for run in runs_of(best[0])]
    how = f", {settings.aggregate.value} of seeds {_listed(seeds)} ± standard deviation" if seeds[1:] else ""
    others = f" The commands run seed {seeds[0]}." if seeds[1:] else ""
    return _wrapped(f"{which} by {names}{how}{more}.{others}")


def _entry(trial: FrozenTrial, plan: Plan) -> str:
    """A trial's number, values, settings, directory, and its command in one line to be copied."""
    values: list[str] = []
    for name, value in zip(plan.settings.objectives, trial.values, strict=True):
        spread = summary_of(values_of(runs_of(trial), name), plan.settings).get("std")
        values.append(f"{name} {value:.6g}" + ("" if spread is None else f" ± {spread:.3g}"))
    overrides: list[str] = trial.user_attrs[OVERRIDES]
    lines = [f"trial {trial.number:<4} {', '.join(values)}", _wrapped("  ".join(overrides), "  ")]
    return "\n".join([*lines, f"  {trial.user_attrs[DIRECTORY]}", f"  {rerun(trial, plan.command)}"])


def _verdict(study: Study, best: FrozenTrial, plan: Plan) -> str:
    """What the sweep comes to, and the command that runs it."""
    settings, name = plan.settings, plan.settings.objectives[0]
    runs = validation_of(study, best, settings)
    values = values_of(runs, name)
    lines: list[str] = []
    if values:
        summary = summary_of(values, settings)
        spread = f" ± {summary['std']:.3g}" if "std" in summary else ""
        result = f"{summary[settings.aggregate.value]:.6g}{spread}"
        seeds = _listed([run["seed"] for run in runs])
        lost = len(runs) - len(values)
        without = f"; {lost} of them diverged and are left out" if lost else ""
        how = f"{settings.aggregate.value} over the fresh seeds {seeds}{without}"
        lines.append(_wrapped(f"RESULT: trial {best.number}, {name} {result} ({how})"))
    elif runs:
        lines.append(
            _wrapped(f"RESULT: none; all {len(runs)} runs that validate trial {best.number} diverged")
        )
    experiment = ["--config-dir", str(plan.directory.absolute()), f"experiment={NAME}"]
    return "\n".join(
        [*lines, "The best configuration:", f"  {shlex.join(['python', '-m', 'dqn_runner', *experiment])}"]
    )


def _failures(study: Study) -> list[str]:
    """Why trials failed: each reason once."""
    reasons: dict[str, list[int]] = defaultdict(list)
    for trial in study.get_trials(deepcopy=False):
        if "error" in trial.user_attrs:
            reasons[trial.user_attrs["error"]].append(trial.number)
    return [_wrapped(f"failed: trial {_listed(numbers)}: {reason}") for reason, numbers in reasons.items()]


def _listed(numbers: Sequence[int]) -> str:
    """Numbers in words that fit a line: runs of neighbours by their ends."""
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 2 and list(numbers) == list(range(first, last + 1)):
        return f"{first} to {last}"
    return ", ".join(map(str, numbers))


def _wrapped(text: str, indent: str = "") -> str:
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent, **options)


@contextmanager
def _alone(directory: Path) -> Generator[None]:
    """Wait for the other threads and processes that are in here for the same directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
