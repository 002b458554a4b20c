"""What a run leaves for people and scripts: metrics.json and eval.json."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.io.files import write_atomically

METRICS = "metrics.json"


def write_json(path: Path, document: Any) -> None:
    """Write `document` atomically; NaN and infinity, which JSON lacks, become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(as_json(document), indent=1, allow_nan=False)
    write_atomically(path, text.encode() + b"\n")


def read_json(path: Path) -> Any:
    """Read a JSON document."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: {error}; move it away") from error


def as_json(value: Any) -> Any:
    """What a document says that was written and read again: JSON has no NaN, no infinity and no tuples."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return None if isinstance(value, float) and not math.isfinite(value) else value
