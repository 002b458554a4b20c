"""The results of a sweep, as files and as a table for the terminal."""

from __future__ import annotations

import shlex
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from optuna.study import Study
from optuna.trial import FrozenTrial

from dqn_runner.config.chosen_files import BEST_CONFIG, asks_for_trust
from dqn_runner.config.error_messages import explain
from dqn_runner.config.overrides import parse_overrides
from dqn_runner.config.schema import DEFAULT_CONFIG
from dqn_runner.core.exceptions import NoRoomError
from dqn_runner.core.log import log
from dqn_runner.io.files import make_directory, no_room_error, write_atomically
from dqn_runner.io.lock import exclusive_lock
from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.jobs import Command
from dqn_runner.sweep.names import RESULTS
from dqn_runner.sweep.plan import Plan
from dqn_runner.sweep.results.best_config import is_session_override, write_best_config
from dqn_runner.sweep.results.ranking import (
    completed,
    counts,
    env_steps,
    ranked,
    summary_of,
    validation_runs,
    values_of,
)
from dqn_runner.sweep.trial_record import RunState, TrialRecord

LOCK = ".results.lock"
MAX_ROWS = 10
"""The most trials in the table."""
WIDTH = 80


def write_results(study: Study, plan: Plan) -> None:
    """Write optimization_results.yaml and, for one objective, experiment/best_config.yaml.

    Call it within a Hydra run, whenever a trial ends. Threads and processes write one after the other. An
    invalid configuration file or a broken disk does not end the sweep; it is logged. Raises NoRoomError if
    the disk is full.
    """
    try:
        make_directory(plan.directory)
        with exclusive_lock(plan.directory / LOCK):
            _write(study, plan)
    except Exception as error:
        if full := no_room_error(error):
            raise NoRoomError(
                f"the results in {plan.directory} cannot be written ({full.strerror}); free disk space, and "
                "repeat the command to continue"
            ) from error
        message = str(error) if isinstance(error, OSError) else explain(error)
        if message is None:
            raise
        log.warning("the results in %s could not be updated: %s", plan.directory, message)


def table(study: Study, plan: Plan) -> str:
    """The best trials or the Pareto front, each with the command that runs it again, and the result."""
    settings, best = plan.settings, ranked(study, plan.settings)
    head = f"{plan.name}: {states(study, plan)}; {env_steps(study):,} env steps"
    shown = [_entry(trial, plan) for trial in best[:MAX_ROWS]]
    last = _result(study, best[0], plan) if best and len(settings.objectives) == 1 else ""
    parts = [_wrapped(head), *_failures(study), _heading(study, best, settings), *shown, last]
    return "\n\n".join(part for part in parts if part)


def states(study: Study, plan: Plan) -> str:
    """How many trials are in each state, as a text."""
    found = counts(study, plan.settings.n_trials).items()
    return ", ".join(f"{count} {state}" for state, count in found if count) or "no trials"


def rerun(trial: FrozenTrial, command: Command) -> str:
    """The command line that runs the first seed of a trial again, in another directory."""
    record = TrialRecord(trial)
    return shlex.join([*rerun_start(command), *record.overrides, f"seed={record.runs[0].seed}"])


def rerun_start(command: Command) -> list[str]:
    """What the commands that run trials again have in common."""
    fixed = [
        o
        for o in command.fixed
        if not is_session_override(o) and parse_overrides([o])[0].key_or_group != "seed"
    ]
    flags = [flag for flag in command.flags if flag != f"--config-name={DEFAULT_CONFIG}"]
    return ["python", "-m", "dqn_runner", *flags, *fixed, *command.search_path()]


def _write(study: Study, plan: Plan) -> None:
    best = ranked(study, plan.settings)
    content = OmegaConf.to_yaml(OmegaConf.create(_summary(study, best, plan)))
    write_atomically(plan.directory / RESULTS, content.encode())
    if not best:
        _best_config(plan).unlink(missing_ok=True)  # of a trial that was within the former constraints
    if not best or len(plan.settings.objectives) > 1:
        return
    trial = best[0]
    title = f"Trial {trial.number} of the study {plan.name}: {plan.settings.objectives[0]} {trial.value:g}."
    header = (title, rerun(trial, plan.command))
    different = write_best_config(plan.command, TrialRecord(trial).overrides, plan.directory, header)
    for line in different:
        log.warning("%s.yaml differs from trial %d: %s", BEST_CONFIG, trial.number, line)


def _summary(study: Study, best: Sequence[FrozenTrial], plan: Plan) -> dict[str, Any]:
    """The content of optimization_results.yaml; the first keys are those of hydra-optuna-sweeper."""
    settings = plan.settings
    found: dict[str, Any] = {"name": "optuna"}
    if len(settings.objectives) > 1:
        found["solutions"] = [
            {
                "params": t.params,
                "values": t.values,
                "trial": t.number,
                "directory": _directory(t, plan),
            }
            for t in best
        ]
    else:
        trial = best[0] if best else None
        found["best_params"] = trial and trial.params
        found["best_value"] = trial and trial.value
        found["best_trial"] = trial and trial.number
        found["best_directory"] = trial and _directory(trial, plan)
        if trial and (runs := validation_runs(study, trial, settings)):
            by_seed = {run.seed: values_of([run], settings.objectives[0]) for run in runs}
            finished = [value for values in by_seed.values() for value in values]
            per_seed = [values[0] if values else None for values in by_seed.values()]
            summary = summary_of(finished, settings)
            found["validation"] = {"seeds": list(by_seed), "values": per_seed, **summary}
    if not best:
        found["note"] = _why_none(study)
    seeds = [plan.seed + index for index in range(settings.seeds)]
    about = {"study": plan.name, "objective": settings.objectives, "direction": settings.directions}
    about |= {"seeds": seeds}
    return {**found, **about, "trials": counts(study, settings.n_trials), "env_steps": env_steps(study)}


