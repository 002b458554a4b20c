"""What makes a sweep the sweep that it is: the differences between two definitions (`Plan.definition`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from dqn_runner.run.compatibility import same_setting

CONFIGURATION = "configuration"
"""The key of a definition for the settings that a job composes."""
_MISSING = "(missing)"


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """The differences between two definitions: for each key that differs, `place: old -> new`.

    If the command is the same, the settings that it composes are compared: a file that it names may have
    changed. Settings that only one of them has are those of another version of the program.
    """
    found = {
        key: _listed(old.get(key), new[key], key) for key in new if not same_setting(old.get(key), new[key])
    }
    configuration = found.pop(CONFIGURATION, None)
    if found or configuration is None:
        return found
    before, after = old.get(CONFIGURATION, {}), new[CONFIGURATION]
    both = [key for key in after if key in before and not same_setting(before[key], after[key])]
    return {key: _listed(before[key], after[key], key) for key in both}


def _listed(old: Any, new: Any, key: str) -> str:
    texts = (text.removeprefix("parameters.parameters.") for text in _differences(old, new, key))
    return "; ".join(text.replace(".attributes.", ".") for text in texts)


def _differences(old: Any, new: Any, where: str) -> Iterator[str]:
    """Each place at which two plain values differ, with its values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        before, after = cast("Mapping[str, Any]", old), cast("Mapping[str, Any]", new)
        for key in {**before, **after}:
            values = before.get(key, _MISSING), after.get(key, _MISSING)
            if not same_setting(*values):
                yield from _differences(*values, f"{where}.{key}")
        return
    if isinstance(old, list) and isinstance(new, list):
        before, after = cast("list[Any]", old), cast("list[Any]", new)
        removed = [item for item in before if item not in after]
        added = [item for item in after if item not in before]
        if removed or added:  # otherwise the order differs
            old, new = (" ".join(map(str, items)) or _MISSING for items in (removed, added))
    yield f"{where}: {old} -> {new}"
