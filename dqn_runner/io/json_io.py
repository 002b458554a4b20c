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
    """Write `document` atomically, creating the directory; NaN and infinity become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_json(document), indent=1, allow_nan=False)
    write_atomically(path, text.encode() + b"\n")


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
