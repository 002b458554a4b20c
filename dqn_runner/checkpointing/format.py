"""Format of checkpoint files: plain values and tensors, with a format version and a checksum."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from dqn_runner.checkpointing import segments
from dqn_runner.checkpointing.archive import MAX_DEPTH, load_archive
from dqn_runner.checkpointing.names import CHECKPOINTS, STEP_IN_NAME
from dqn_runner.core.exceptions import DamagedError, UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import RowSnapshot, State
from dqn_runner.core.types import Array
from dqn_runner.io.entries import is_file

FORMAT = "dqn_runner checkpoint"
VERSION = 7
"""Version of the format; increased when stored names or the keys of states change."""
SNAPSHOT = "row snapshot"
"""Key that marks a stored RowSnapshot: a dictionary with the names of its segments and the other rows."""

_MOST_BITS = 2_000
"""Of an integer; torch reads no longer ones."""
_PLAIN = frozenset((int, float, bool, str, type(None)))
DTYPES = (
    *("bool", "uint8", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
)
"""Of the arrays that a checkpoint can hold."""
_ALTERNATIVES = "; available in "

PackSnapshot = Callable[[RowSnapshot, str], State]
"""From a snapshot, and its path in the state, to the dictionary that a checkpoint stores for it."""


def pack(value: Any, pack_snapshot: PackSnapshot, where: str = "", depth: int = 0) -> Any:
    """Copy a state into tensors and plain values, which `torch.load(weights_only=True)` accepts.

    `pack_snapshot` converts each RowSnapshot; `where` is the path of `value` in the state, `depth` the number
    of containers around it. Raises TypeError, naming the path, for what `archive` would not read.
    """
    value = _without_numpy(value)
    if type(value) in _PLAIN:
        if type(value) is int and value.bit_length() > _MOST_BITS:
            raise TypeError(f"state{where} is an integer of more than {_MOST_BITS} bits")
        return value
    if depth > MAX_DEPTH:
        raise TypeError(f"state{where:.60}... is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        if unknown := [key for key, _ in items if type(key) is not str or key == SNAPSHOT]:
            reason = "is reserved" if unknown[0] == SNAPSHOT else "is not a text"
            raise TypeError(f"state{where} has the key {unknown[0]!r}, which {reason}")
        return {key: pack(item, pack_snapshot, f"{where}.{key}", depth + 1) for key, item in items}
    if isinstance(value, (list, tuple)):
        return [pack(item, _reject_snapshot, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        array = cast("Array", value)
        _check_dtype(array.dtype.name, where)
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
    if (
        isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and not (value.is_meta or value.is_nested)
    ):
        _check_dtype(str(value.dtype).removeprefix("torch."), where)
        return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    if isinstance(value, RowSnapshot):
        return pack_snapshot(value, where)
    kind = type(cast("object", value)).__name__
    raise TypeError(f"state{where} is a {kind}; checkpoints hold only plain values and tensors")


def _without_numpy(value: Any) -> Any:
    """A number or a text of numpy as one of Python; anything else as it is."""
    number = value
    return number.item() if isinstance(value, np.generic) and number.dtype.kind in "biufU" else number


def _check_dtype(name: str, where: str) -> None:
    """Raise TypeError unless `archive` reads tensors of this dtype."""
    if name not in DTYPES:
        raise TypeError(f"state{where} is an array of {name}; checkpoints hold {', '.join(DTYPES)}")


def _reject_snapshot(_: RowSnapshot, where: str) -> State:
    raise TypeError(f"state{where} is a RowSnapshot within a list; put it into a dictionary")


def encode(document: State) -> bytes:
    """Return the bytes of a checkpoint file with the packed content `document`."""
    content = {"format": FORMAT, "version": VERSION, **document}
    buffer = io.BytesIO()
    torch.save({**content, "checksum": checksum(content)}, buffer)
    return buffer.getvalue()


def load_checkpoint(path: Path) -> State:
    """Read and verify a checkpoint; arrays are returned as tensors. Never executes code from the file.

    Rows are returned as a RowSnapshot, which reads its segment files when its rows are read. Raises
    DamagedError if the file is damaged, UserError if it does not exist or has another format version.
    """
    return _with_snapshots(read_document(path), path.parent / segments.FOLDER)


def read_document(path: Path) -> State:
    """Read and verify a checkpoint, as `load_checkpoint` does, but return rows as they are stored."""
    if not os.path.lexists(path):
        raise UserError(f"the checkpoint {path} does not exist{_alternatives(path)}")
    try:
        content = load_archive(path)
    except DamagedError as error:
        raise DamagedError(f"{error}{_alternatives(path)}") from error
    if not isinstance(content, dict) or cast("State", content).get("format") != FORMAT:
        raise DamagedError(f"{path} is not a checkpoint of dqn_runner")
    document = cast("State", content)
    _check_version(path, document.get("version"))
    if problem := _problem_with(path, document):
        raise DamagedError(f"{path} {problem}{_alternatives(path)}")
    return document


def _problem_with(path: Path, document: State) -> str | None:
    """Why the document of the checkpoint `path` is not what was written under that name; None if it is."""
    from dqn_runner.checkpointing import schema  # late: a new run reads no checkpoint

    if document.pop("checksum", None) != checksum(document):
        return "is damaged: its content is not what was written"
    try:
        problem = schema.problem_with_document(document)
        for where, stored in _stored_snapshots(document).items():
            if problem is None and (found := schema.problem_with_snapshot(stored)):
                problem = f"{where.lstrip('.')}.{found}"
    except RecursionError:
        problem = "its content is nested too deep"
    if problem is not None:
        return f"is not a valid checkpoint: {problem}"
    named = STEP_IN_NAME.fullmatch(path.name)
    if named is not None and int(named[1]) != document["step"]:
        return f"holds the checkpoint of step {document['step']}"
    return None


def without_alternatives(error: UserError) -> str:
    """Message of an error of `read_document`, without the list of the other checkpoints."""
    return str(error).partition(_ALTERNATIVES)[0]


def segments_in(document: State) -> dict[str, list[segments.Segment]]:
    """Return the segments that a document names, by the path of their snapshot in the document."""
    stored = _stored_snapshots(document).items()
    return {where: [segments.Segment(*entry) for entry in items["segments"]] for where, items in stored}


def _stored_snapshots(value: Any, where: str = "") -> dict[str, State]:
    """The stored snapshots in a document, by their paths in it."""
    if not isinstance(value, dict):
        return {}
    items = cast("State", value)
    if SNAPSHOT in items:
        return {where: items}
    found: dict[str, State] = {}
    for key, item in items.items():
        found |= _stored_snapshots(item, f"{where}.{key}")
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
        bits = value.view(torch.int16) if value.dtype == torch.bfloat16 else value  # numpy has no bfloat16
        array: Array = bits.contiguous().numpy()
        update(f"<{str(value.dtype).removeprefix('torch.')}{array.shape}".encode())
        update(array.reshape(-1).view(np.uint8).data)  # pyright: ignore[reportArgumentType]
    else:
        update(repr(value).encode() + b",")


def _check_version(path: Path, version: Any) -> None:
    if type(version) is not int:
        raise DamagedError(f"{path} is not a valid checkpoint: its version is {version!r:.50}")
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


def _with_snapshots(value: Any, directory: Path) -> Any:
    """Replace stored snapshots in `value` by RowSnapshot objects that read segments from `directory`."""
    if not isinstance(value, dict):
        return value
    items = cast("State", value)
    if SNAPSHOT in items:
        return segments.stored_snapshot(items, directory)
    return {key: _with_snapshots(item, directory) for key, item in items.items()}


def _alternatives(path: Path) -> str:
    """End of an error message about `path`: the other checkpoints in its directory, if there are any."""
    directory = path.parent if path.suffix == ".pt" else path / CHECKPOINTS
    names = sorted(p.name for p in directory.glob("*.pt") if p != path and is_file(p))
    return f"{_ALTERNATIVES}{directory}: {', '.join(names)}" if names else ""