def _why_none(study: Study) -> str:
    if completed(study):
        return "no completed trial satisfies hydra.sweeper.constraints"
    return "no trial has completed"


def _heading(study: Study, best: Sequence[FrozenTrial], settings: SweepConfig) -> str:
    if not best:
        return f"RESULT: none; {_why_none(study)}"
    names = ", ".join(
        f"{name} ({direction})"
        for name, direction in zip(settings.objectives, settings.directions, strict=True)
    )
    total = len(completed(study))
    if len(settings.objectives) > 1:
        which = f"The Pareto front, {len(best)} of {total}"
    else:
        which = f"The best {min(MAX_ROWS, len(best))} of {total}"
    more = f"; {MAX_ROWS} are shown" if len(settings.objectives) > 1 and len(best) > MAX_ROWS else ""
    seeds = [run.seed for run in TrialRecord(best[0]).runs]
    how = f", {settings.aggregate.value} of seeds {_listed(seeds)} ± standard deviation" if seeds[1:] else ""
    others = f" The commands run seed {seeds[0]}." if seeds[1:] else ""
    return _wrapped(f"{which} by {names}{how}{more}.{others}")


def _entry(trial: FrozenTrial, plan: Plan) -> str:
    """The number, values, settings and directory of a trial, and its command in one line."""
    record = TrialRecord(trial)
    values: list[str] = []
    for name, value in zip(plan.settings.objectives, trial.values, strict=True):
        spread = summary_of(values_of(record.runs, name), plan.settings).get("std")
        values.append(f"{name} {value:.6g}" + ("" if spread is None else f" ± {spread:.3g}"))
    lines = [f"trial {trial.number:<4} {', '.join(values)}", _wrapped("  ".join(record.overrides), "  ")]
    return "\n".join([*lines, f"  {_directory(trial, plan)}", f"  {rerun(trial, plan.command)}"])


def _result(study: Study, best: FrozenTrial, plan: Plan) -> str:
    """The result of the validation, or why it is missing, and the command of the best configuration."""
    experiment = ["--config-dir", str(plan.directory.absolute()), f"experiment={BEST_CONFIG}"]
    if _best_config(plan).exists() and asks_for_trust(experiment):
        experiment.append("trust=true")  # the user's own environment, for example
    command = shlex.join(["python", "-m", "dqn_runner", *experiment])
    result = _wrapped(f"RESULT: {_validated(study, best, plan.settings)}")
    return f"{result}\nThe best configuration:\n  {command}"


def _best_config(plan: Plan) -> Path:
    return plan.directory / "experiment" / f"{BEST_CONFIG}.yaml"


def _validated(study: Study, best: FrozenTrial, settings: SweepConfig) -> str:
    """The value of a trial on fresh seeds, or why it is not known."""
    number, name = f"trial {best.number}", settings.objectives[0]
    runs = validation_runs(study, best, settings)
    values = values_of(runs, name)
    diverged = len(runs) - len(values)
    if not settings.validate:
        return f"none; hydra.sweeper.validate=N runs {number} again with N fresh seeds"
    if len(runs) < settings.validate:
        return f"none yet; {len(runs)} of {settings.validate} validation runs of {number} have ended"
    if not values:
        return f"none; all {len(runs)} validation runs of {number} diverged"
    found = summary_of(values, settings)
    spread = f" ± {found['std']:.3g}" if "std" in found else ""
    without = f"; without {diverged} that diverged" if diverged else ""
    how = f"{settings.aggregate.value} over the fresh seeds {_listed([run.seed for run in runs])}{without}"
    return f"{number}, {name} {found[settings.aggregate.value]:.6g}{spread} ({how})"


def _directory(trial: FrozenTrial, plan: Plan) -> str | None:
    """Where the runs of a trial are: in this sweep, which may have been moved, or in another of the study."""
    here = plan.directory.absolute() / str(trial.number)
    return str(here) if here.is_dir() else TrialRecord(trial).directory


def _failures(study: Study) -> list[str]:
    """The reasons why trials failed, each once: those that differ by the directory of the trial are equal."""
    reasons: dict[str, list[int]] = defaultdict(list)
    first: dict[str, str] = {}
    for trial in study.get_trials(deepcopy=False):
        record = TrialRecord(trial)
        if (reason := record.reason(RunState.FAILED)) is not None:
            key = reason.replace(str(record.directory), "")
            first.setdefault(key, reason)
            reasons[key].append(trial.number)
    return [_wrapped(f"failed: trial {_listed(numbers)}: {first[key]}") for key, numbers in reasons.items()]


def _listed(numbers: Sequence[int]) -> str:
    """Numbers as a text; consecutive ones as `first to last`."""
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 2 and list(numbers) == list(range(first, last + 1)):
        return f"{first} to {last}"
    return ", ".join(map(str, numbers))


def _wrapped(text: str, indent: str = "") -> str:
    options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent, **options)
