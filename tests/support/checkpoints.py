"""What tests of checkpoints share: a payload, saving it, and an object that must never be unpickled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dqn_runner.checkpointing.checkpointer import Checkpointer
from dqn_runner.checkpointing.format import checksum

PAYLOAD: dict[str, Any] = {
    "source": {"config": {"a": 1, "b": [1.5, None, True, "x"]}},
    "state": {
        "weights": torch.arange(3.0),
        "counts": np.arange(4, dtype=np.int64),
        "flags": np.array([True]),
    },
}


def save(checkpointer: Checkpointer, payload: Any, step: int, names: list[str]) -> None:
    """Save a checkpoint, and wait until it is on disk."""
    checkpointer.save({"source": {}, **payload}, step, names)
    checkpointer.wait()


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the content of a checkpoint file, with a valid checksum; hard links to it do not change."""
    document = torch.load(path, weights_only=True)
    del document["checksum"]
    change(document)
    document["checksum"] = checksum(document)
    path.unlink()
    torch.save(document, path)


def names(directory: Path) -> set[str]:
    """File names in `directory`."""
    return {path.name for path in directory.iterdir()}


class Bomb:
    """An object whose pickle creates a directory when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)
