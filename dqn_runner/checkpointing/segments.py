"""Sealed pieces of a growing memory: immutable files, named by their content, shared by checkpoints."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.core.state import ReplaySnapshot
from dqn_runner.core.types import Array
from dqn_runner.io import files

FOLDER = "replay"
"""Beside the checkpoints that name the segments."""
_TARGET_BYTES = 2**20
_FEWEST, _MOST = 256, 65_536


class Segment(NamedTuple):
    """ReplaySnapshot [start, stop) in the file `name`."""

    start: int
    stop: int
    name: str


def length(row_bytes: int) -> int:
    """ReplaySnapshot of one segment: about a megabyte of them."""
    return min(_MOST, max(_FEWEST, 1 << (_TARGET_BYTES // max(1, row_bytes)).bit_length() - 1))


def write(directory: Path, start: int, columns: Mapping[str, Array]) -> Segment:
    """Write the rows from number `start` on, unless the same content is there already, undamaged."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **columns)
    data = content.getvalue()
    stop = start + len(next(iter(columns.values())))
    segment = Segment(start, stop, f"{start:012d}-{stop:012d}-{_digest(data)}.npz")
    path = directory / segment.name
    if not _holds(path, data):
        files.make_directory(directory)
        files.write_atomically(path, data)
    return segment


def read(directory: Path, segment: Segment) -> dict[str, Array]:
    """The columns of a segment; raises if the file is not what was written."""
    path = directory / segment.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedError(f"the replay segment {path} cannot be read: {error.strerror}") from error
    if _digest(data) != segment.name.rpartition("-")[2].removesuffix(".npz"):
        raise DamagedError(f"the replay segment {path} is damaged")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy and zipfile raise many kinds
        raise DamagedError(f"the replay segment {path} holds something else than arrays") from error


def stored_rows(document: Mapping[str, Any], directory: Path) -> ReplaySnapshot:
    """The rows that a checkpoint names, read from their files when they are asked for.

    `document` has the rows not yet in a segment as `tail`, and which segments hold those before them.
    """
    pieces = [Segment(*piece) for piece in document["segments"]]
    read_once = lru_cache(1)(partial(read, directory))  # a segment is often asked for in two parts
    tail = {name: np.asarray(column) for name, column in document["tail"].items()}
    tail_start: int = document["stop"] - len(next(iter(tail.values())))

    def columns(start: int, stop: int) -> dict[str, Array]:
        parts: list[dict[str, Array]] = []
        for piece in pieces:
            if piece.start < stop and piece.stop > start:
                first, last = max(start, piece.start) - piece.start, min(stop, piece.stop) - piece.start
                parts.append({n: c[first:last] for n, c in read_once(piece).items()})
        first, last = max(start, tail_start) - tail_start, max(stop, tail_start) - tail_start
        parts.append({name: column[first:last] for name, column in tail.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in tail}

    return ReplaySnapshot(document["start"], document["stop"], document["row_bytes"], columns)


def remove_others(directory: Path, keep: Iterable[str]) -> None:
    """Remove every segment that is not among `keep`."""
    kept = set(keep)
    for path in directory.glob("*.npz"):
        if path.name not in kept:
            files.remove(path)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
