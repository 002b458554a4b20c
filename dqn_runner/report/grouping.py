"""Groups runs that differ only in their seeds, and names the groups by what differs."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqn_runner.core.exceptions import UserError
from dqn_runner.io.entries import is_file
from dqn_runner.report.configuration import shown
from dqn_runner.report.stored_run import StoredRun
from dqn_runner.run.compatibility import MACHINE, same_setting

_OF_RUN_AND_AGENT = ("seed", *MACHINE)
NOT_COMPARED = (
    *("mode", "resume", "trust", "threads"),
    *_OF_RUN_AND_AGENT,
    *(f"agent.{key}" for key in _OF_RUN_AND_AGENT),
)
"""Settings by which runs of one group may differ."""
SEEDS = ("seed", "agent.seed")
NOT_COMPARED_BELOW = ("logging.", "evaluator.", "checkpoint.", "study.", "export")
MOST_KEYS = 4
"""Settings in the name of a group."""
CHOICES = Path(".hydra") / "hydra.yaml"


@dataclass(frozen=True)
class Group:
    """Runs with the same configuration, but for their seeds."""

    label: str
    runs: tuple[StoredRun, ...]


def grouped(found: Sequence[tuple[Path, StoredRun]], by: str | None) -> list[Group]:
    """The runs in groups, in the order of their first runs.

    They are grouped by the setting `by`, or by all settings that differ between runs of the same environment.
    If there are none, runs with the same seed were given on purpose, and are grouped by their paths. Raises
    UserError if no run has the setting `by`.
    """
    runs = [run for _, run in found]
    if by is not None:
        values = [setting_of(run, by) for run in runs]
        if all(value is None for value in values):
            raise UserError(f"--by {by}: no run has this setting; give a key such as agent or agent.n_step")
        return _collect(runs, [value if value is not None else "not set" for value in values])
    differing = _differing(runs)
    identities = [tuple(shown(run.settings.get(key)) for key in differing) for run in runs]
    if not differing and len({(run.env, run.settings.get("seed")) for run in runs}) < len(runs):
        return _collect(runs, _path_names([path for path, _ in found]))
    if not differing:
        return [Group("all runs", tuple(runs))]
    return _collect(runs, _labels(runs, differing, identities))


def setting_of(run: StoredRun, key: str) -> str | None:
    """The value of a setting, or the option of a config group such as `agent`; None without either."""
    if key in run.settings:
        return shown(run.settings[key])
    if (chosen := _choices(run).get(key.replace(".", "/"))) is not None:
        return chosen
    given = dict(text.lstrip("+").split("=", 1) for text in run.overrides if "=" in text)
    target = run.settings.get(f"{key.replace('/', '.')}._target_")
    return given.get(key) or (str(target).rpartition("=")[2] if target is not None else None)


def _choices(run: StoredRun) -> dict[str, str]:
    """The options that Hydra composed the run of."""
    path = run.directory / CHOICES
    if not is_file(path):
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip() == "choices:"), len(lines) - 1)
    depth = len(lines[start]) - len(lines[start].lstrip()) if lines else 0
    below = itertools.takewhile(lambda line: line.startswith(" " * (depth + 1)), lines[start + 1 :])
    return {key: value for key, _, value in (line.strip().partition(": ") for line in below)}


def _differing(runs: Sequence[StoredRun]) -> list[str]:
    """The settings in which runs of the same environment differ."""
    by_env: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        by_env[run.env].append(run.settings)
    found: dict[str, None] = {}
    for settings in by_env.values():
        for key in {key: None for each in settings for key in each}:
            if key in NOT_COMPARED or key.startswith(NOT_COMPARED_BELOW):
                continue
            first = settings[0].get(key, ...)
            if not all(same_setting(each.get(key, ...), first) for each in settings):
                found[key] = None
    return list(found)


def _labels(runs: Sequence[StoredRun], differing: Sequence[str], identities: Sequence[Any]) -> list[str]:
    """A name for each run's group: by the overrides that differ, or else by the settings."""
    overrides = [_overrides(run) for run in runs]
    names = [
        key for key in {k: None for o in overrides for k in o} if len({o.get(key) for o in overrides}) > 1
    ]
    by_override = [_label(names, o.get) for o in overrides]
    by_setting = [_label(differing, _setting_text(run)) for run in runs]
    for labels in (by_override, by_setting):
        pairs = set(zip(labels, identities, strict=True))
        if len(pairs) == len(set(labels)) == len(set(identities)):
            return labels
    numbers = {identity: index for index, identity in enumerate(dict.fromkeys(identities), start=1)}
    return [f"configuration {numbers[identity]}" for identity in identities]


def _setting_text(run: StoredRun) -> Callable[[str], str | None]:
    return lambda key: shown(run.settings[key]) if key in run.settings else None


def _overrides(run: StoredRun) -> dict[str, str]:
    """The overrides of a run that may be in the name of a group."""
    pairs = (text.lstrip("+~").partition("=") for text in run.overrides)
    return {
        key: value
        for key, _, value in pairs
        if key not in NOT_COMPARED and not key.startswith(("env", "hydra", *NOT_COMPARED_BELOW))
    }


def _label(keys: Sequence[str], value_of: Callable[[str], str | None]) -> str:
    parts = [
        f"{key.rpartition('.')[2]}={value}" if "." in key else value
        for key in keys
        if (value := value_of(key)) is not None
    ]
    more = f" and {len(parts) - MOST_KEYS} more" if len(parts) > MOST_KEYS else ""
    return ", ".join(parts[:MOST_KEYS]) + more or "default"


def _path_names(paths: Sequence[Path]) -> list[str]:
    names = {path: path.resolve().name for path in paths}
    short = len(set(names.values())) == len(names)
    return [names[path] if short else str(path) for path in paths]


def repeated_seeds(group: Group) -> Iterator[str]:
    """The runs of a group that have the same settings, seed included: they are one sample."""
    ignored = {*NOT_COMPARED} - {*SEEDS}
    same: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for run in group.runs:
        settings = (
            f"{key}={value!r}"
            for key, value in sorted(run.settings.items())
            if key not in ignored and not key.startswith(NOT_COMPARED_BELOW)
        )
        same[tuple(settings)].append(str(run.directory))
    return (", ".join(directories) for directories in same.values() if len(directories) > 1)


def _collect(runs: Sequence[StoredRun], labels: Sequence[str]) -> list[Group]:
    groups: dict[str, list[StoredRun]] = defaultdict(list)
    for run, label in zip(runs, labels, strict=True):
        groups[label].append(run)
    return [Group(label, tuple(members)) for label, members in groups.items()]
