"""Segments: immutable files of consecutive rows, named by content, shared by checkpoints."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dqn_runner.core.exceptions import DamagedError, UserError
from dqn_runner.core.state import RowSnapshot
from dqn_runner.core.types import Array
from dqn_runner.io import files
from dqn_runner.io.entries import is_file, problem_with_file

FOLDER = "segments"
"""Directory of the segments, next to the checkpoints that name them."""

_HEADERS = 2**12
"""Size of the headers of a column in a file, in bytes, at most."""
_TARGET_BYTES = 2**20
_MIN_ROWS, _MAX_ROWS = 256, 65_536


class Segment(NamedTuple):
    """The rows [start, stop) of a replay or of the history, stored in the file `name`."""

    start: int
    stop: int
    name: str


def rows_per_segment(row_bytes: int) -> int:
    """Number of rows in a segment, a power of two: about one megabyte of rows of `row_bytes` each."""
    rows = min(_MAX_ROWS, max(_MIN_ROWS, _TARGET_BYTES // max(1, row_bytes)))
    return 1 << rows.bit_length() - 1


def write_segment(directory: Path, start: int, columns: Mapping[str, Array]) -> Segment:
    """Write rows, of which the first has the number `start`, unless an intact file of them exists.

    `columns` maps each column name to an array [rows, ...].
    """
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **columns)
    data = content.getvalue()
    stop = start + len(next(iter(columns.values())))
    segment = Segment(start, stop, f"{start:012d}-{stop:012d}-{_digest(data)}.npz")
    path = directory / segment.name
    if not _has_content(path, data):
        files.make_directory(directory)
        files.write_atomically(path, data)
    return segment


def read_segment(directory: Path, like: Mapping[str, Array], segment: Segment) -> dict[str, Array]:
    """Read the columns of a segment; raises DamagedError if the file is not what was written.

    `like` has columns of the same names, dtypes and shapes of a row. So the size of the file is known before
    it is read, and the sizes that the file claims are checked before anything is allocated.
    """
    path, rows = directory / segment.name, segment.stop - segment.start
    expected = {name: ((rows, *column.shape[1:]), column.dtype) for name, column in like.items()}
    size = sum(prod(shape) * dtype.itemsize for shape, dtype in expected.values())
    if problem := problem_with_file(path):
        raise DamagedError(f"the segment {path} cannot be read: it {problem}")
    try:
        data = path.read_bytes() if path.stat().st_size <= size + _HEADERS * (len(like) + 1) else b""
    except OSError as error:
        raise DamagedError(f"the segment {path} cannot be read: {error.strerror}") from error
    if _digest(data) != segment.name.rpartition("-")[2].removesuffix(".npz"):
        raise DamagedError(f"the segment {path} is damaged")
    try:
        if _claimed(data) != expected:
            raise DamagedError(f"the segment {path} has other columns or rows than its checkpoint")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except UserError:
        raise
    except Exception as error:  # numpy and zipfile raise exceptions of many types
        raise DamagedError(f"the segment {path} contains something other than arrays") from error


def _claimed(data: bytes) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """The shapes and dtypes that the members of an npz file claim, which are not compressed."""
    found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is compressed")
            with archive.open(member) as file:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            found[member.filename.removesuffix(".npy")] = (shape, dtype)
    return found


def stored_snapshot(stored: Mapping[str, Any], directory: Path) -> RowSnapshot:
    """Rows as a checkpoint stores them; its `read` loads the segment files when it is called.

    `stored` names the segments in `directory`, and contains the rows after the last segment as `tail`.
    """
    stored_segments = [Segment(*entry) for entry in stored["segments"]]
    tail = {name: np.asarray(column) for name, column in stored["tail"].items()}
    read_once = lru_cache(1)(partial(read_segment, directory, tail))  # successive reads often share a segment
    tail_start: int = stored["stop"] - len(next(iter(tail.values())))

    def read(start: int, stop: int) -> dict[str, Array]:
        parts: list[dict[str, Array]] = []
        for segment in stored_segments:
            if segment.start < stop and segment.stop > start:
                first, last = (
                    max(start, segment.start) - segment.start,
                    min(stop, segment.stop) - segment.start,
                )
                parts.append({name: column[first:last] for name, column in read_once(segment).items()})
        first, last = max(start, tail_start) - tail_start, max(stop, tail_start) - tail_start
        parts.append({name: column[first:last] for name, column in tail.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in tail}

    return RowSnapshot(stored["start"], stored["stop"], stored["row_bytes"], read)


def remove_unreferenced(directory: Path, referenced: Iterable[str]) -> None:
    """Remove every segment in `directory` whose file name is not in `referenced`."""
    kept = set(referenced)
    for path in directory.glob("*.npz"):
        if path.name not in kept:
            files.remove(path)


def _has_content(path: Path, data: bytes) -> bool:
    try:
        return is_file(path) and path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
