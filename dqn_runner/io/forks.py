"""Processes that code of the user forks: one that comes back with an exception ends; it is not the run."""

from __future__ import annotations

import os
import traceback
from collections.abc import Generator
from contextlib import contextmanager

_owner: int | None = None
"""The process that calls code of the user, such as environments; None outside of `ending_forks`."""


@contextmanager
def ending_forks() -> Generator[None]:
    """Within the block, `end_if_forked` ends processes that were forked from this one in the block."""
    global _owner
    previous, _owner = _owner, os.getpid()
    try:
        yield
    finally:
        _owner = previous


def end_if_forked(raised: BaseException) -> None:
    """End this process, as Python does after the exception `raised`, if code of the user forked it.

    Otherwise it would continue the run of its parent, and write to the same files.
    """
    if _owner in (None, os.getpid()):
        return
    if isinstance(raised, SystemExit):
        status = raised.code if isinstance(raised.code, int) else int(raised.code is not None)
    else:
        traceback.print_exception(raised)
        status = 1
    os._exit(status & 0xFF)
