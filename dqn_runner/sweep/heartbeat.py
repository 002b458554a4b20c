"""Which of the processes that share a study are alive, so that the trials of dead ones can be taken over."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna


BEAT_EVERY = 20.0
"""Seconds between two signs of life."""
GRACE = 120.0
"""Seconds without a sign of life after which a process on another machine counts as dead."""

_PREFIX = "worker:"


class Heartbeat:
    """The processes at work on a study, this one among them.

    Each leaves a counter in the study that goes on as long as it lives. A process on this machine is looked
    up instead; of one on another machine only the change of its counter matters, as seen by the clock here.
    """

    def __init__(self, study: optuna.Study, clock: Callable[[], float] = time.monotonic) -> None:
        """Join those at work on `study`."""
        self.me = uuid.uuid4().hex[:12]
        self._study = study
        self._clock = clock
        self._beats = 0
        self._seen: dict[str, tuple[int | None, float]] = {}
        self._write(ended=False)
        self._last = clock()

    def record(self) -> None:
        """Give a sign of life, where one is due."""
        if self._clock() - self._last >= BEAT_EVERY:
            self._last = self._clock()
            self._beats += 1
            self._write(ended=False)

    def leave(self) -> None:
        """Say that this process works no more."""
        self._write(ended=True)

    def abandoned(self, trial: int) -> bool:
        """Whether nobody will finish a trial that bears no name: who creates one gives it a name at once."""
        others = [key.removeprefix(_PREFIX) for key in self._study.user_attrs if key.startswith(_PREFIX)]
        everybody_else = all(self.is_stale(other) for other in others if other != self.me)
        return everybody_else or self._unchanged(f"trial {trial}", None)

    def is_stale(self, worker: str) -> bool:
        """Whether nobody will finish what `worker` began."""
        entry: dict[str, Any] | None = self._study.user_attrs.get(_PREFIX + worker)
        if worker == self.me or entry is None:
            return entry is None
        if entry["ended"]:
            return True
        if entry["host"] == _machine():
            return _started(entry["pid"]) != entry["started"]
        return self._unchanged(worker, entry["beats"])

    def _unchanged(self, what: str, value: int | None) -> bool:
        """Whether `what` has had this value for long, as seen from here."""
        before, since = self._seen.get(what, (..., 0.0))
        if before != value:
            self._seen[what] = (value, self._clock())
            return False
        return self._clock() - since > GRACE

    def _write(self, ended: bool) -> None:
        pid = os.getpid()
        entry = {
            "host": _machine(),
            "pid": pid,
            "started": _started(pid),
            "beats": self._beats,
            "ended": ended,
        }
        self._study.set_user_attr(_PREFIX + self.me, entry)


def _machine() -> str:
    """Where the numbers of processes mean the same: a host, or a container on it."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {namespace.readlink()}" if namespace.exists() else socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process of this machine was started, which tells it from a later one of the same number.

    None if it is dead, though its parent, such as the first process of a container, may not have noticed.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    except FileNotFoundError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "running"
