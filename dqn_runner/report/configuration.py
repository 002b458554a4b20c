"""The configuration of a run beside the defaults, and the command that continues it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqn_runner.config import trust
from dqn_runner.config.defaults import default_config
from dqn_runner.core.registry import TARGET, class_of, with_defaults
from dqn_runner.run.compatibility import MACHINE, Leaf, leaves

NOT_SHOWN = ("resume", "trust", "checkpoint", "study")
FOLLOWERS: Mapping[Leaf, Leaf] = {("agent", key): (key,) for key in ("seed", *MACHINE)}
"""Settings that by default have the value of another one."""
_BUDGET = re.compile(r"(trainer\.max_(?:steps|episodes))=(\d+) reached")


@dataclass(frozen=True)
class Setting:
    """A setting of a run."""

    key: str
    value: str
    default: str | None
    """The default if it differs; None if the setting has it."""


def settings_of(config: Mapping[str, Any]) -> list[Setting]:
    """Every setting of a configuration, compared with the defaults of the program."""
    ours = {path: value for path, value in leaves(config).items() if path[0] not in NOT_SHOWN}
    theirs = _defaults(config)
    found: list[Setting] = []
    for path, value in ours.items():
        default = theirs.get(path, ...)
        followed = FOLLOWERS.get(path)
        same = value == default or (followed is not None and value == ours.get(followed))
        text = None if same else "no such setting" if default is ... else shown(default)
        found.append(Setting(".".join(path), shown(value), text))
    return found


def shown(value: Any) -> str:
    """A value as YAML writes it in one line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def continue_command(directory: Path, config: Mapping[str, Any], finished: str | None) -> str:
    """The command that continues a run; one that is over gets a larger budget, or no target."""
    words = ["python", "-m", "dqn_runner", f"resume={directory.resolve()}"]
    if finished is not None and (match := _BUDGET.search(finished)):
        words.append(f"{match[1]}={2 * int(match[2])}")
    elif finished is not None and "trainer.target_return" in finished:
        words.append("trainer.target_return=null")
    elif finished is not None and "trainer.patience" in finished:
        words.append("trainer.early_stopping=false")
    if _asks_for_trust(config):
        words.append("trust=true")
    return shlex.join(words)


def _asks_for_trust(config: Mapping[str, Any]) -> bool:
    return bool(trust.in_tree(dict(config)))


def _defaults(config: Mapping[str, Any]) -> dict[Leaf, Any]:
    """The settings of a run with the same budget and without overrides.

    The parts that the run has chosen instead of the default ones are compared with their own defaults.
    """
    steps = leaves(config).get(("trainer", "max_steps"))
    return leaves(_merged(config, default_config(steps if isinstance(steps, int) else None)))


def _merged(ours: Any, theirs: Any) -> Any:
    """`theirs`, with the defaults of the class of `ours` where it is another one."""
    if not isinstance(ours, Mapping):
        return theirs
    settings: dict[str, Any] = {**ours}
    known: dict[str, Any] = {**theirs} if isinstance(theirs, Mapping) else {}
    target = settings.get(TARGET)
    if target != known.get(TARGET) and class_of(str(target)) is not None:
        known = {**with_defaults({TARGET: target}), TARGET: known.get(TARGET)}
    return {key: _merged(value, known[key]) for key, value in settings.items() if key in known}
