"""Which of the processes that share a study are alive; the trials of dead ones are run by others."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.trial_record import store_worker, workers_of

if TYPE_CHECKING:
    import optuna

INTERVAL = 20.0
"""Seconds between two heartbeats."""
GRACE_PERIOD = 120.0
"""Seconds without a heartbeat after which a process on another machine counts as dead."""


class Heartbeat:
    """The heartbeat of this process, and those of the other processes that work on a study.

    Each process increments a counter in the study while it is alive. A process on this machine is looked up
    by its number instead. For a process on another machine only the change of its counter matters, measured
    by the clock of this machine.
    """

    def __init__(self, study: optuna.Study, clock: Callable[[], float] = time.monotonic) -> None:
        """Store the first heartbeat of this process."""
        self.worker = uuid.uuid4().hex[:12]
        """The identifier of this process in the study."""
        self._study = study
        self._clock = clock
        self._beats = 0
        self._last_change: dict[str, tuple[int | None, float]] = {}
        self._write(ended=False)
        self._last = clock()

    def record(self) -> None:
        """Store a heartbeat, if one is due."""
        if self._clock() - self._last >= INTERVAL:
            self._last = self._clock()
            self._beats += 1
            self._write(ended=False)

    def leave(self) -> None:
        """Store that this process has ended; if that fails, the others notice it by themselves."""
        with suppress(UserError):
            self._write(ended=True)

    def is_unclaimed(self, trial: int) -> bool:
        """Whether the process that created a trial died before it stored its identifier in it."""
        others = [worker for worker in workers_of(self._study) if worker != self.worker]
        return all(map(self.is_stale, others)) or self._is_unchanged(f"trial {trial}", None)

    def is_stale(self, worker: str) -> bool:
        """Whether the process `worker` has ended or died, and will not finish its trials."""
        entry = workers_of(self._study).get(worker)
        if worker == self.worker or entry is None:
            return entry is None
        if entry["ended"]:
            return True
        if entry["host"] == _host():
            return _start_time(entry["pid"]) != entry["started"]
        return self._is_unchanged(worker, entry["beats"])

    def _is_unchanged(self, name: str, value: int | None) -> bool:
        """Whether `name` has had this value for longer than the grace period."""
        before, since = self._last_change.get(name, (..., 0.0))
        if before != value:
            self._last_change[name] = (value, self._clock())
            return False
        return self._clock() - since > GRACE_PERIOD

    def _write(self, ended: bool) -> None:
        pid = os.getpid()
        entry = {
            "host": _host(),
            "pid": pid,
            "started": _start_time(pid),
            "beats": self._beats,
            "ended": ended,
        }
        store_worker(self._study, self.worker, entry)


def _host() -> str:
    """The scope of process numbers: a host, or a container on it."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {namespace.readlink()}" if namespace.exists() else socket.gethostname()


def _start_time(pid: int) -> str | None:
    """The start time of a process, in clock ticks since boot; it distinguishes a reused number.

    None if the process is dead, including a zombie: the first process of a container may not collect its
    children. Ticks since boot never change. `psutil.Process.create_time` is not used because it adds
    the boot time by the system clock: after a change of the clock, a running process would look dead.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    except FileNotFoundError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    return "running" if psutil.pid_exists(pid) else None
