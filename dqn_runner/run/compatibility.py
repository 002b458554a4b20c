"""Which settings cannot change when a run resumes, and whether a checkpoint belongs to a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, cast

from dqn_runner.core.registry import TARGET, with_defaults

Leaf = tuple[str, ...]
"""Path of a value in a nested configuration."""

SESSION_KEYS = ("mode", "resume", "trust", "checkpoint", "export", "study")
"""Top-level settings of a single command, which are not part of the configuration of the run."""

IMMUTABLE: tuple[tuple[Leaf, str], ...] = (
    (("env",), "the stored weights and replay belong to this environment"),
    (("seed",), "everything random in the run derives from it"),
    (("agent", "seed"), "everything random in the run derives from it"),
    (("agent", "network"), "the stored weights have the shape of this network"),
    (("agent", "optimizer", TARGET), "the stored moments belong to this optimizer"),
    (("agent", "replay", "preload"), "the stored replay began with these transitions"),
    (("agent", "replay", "demonstrations"), "the stored replay was divided by it"),
    (("agent", "replay"), "the stored replay has this size"),
    (("agent", "n_step"), "the stored transitions have this many steps"),
    (("agent", "gamma"), "the stored transitions are discounted by it"),
    (("trainer", "frequency_unit"), "the frequency unit of a run cannot change"),
)
"""Settings that cannot change when a run resumes, and why."""

MACHINE = ("compile", "device")
"""Settings of a run and of its agent that fit the machine; a script may change them, and the run says so."""
HARMLESS = (("env", "reward_threshold"), ("env", "info_metrics"))
"""Settings below `env` that may change: they do not affect the behaviour of the environment."""


def leaves(config: Mapping[str, Any], prefix: Leaf = ()) -> dict[Leaf, Any]:
    """Flatten a plain configuration: path to value. Empty mappings count as values."""
    found: dict[Leaf, Any] = {}
    for key, value in config.items():
        path = (*prefix, key)
        if isinstance(value, Mapping) and value:
            found.update(leaves(value, path))  # pyright: ignore[reportUnknownArgumentType]
        else:
            found[path] = value
    return found


def same_setting(one: Any, other: Any) -> bool:
    """Whether two values of a setting are equal; unlike `==`, also if they are or contain NaN."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, list) and isinstance(other, list):
        pairs = zip_longest(cast("list[Any]", one), cast("list[Any]", other), fillvalue=...)
        return all(same_setting(*pair) for pair in pairs)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        ours, theirs = cast("Mapping[Any, Any]", one), cast("Mapping[Any, Any]", other)
        return ours.keys() == theirs.keys() and all(same_setting(ours[key], theirs[key]) for key in ours)
    return bool(one == other)


def changes(old: Mapping[Leaf, Any], new: Mapping[Leaf, Any]) -> list[str]:
    """List the settings that differ between two flat configurations, as `key: old -> new`."""
    return [f"{'.'.join(path)}: {_show(old, path)} -> {_show(new, path)}" for path in _differing(old, new)]


def incompatible_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the changes from `old` to `new` that a resume cannot make, as (`seed from 1 to 0`, reason).

    Settings that the program did not have when `old` was stored have their defaults.
    """
    before, after = leaves(with_defaults(old)), leaves(with_defaults(new))
    for path in _differing(before, after):
        for fixed, why in IMMUTABLE:
            if path[: len(fixed)] == fixed and path not in HARMLESS:
                yield f"{'.'.join(path)} from {_show(before, path)} to {_show(after, path)}", why
                break


def mismatch(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """Return why a checkpoint with the source `theirs` is not of the run with `ours`; None if it may be.

    The source of a run contains the `config` that the program composed, or the `agent` that a script built;
    two runs of which one is of a script are compared by their agents.
    """
    if "config" in ours and "config" in theirs:
        change = next(incompatible_changes(theirs["config"], ours["config"]), None)
        return f"resuming from it would change {change[0]}" if change else None
    before, after = (leaves({"agent": with_defaults(agent_of(source))}) for source in (theirs, ours))
    allowed = tuple(f"agent.{key}: " for key in MACHINE)
    found = [line for line in changes(before, after) if not line.startswith(allowed)]
    return f"its agent differs: {'; '.join(found)}" if found else None


def agent_of(source: Mapping[str, Any]) -> Any:
    """The settings of the agent in the source of a run (`mismatch`)."""
    return source.get("config", source).get("agent")


def _differing(old: Mapping[Leaf, Any], new: Mapping[Leaf, Any]) -> list[Leaf]:
    paths = [*new, *(path for path in old if path not in new)]
    compared = [path for path in paths if path[0] not in SESSION_KEYS]
    return [path for path in compared if not same_setting(old.get(path, ...), new.get(path, ...))]


def _show(config: Mapping[Leaf, Any], path: Leaf) -> str:
    value = config.get(path, "(absent)")
    return "null" if value is None else str(value)
