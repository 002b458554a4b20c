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


class Workers:
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
        self._seen: dict[str, tuple[int, float]] = {}
        self._write(ended=False)
        self._last = clock()

    def beat(self) -> None:
        """Give a sign of life, where one is due."""
        if self._clock() - self._last >= BEAT_EVERY:
            self._last = self._clock()
            self._beats += 1
            self._write(ended=False)

    def leave(self) -> None:
        """Say that this process works no more."""
        self._write(ended=True)

    def dead(self, worker: str | None) -> bool:
        """Whether nobody will finish what `worker` began; None is one that died before it gave its name."""
        attributes = self._study.user_attrs
        if worker is None:
            others = [key.removeprefix(_PREFIX) for key in attributes if key.startswith(_PREFIX)]
            return all(self.dead(other) for other in others if other != self.me)
        entry: dict[str, Any] | None = attributes.get(_PREFIX + worker)
        if worker == self.me or entry is None:
            return entry is None
        if entry["ended"]:
            return True
        if entry["host"] == socket.gethostname():
            return _started(entry["pid"]) != entry["started"]
        beats, since = self._seen.get(worker, (None, 0.0))
        if beats != entry["beats"]:
            self._seen[worker] = (entry["beats"], self._clock())
            return False
        return self._clock() - since > GRACE

    def _write(self, ended: bool) -> None:
        pid = os.getpid()
        entry = {
            "host": socket.gethostname(),
            "pid": pid,
            "started": _started(pid),
            "beats": self._beats,
            "ended": ended,
        }
        self._study.set_user_attr(_PREFIX + self.me, entry)


def _started(pid: int) -> str | None:
    """When a process of this machine was started, which tells it from a later one of the same number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
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
