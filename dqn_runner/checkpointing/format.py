"""The content of checkpoint files: plain values and tensors, a format version and a checksum."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from dqn_runner.checkpointing import segments
from dqn_runner.core.exceptions import DamagedError, UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import ReplaySnapshot, State
from dqn_runner.core.types import Array

FORMAT = "dqn_runner checkpoint"
VERSION = 1
ROWS = "rows of replay segments"
"""Marks where a checkpoint names segments instead of holding rows."""

_STEP_IN_NAME = re.compile(r"(?:superseded_)?(?:checkpoint|best)_(\d+)\.pt")
_PLAIN = frozenset((int, float, bool, str, type(None)))

OnRows = Callable[[ReplaySnapshot, str], State]
"""From rows and the path at which a state holds them to what the checkpoint says in their place."""


def pack(value: Any, on_rows: OnRows, where: str = "") -> Any:
    """A copy of a state in what `weights_only` loading accepts: tensors and plain values.

    `on_rows` says what to put in the place of `ReplaySnapshot`; `where` is the path to name in errors.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return {str(key): pack(item, on_rows, f"{where}.{key}") for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, (list, tuple)):
        return [pack(item, _no_rows, f"{where}[{i}]") for i, item in enumerate(value)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(cast("Array", value), order="C"))
    if isinstance(value, torch.Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(value, np.generic):
        return cast("Any", value).item()
    if isinstance(value, ReplaySnapshot):
        return on_rows(value, where)
    raise TypeError(f"state{where} is a {type(value).__name__}; checkpoints hold plain values and tensors")


def _no_rows(_: ReplaySnapshot, where: str) -> State:
    raise TypeError(
        f"state{where} are ReplaySnapshot within a list; checkpoints look for them in dictionaries"
    )


def encode(document: State) -> bytes:
    """The bytes of a checkpoint file whose packed content is `document`."""
    content = {"format": FORMAT, "version": VERSION, **document}
    buffer = io.BytesIO()
    torch.save({**content, "checksum": checksum(content)}, buffer)
    return buffer.getvalue()


def load_checkpoint(path: Path) -> State:
    """Read a checkpoint and verify it; arrays come back as tensors. Never executes code from the file.

    The rows of its replay are `ReplaySnapshot`, which read their segments when they are asked for.
    """
    return _with_rows(read_document(path), path.parent / segments.FOLDER)


def read_document(path: Path) -> State:
    """The verified content of a checkpoint file, with the names of segments where it holds rows."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}{_present(path)}")
    document = _load(path)
    if not isinstance(document, dict):
        raise DamagedError(f"{path} is not a checkpoint of dqn_runner")
    content = cast("State", document)
    if content.get("format") != FORMAT:
        raise DamagedError(f"{path} is not a checkpoint of dqn_runner")
    if content.pop("checksum", None) != _checksum_of_any(content):
        raise DamagedError(f"{path} is damaged: its content is not what was written{_present(path)}")
    if content["version"] > VERSION:
        raise UserError(
            f"{path} has checkpoint format {content['version']}, this dqn_runner reads up to {VERSION}; "
            "update dqn_runner"
        )
    named = _STEP_IN_NAME.fullmatch(path.name)
    if named is not None and int(named[1]) != content["step"]:
        raise DamagedError(f"{path} holds the checkpoint of step {content['step']}{_present(path)}")
    return content


def stored_segments(document: Any, where: str = "") -> dict[str, list[segments.Segment]]:
    """The segments that a document names, by the path at which it names them."""
    if not isinstance(document, dict):
        return {}
    items = cast("State", document)
    if ROWS in items:
        return {where: [segments.Segment(*piece) for piece in items["segments"]]}
    found: dict[str, list[segments.Segment]] = {}
    for key, item in items.items():
        found |= stored_segments(item, f"{where}.{key}")
    return found


def checksum(value: Any) -> str:
    """BLAKE2b of a packed value: of what it says, not of how a file lays it out."""
    state = hashlib.blake2b(digest_size=16)
    _feed(state.update, value)
    return state.hexdigest()


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    if isinstance(value, dict):
        update(b"{%d" % len(value))  # pyright: ignore[reportUnknownArgumentType]
        for key, item in cast("State", value).items():
            update(repr(key).encode())
            _feed(update, item)
    elif isinstance(value, list):
        update(b"[%d" % len(value))  # pyright: ignore[reportUnknownArgumentType]
        for item in cast("list[Any]", value):
            _feed(update, item)
    elif isinstance(value, torch.Tensor):
        array: Array = value.contiguous().numpy()
        update(f"<{array.dtype}{array.shape}".encode())
        update(array.reshape(-1).view(np.uint8).data)  # pyright: ignore[reportArgumentType]
    else:
        update(repr(value).encode() + b",")


def _checksum_of_any(value: Any) -> str | None:
    """The checksum of what a file holds; None if that is nothing that was ever packed."""
    try:
        return checksum(value)
    except Exception:  # what tensors of kinds that are never written do not let one read
        return None


def _load(path: Path) -> Any:
    """The object in the file, of whatever kind."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        if isinstance(error, OSError):
            reason = error.strerror or reason
        elif not zipfile.is_zipfile(path):
            reason = "the file is cut short or not a checkpoint"
        elif isinstance(error, pickle.UnpicklingError):
            reason = "it holds more than tensors and plain values, which is never loaded"
        raise DamagedError(f"cannot read the checkpoint {path}: {reason}{_present(path)}") from error


def _with_rows(value: Any, directory: Path) -> Any:
    """`value` with ReplaySnapshot in the place of what names segments."""
    if not isinstance(value, dict):
        return value
    items = cast("State", value)
    if ROWS in items:
        return segments.stored_rows(items, directory)
    return {key: _with_rows(item, directory) for key, item in items.items()}


def _present(path: Path) -> str:
    directory = path.parent if path.suffix == ".pt" else path / "checkpoints"
    names = sorted(p.name for p in directory.glob("*.pt") if p != path)
    return f"; in {directory} there are: {', '.join(names)}" if names else ""
