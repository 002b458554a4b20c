"""One run trains in a process at a time: its logger and global random generators belong to the process."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

from dqn_runner.core.exceptions import UserError

_lock = threading.RLock()


@contextmanager
def only_training_thread() -> Generator[None]:
    """Within the block, no other thread can enter it; raises UserError if one is in it.

    A callback may train another run, in the same thread.
    """
    if not _lock.acquire(blocking=False):
        raise UserError(
            "another thread of this process trains a run; train one after the other, or in a process each, "
            "as -m does"
        )
    try:
        yield
    finally:
        _lock.release()
