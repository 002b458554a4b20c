"""Reads a checkpoint file of unknown origin: only plain values and tensors, no larger than the file."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any, cast

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.io import entries

MAX_DEPTH = 100
"""Levels of nested containers; states have about ten."""
_PLAIN = frozenset((int, float, bool, str, type(None)))
_TENSORS = frozenset(("torch._utils _rebuild_tensor_v2", "collections OrderedDict"))
"""What the pickle of a tensor names, besides the type of its storage."""


def load_archive(path: Path) -> Any:
    """The object in a file that `torch.save` wrote; raises DamagedError for anything else.

    Sizes are compared with the size of the file before anything is allocated, and nothing but plain values
    and tensors is created. The result may still be anything that consists of them.
    """
    if problem := entries.problem_with_file(path):
        raise DamagedError(f"cannot read the checkpoint {path}: it {problem}")
    try:
        _check_members(path)
        document = torch.load(path, map_location="cpu", weights_only=True)
        _check_values(document, set(), 0)
    except _UnexpectedError as error:
        raise DamagedError(f"cannot read the checkpoint {path}: {error}") from error
    except Exception as error:  # zipfile, pickle and torch raise exceptions of many types
        reason = str(error).partition("\n")[0]
        if isinstance(error, OSError):
            reason = error.strerror or reason
        raise DamagedError(f"cannot read the checkpoint {path}: {reason}") from error
    return document


class _UnexpectedError(Exception):
    """The file contains something that no checkpoint contains."""


def _check_members(path: Path) -> None:
    """Reject compressed members, which can be larger than the file, and pickles of other objects."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _UnexpectedError("the file is cut short or not a checkpoint") from error
    with archive:
        members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > path.stat().st_size:
            raise _UnexpectedError("its parts claim to be larger than the file")
        for member in members:
            if member.filename.endswith(".pkl"):
                _check_pickle(archive.read(member))


def _check_pickle(content: bytes) -> None:
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
            raise _UnexpectedError(_FOREIGN)
        if opcode.name == "GLOBAL" and argument not in _TENSORS and not _is_storage(str(argument)):
            raise _UnexpectedError(_FOREIGN)


_FOREIGN = "it contains something other than tensors and plain values, which is never loaded"


def _is_storage(name: str) -> bool:
    module, _, kind = name.partition(" ")
    return module == "torch" and kind.endswith("Storage") and kind.isidentifier()


def _check_values(value: Any, containers: set[int], depth: int) -> None:
    """Reject all but plain values, tensors, and dictionaries and lists of them, each of which occurs once.

    A container that occurs twice would make a file of a few bytes stand for any amount of values.
    """
    if type(value) in _PLAIN:
        return
    if type(value) is torch.Tensor:
        _check_tensor(value)
        return
    if type(value) not in (dict, list) or id(value) in containers or depth > MAX_DEPTH:
        raise _UnexpectedError("its values are not a tree of plain values and tensors")
    containers.add(id(value))
    items = value
    if isinstance(value, dict):
        if not all(type(key) is str for key in cast("dict[Any, Any]", value)):
            raise _UnexpectedError("it has a key that is not a text")
        items = cast("dict[str, Any]", value).values()
    for item in cast("list[Any]", items):
        _check_values(item, containers, depth + 1)


def _check_tensor(tensor: torch.Tensor) -> None:
    """Reject a tensor that is not an array in the file: on another device, sparse, or a repeating view."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.requires_grad:
        raise _UnexpectedError("it has a tensor that is not a plain array")
    if not tensor.is_contiguous() or tensor.nbytes != tensor.untyped_storage().nbytes():
        raise _UnexpectedError("it has a tensor that is larger or smaller than its data")
