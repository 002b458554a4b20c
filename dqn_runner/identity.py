"""What makes a run the run that it is: the settings that cannot change while it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Leaf = tuple[str, ...]

SESSION_KEYS = ("mode", "resume", "checkpoint", "study")
"""What a command asks of a stored run; not part of its configuration."""

FIXED: tuple[tuple[Leaf, str], ...] = (
    (("env",), "the stored weights and replay belong to this environment"),
    (("seed",), "everything random in the run derives from it"),
    (("agent", "seed"), "everything random in the run derives from it"),
    (("agent", "network"), "the stored weights have the shape of this network"),
    (("agent", "optimizer", "_target_"), "the stored moments belong to this optimizer"),
    (("agent", "replay"), "the stored replay has this size"),
    (("agent", "n_step"), "the stored transitions have this many steps"),
    (("agent", "gamma"), "the stored transitions are discounted by it"),
    (("trainer", "unit"), "the run's clock cannot change"),
)
"""What cannot change while a run goes on, and why."""

THRESHOLD = ("env", "reward_threshold")
"""The one setting of an environment that is not about its behaviour."""


def leaves(config: Mapping[str, Any], prefix: Leaf = ()) -> dict[Leaf, Any]:
    """Every value of a plain configuration by its path; empty mappings count as values."""
    found: dict[Leaf, Any] = {}
    for key, value in config.items():
        path = (*prefix, key)
        if isinstance(value, Mapping) and value:
            found.update(leaves(value, path))  # pyright: ignore[reportUnknownArgumentType]
        else:
            found[path] = value
    return found


def changes(old: Mapping[Leaf, Any], new: Mapping[Leaf, Any]) -> list[str]:
    """The settings that differ, as `key: old -> new`."""
    return [f"{'.'.join(path)}: {_show(old, path)} -> {_show(new, path)}" for path in _differing(old, new)]


def impossible_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a run of configuration `old` cannot change to become one of `new`: `seed from 1 to 0`, and why."""
    before, after = leaves(old), leaves(new)
    for path in _differing(before, after):
        for fixed, why in FIXED:
            if path[: len(fixed)] == fixed and path != THRESHOLD:
                yield f"{'.'.join(path)} from {_show(before, path)} to {_show(after, path)}", why


def another_run(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """In what the source of a checkpoint shows that it is of another run; None where it may be of ours.

    A source holds the `config` that the program composed, or the text of the `agent` that a script built.
    """
    if "config" in theirs and "config" in ours:
        change = next(impossible_changes(theirs["config"], ours["config"]), None)
        return f"going on from it would change {change[0]}" if change else None
    return None if theirs.get("agent") == ours.get("agent") else "its agent is another one"


def _differing(old: Mapping[Leaf, Any], new: Mapping[Leaf, Any]) -> list[Leaf]:
    paths = [*new, *(path for path in old if path not in new)]
    return [p for p in paths if p[0] not in SESSION_KEYS and old.get(p, ...) != new.get(p, ...)]


def _show(config: Mapping[Leaf, Any], path: Leaf) -> str:
    value = config.get(path, "(absent)")
    return "null" if value is None else str(value)
