"""Checkpoint files: bytes, atomicity and retention. Knows nothing of what it stores."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from dqn_runner.lazy import torch
from dqn_runner.types import Array, State, UserError

FORMAT = "dqn_runner checkpoint"
VERSION = 1
LATEST = "latest.pt"
BEST = "best.pt"


class Checkpointer:
    """Writes the checkpoints of one run into one directory."""

    def __init__(self, directory: Path, keep_last: int) -> None:
        """Of the numbered checkpoints the newest `keep_last` stay; best.pt and latest.pt always do."""
        self.directory = directory
        self._keep_last = keep_last

    def save(self, payload: State, step: int, names: Iterable[str]) -> None:
        """Write `payload` once and publish it under each of `names`, atomically."""
        first, *others = names
        self.directory.mkdir(parents=True, exist_ok=True)
        document = {"format": FORMAT, "version": VERSION, "step": step, **payload}
        write_atomically(self.directory / first, lambda file: torch.save(_pack(document, ""), file))
        for name in others:
            _publish_copy(self.directory / first, self.directory / name)
        numbered = sorted(self.directory.glob("checkpoint_*.pt"), key=lambda p: p.stat().st_mtime_ns)
        for old in numbered[: max(0, len(numbered) - self._keep_last)]:
            old.unlink()

    def take_up(self, source: Path, step: int, best_step: int) -> None:
        """Go on from `source`, of env step `step`: a best.pt of later steps makes room under another name."""
        best = self.directory / BEST
        if best.exists():
            found: int = load_checkpoint(best)["step"]
            if found == best_step:
                return
            best.rename(best.with_name(f"best_{found:010d}.pt"))
        if step == best_step and self.directory.exists():
            _publish_copy(source, best)


def numbered_name(step: int) -> str:
    """File name of the regular checkpoint of env step `step`; names sort by step."""
    return f"checkpoint_{step:010d}.pt"


def load_checkpoint(path: Path) -> State:
    """Read a checkpoint; arrays come back as tensors. Never executes code from the file."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}{_present(path)}")
    try:
        document: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        if isinstance(error, pickle.UnpicklingError):
            reason = "it holds more than tensors and plain values, which is never loaded"
        if not zipfile.is_zipfile(path):
            reason = "the file is cut short or not a checkpoint"
        raise UserError(f"cannot read the checkpoint {path}: {reason}{_present(path)}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of dqn_runner")
    if document["version"] > VERSION:
        raise UserError(
            f"{path} has checkpoint format {document['version']}, this dqn_runner reads up to {VERSION}; "
            "update dqn_runner"
        )
    return cast("State", document)


def find_checkpoint(path: Path) -> Path:
    """The file that a user means by `path`: a checkpoint, or the latest one of a run directory."""
    return path / "checkpoints" / LATEST if path.is_dir() else path


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace `path` by what `write` puts into a file; a crash leaves the old or the new content."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _fsync_directory(path.parent)


def _publish_copy(source: Path, path: Path) -> None:
    """Give `source` a second name; a hard link where the file system has them, else a copy."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        with source.open("rb") as original:
            write_atomically(path, lambda file: shutil.copyfileobj(original, file))
        return
    temporary.replace(path)
    _fsync_directory(path.parent)


def _fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _present(path: Path) -> str:
    directory = path.parent if path.suffix == ".pt" else path / "checkpoints"
    names = sorted(p.name for p in directory.glob("*.pt") if p != path)
    return f"; in {directory} there are: {', '.join(names)}" if names else ""


def _pack(value: Any, where: str) -> Any:
    """Only what `weights_only` loading accepts: tensors and plain values."""
    if isinstance(value, dict):
        return {str(key): _pack(item, f"{where}.{key}") for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, (list, tuple)):
        return [_pack(item, f"{where}[{i}]") for i, item in enumerate(value)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(cast("Array", value)))
    if isinstance(value, torch.Tensor):
        return value.detach().contiguous()
    if isinstance(value, np.generic):
        return cast("Any", value).item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"state{where} is a {type(value).__name__}; checkpoints hold plain values and tensors")
