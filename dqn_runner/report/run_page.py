"""The report of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dqn_runner.core.secrets import redact, redact_argument
from dqn_runner.report.configuration import continue_command, settings_of
from dqn_runner.report.episode import greedy_episode
from dqn_runner.report.pages import UNKNOWN, moment, render
from dqn_runner.report.records import EVAL
from dqn_runner.report.run_charts import curves, timeline_chart
from dqn_runner.report.stored_run import RUNNING, StoredRun, texts
from dqn_runner.run.timeline import ENDED, FAILED, KILLED, RESUME, SAVED, START, Happening
from dqn_runner.statistics.aggregates import mean
from dqn_runner.statistics.bootstrap import estimate

HOW = {ENDED: "ended", FAILED: "failed", KILLED: "killed"}


@dataclass(frozen=True)
class Score:
    """A mean return with its 95 % interval."""

    label: str
    mean: float
    low: float
    high: float
    note: str


@dataclass(frozen=True)
class SessionRow:
    """One session of a run, for the table."""

    began: str
    ended: str
    seconds: float | None
    first_step: int | None
    last_step: int | None
    checkpoints: int
    how: str
    command: str
    changes: list[str]


def run_page(run: StoredRun, live: bool = False) -> str:
    """The report of a run as one HTML page."""
    history = run.history
    timeline = timeline_chart(run.timeline, history.env_steps)
    settings = settings_of(run.config)
    return render(
        "run.html.j2",
        charts=[*curves(history), *([timeline] if timeline else [])],
        live=live,
        title=run.name,
        run=run,
        history=history,
        scores=scores(run),
        command=continue_command(run.directory, run.config, history.finished),
        sessions=session_rows(run),
        episode=greedy_episode(run.directory),
        settings=settings,
        different=[setting for setting in settings if setting.default is not None],
        provenance=provenance(run.sessions),
        warnings=run.warnings(),
    )


def scores(run: StoredRun) -> list[Score]:
    """The score of the run first: of `mode=eval` if there is one, and those of its own evaluations."""
    found: list[Score] = []
    if result := run.evaluation:
        low, high = map(float, result["return_ci95"] or (np.nan, np.nan))
        note = (
            f"{result.get('episodes', '?')} greedy episodes of mode=eval, checkpoint of step {result['step']}"
        )
        found.append(Score("score", float(result["return_mean"]), low, high, note))
    steps, means = run.history.tables[EVAL]["step"], run.history.column(EVAL, "return_mean")
    known = np.flatnonzero(np.isfinite(means))
    if len(known):
        last, best = known[-1], known[np.argmax(means[known])]
        where = f"greedy policy at env step {int(steps[last]):,}"
        found.append(_of_evaluation(run, "last evaluation", int(steps[last]), float(means[last]), where))
        where = f"at env step {int(steps[best]):,}; the highest of {len(known)}, so it is optimistic"
        found.append(_of_evaluation(run, "best evaluation", int(steps[best]), float(means[best]), where))
    return found


def _of_evaluation(run: StoredRun, label: str, step: int, value: float, note: str) -> Score:
    """The mean of an evaluation, with an interval if the returns of its episodes are known."""
    returns = run.history.eval_returns.get(step)
    if not returns or not np.isfinite(returns).all():
        return Score(label, value, np.nan, np.nan, note)
    found = estimate(np.asarray(returns), mean, resamples=10_000)
    return Score(label, found.value, found.low, found.high, f"{len(returns)} episodes, {note}")


def session_rows(run: StoredRun) -> list[SessionRow]:
    """The sessions of a run: from its timeline, with the commands that run.json records."""
    groups: list[list[Happening]] = []
    for event in run.timeline:
        if event.event in (START, RESUME) or not groups:
            groups.append([])
        groups[-1].append(event)
    records = list(run.sessions)[-len(groups) :] if groups else list(run.sessions)
    rows: list[SessionRow] = []
    for index in range(max(len(groups), len(records))):
        record: Mapping[str, Any] = records[index] if index < len(records) else {}
        rows.append(_row(groups[index] if index < len(groups) else [], record, run.state == RUNNING))
    return rows


def _row(events: Sequence[Happening], record: Mapping[str, Any], running: bool) -> SessionRow:
    last = events[-1] if events else None
    over = last is not None and last.event in HOW
    steps = [event.step for event in events if event.step is not None]
    how = HOW.get(last.event, "running" if running else "killed") if last else "not recorded"
    return SessionRow(
        began=moment(events[0].time) if events else str(record.get("started", UNKNOWN)),
        ended=moment(last.time) if last and over else UNKNOWN,
        seconds=last.time - events[0].time if last and over else None,
        first_step=steps[0] if steps else None,
        last_step=steps[-1] if steps else None,
        checkpoints=sum(event.event == SAVED for event in events),
        how=how,
        command=command_of(record),
        changes=[redact(change) for change in texts(record.get("changes"))],
    )


def command_of(record: Mapping[str, Any]) -> str:
    """The command line of a session, without secrets."""
    return shlex.join(map(redact_argument, texts(record.get("command"))))


def provenance(sessions: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Where the last session came from, as pairs of a name and a text."""
    if not sessions:
        return []
    last = sessions[-1]
    git, hardware, packages = (_mapping(last.get(key)) for key in ("git", "hardware", "packages"))
    changed = bool(git.get("diff")) or bool(git.get("untracked"))
    commit = f"{git['commit']}{' with changes that are not committed' if changed else ''}" if git else "none"
    names = ("dqn_runner", "torch", "gymnasium", "numpy", "hydra-core", "optuna")
    found = {
        "started": last.get("started"),
        "directory": last.get("directory"),
        "command": command_of(last),
        "configuration": last.get("config_hash"),
        "git commit": commit,
        "packages": ", ".join(f"{name} {packages[name]}" for name in names if name in packages),
        **{key: hardware.get(key) for key in ("host", "platform", "python", "processor", "cores")},
        "GPUs": ", ".join(map(str, hardware.get("gpus") or [])) or "none",
    }
    return [(name, redact(str(text))) for name, text in found.items() if text not in (None, "")]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}  # pyright: ignore[reportUnknownVariableType]
