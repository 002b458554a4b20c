"""Standard output and standard error, to which a run writes as long as there is a receiver."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class _BestEffortFile(io.FileIO):
    """An open descriptor; what it does not accept is lost without an error."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def ignore_output_errors() -> None:
    """Make print never raise: the terminal may be closed, the reader of a pipe gone, the disk full.

    What a run computes and stores, and its exit status, never depend on whether its output was received.
    Streams that something else has replaced stay as they are.
    """
    _open_closed_streams()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        file = io.BufferedWriter(_BestEffortFile(stream.fileno(), "wb", closefd=False))
        text = io.TextIOWrapper(
            file,
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, text)


def _open_closed_streams() -> None:
    """Open the null device in the place of standard streams that were closed (`2>&-`).

    The next file that is opened would get their descriptors, and what C code prints would be written to it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        found = os.open(os.devnull, os.O_RDWR)  # the smallest number that is free, usually this one
        os.set_inheritable(found, found == number)
        stream = os.fdopen(found, "r" if name == "stdin" else "w", closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
