"""JSON files of a run: metrics.json, eval.json and run.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.io.entries import problem_with_file
from dqn_runner.io.files import write_atomically

METRICS = "metrics.json"
"""File with the report of a run."""


def write_json(path: Path, document: Any) -> None:
    """Write `document` atomically, creating the directory; NaN and infinity become null.

    Each value of an object has a line of its own, and a series of numbers is one line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _text(as_json(document), "").encode() + b"\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; raises DamagedError if it is not a file, or not valid JSON."""
    if problem := problem_with_file(path):
        raise DamagedError(f"{path} cannot be read: it {problem}; move it away")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise DamagedError(f"{path} is damaged: {error}; move it away") from error


def as_json(value: Any) -> Any:
    """Convert `value` to what `read_json` returns after `write_json`: no NaN, no infinity, no tuples."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any, indent: str) -> str:
    """JSON in which objects, and lists with objects, have a line for each item."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        items = (f"{_key(key)}: {_text(item, inner)}" for key, item in value.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        ends = "{}"
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):  # pyright: ignore[reportUnknownVariableType]
        items, ends = (_text(item, inner) for item in value), "[]"  # pyright: ignore[reportUnknownVariableType]
    else:
        return json.dumps(value, allow_nan=False)
    lines = ",\n".join(inner + item for item in items)
    return f"{ends[0]}\n{lines}\n{indent}{ends[1]}"


def _key(key: Any) -> str:
    """A key as JSON writes it, which turns numbers into texts."""
    return json.dumps({key: 0}).removeprefix("{").removesuffix(": 0}")
