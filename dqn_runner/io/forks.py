"""Processes that code of the user forks: one that comes back with an exception ends; it is not the run."""

from __future__ import annotations

import os
import sys
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

    Otherwise it would continue the run of its parent, and write to the same files. A process of
    `multiprocessing` never comes back to the run, and may handle the exception itself.
    """
    if _owner in (None, os.getpid()) or _is_of_multiprocessing():
        return
    status = 1
    if not isinstance(raised, SystemExit):
        traceback.print_exception(raised)
    elif isinstance(raised.code, int | None):
        status = raised.code or 0
    else:
        print(raised.code, file=sys.stderr, flush=True)
    os._exit(status & 0xFF)


def _is_of_multiprocessing() -> bool:
    """Whether multiprocessing forked this process from the one that calls code of the user."""
    module = sys.modules.get("multiprocessing.process")
    parent = module and module.parent_process()
    return parent is not None and parent.pid == _owner
