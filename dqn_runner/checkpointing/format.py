"""Format of checkpoint files: plain values and tensors, with a format version and a checksum."""

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
VERSION = 3
"""Version of the format; increased when stored names or the keys of states change."""
SNAPSHOT = "replay snapshot"
"""Key that marks a stored ReplaySnapshot: a dictionary with the names of its segments and the other rows."""

_STEP_IN_NAME = re.compile(r"(?:superseded_)?(?:checkpoint|best)_(\d+)\.pt")
_PLAIN = frozenset((int, float, bool, str, type(None)))
_ALTERNATIVES = "; available in "

PackSnapshot = Callable[[ReplaySnapshot, str], State]
"""From a snapshot, and its path in the state, to the dictionary that a checkpoint stores for it."""


def pack(value: Any, pack_snapshot: PackSnapshot, where: str = "") -> Any:
    """Copy a state into tensors and plain values, which `torch.load(weights_only=True)` accepts.

    `pack_snapshot` converts each ReplaySnapshot; `where` is the path of `value` in the state. Raises
    TypeError, naming the path, for values of other types.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return {str(key): pack(item, pack_snapshot, f"{where}.{key}") for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, (list, tuple)):
        return [pack(item, _reject_snapshot, f"{where}[{i}]") for i, item in enumerate(value)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(cast("Array", value), order="C"))
    if isinstance(value, torch.Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(value, np.generic):
        return cast("Any", value).item()
    if isinstance(value, ReplaySnapshot):
        return pack_snapshot(value, where)
    raise TypeError(
        f"state{where} is a {type(value).__name__}; checkpoints hold only plain values and tensors"
    )


def _reject_snapshot(_: ReplaySnapshot, where: str) -> State:
    raise TypeError(f"state{where} is a ReplaySnapshot within a list; put it into a dictionary")


def encode(document: State) -> bytes:
    """Return the bytes of a checkpoint file with the packed content `document`."""
    content = {"format": FORMAT, "version": VERSION, **document}
    buffer = io.BytesIO()
    torch.save({**content, "checksum": checksum(content)}, buffer)
    return buffer.getvalue()


def load_checkpoint(path: Path) -> State:
    """Read and verify a checkpoint; arrays are returned as tensors. Never executes code from the file.

    Replay rows are returned as a ReplaySnapshot, which reads its segment files when its rows are read. Raises
    DamagedError if the file is damaged, UserError if it does not exist or has another format version.
    """
    return _with_snapshots(read_document(path), path.parent / segments.FOLDER)


def read_document(path: Path) -> State:
    """Read and verify a checkpoint, as `load_checkpoint` does, but return replay rows as they are stored."""
    if not path.is_file():
        raise UserError(f"the checkpoint {path} does not exist{_alternatives(path)}")
    document = _load(path)
    if not isinstance(document, dict):
        raise DamagedError(f"{path} is not a checkpoint of dqn_runner")
    content = cast("State", document)
    if content.get("format") != FORMAT:
        raise DamagedError(f"{path} is not a checkpoint of dqn_runner")
    if content.pop("checksum", None) != _checksum_of_any(content):
        raise DamagedError(f"{path} is damaged: its content is not what was written{_alternatives(path)}")
    _check_version(path, content["version"])
    named = _STEP_IN_NAME.fullmatch(path.name)
    if named is not None and int(named[1]) != content["step"]:
        raise DamagedError(f"{path} holds the checkpoint of step {content['step']}{_alternatives(path)}")
    return content


def without_alternatives(error: UserError) -> str:
    """Message of an error of `read_document`, without the list of the other checkpoints."""
    return str(error).partition(_ALTERNATIVES)[0]


def segments_in(document: Any, where: str = "") -> dict[str, list[segments.Segment]]:
    """Return the segments that a document names, by the path of their snapshot in the document."""
    if not isinstance(document, dict):
        return {}
    items = cast("State", document)
    if SNAPSHOT in items:
        return {where: [segments.Segment(*entry) for entry in items["segments"]]}
    found: dict[str, list[segments.Segment]] = {}
    for key, item in items.items():
        found |= segments_in(item, f"{where}.{key}")
    return found


def checksum(value: Any) -> str:
    """BLAKE2b hash of a packed value; depends on the value only, not on its layout in a file."""
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
    """Checksum of the content of a file; None if `pack` cannot have produced it."""
    try:
        return checksum(value)
    except Exception:  # such as tensors that are sparse or on a device
        return None


def _check_version(path: Path, version: int) -> None:
    if version < VERSION:
        raise UserError(
            f"{path} was written by an earlier version of dqn_runner (checkpoint format {version}, this one "
            f"reads {VERSION}); use that version, or start over in another output directory"
        )
    if version > VERSION:
        raise UserError(
            f"{path} was written by a later version of dqn_runner (checkpoint format {version}, this one "
            f"reads {VERSION}); update dqn_runner"
        )


def _load(path: Path) -> Any:
    """Load the object in a file that may be of any format."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        if isinstance(error, OSError):
            reason = error.strerror or reason
        elif not _is_zip(path):
            reason = "the file is cut short or not a checkpoint"
        elif isinstance(error, pickle.UnpicklingError):
            reason = "it contains something other than tensors and plain values, which is never loaded"
        raise DamagedError(f"cannot read the checkpoint {path}: {reason}{_alternatives(path)}") from error


def _is_zip(path: Path) -> bool:
    """Whether a file is a zip archive; a damaged end of one may raise instead of giving an answer."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return False


def _with_snapshots(value: Any, directory: Path) -> Any:
    """Replace stored snapshots in `value` by ReplaySnapshot objects that read segments from `directory`."""
    if not isinstance(value, dict):
        return value
    items = cast("State", value)
    if SNAPSHOT in items:
        return segments.stored_snapshot(items, directory)
    return {key: _with_snapshots(item, directory) for key, item in items.items()}


def _alternatives(path: Path) -> str:
    """End of an error message about `path`: the other checkpoints in its directory, if there are any."""
    directory = path.parent if path.suffix == ".pt" else path / "checkpoints"
    names = sorted(p.name for p in directory.glob("*.pt") if p != path)
    return f"{_ALTERNATIVES}{directory}: {', '.join(names)}" if names else ""
