"""The time that a run takes: over all its sessions, and between its log lines."""

from __future__ import annotations

import math
import time


class Stopwatch:
    """Seconds of training; nothing that the run does depends on them."""

    def __init__(self) -> None:
        """It runs from now on."""
        self.start(0.0, 0)

    def start(self, before: float, step: int) -> None:
        """Begin a session at env step `step`, after sessions of `before` seconds."""
        self._before = before
        self._started = self._last = time.perf_counter()
        self._last_step = step

    @property
    def elapsed(self) -> float:
        """Seconds of training, over all sessions."""
        return self._before + time.perf_counter() - self._started

    def eta(self, done: float) -> float:
        """Seconds left at the run's average speed, of which the share `done` is over; NaN at 0."""
        return self.elapsed * (1 - done) / done if done > 0 else math.nan

    def lap(self, step: int) -> float:
        """Env steps per second since the last call; NaN where none was made."""
        now, steps = time.perf_counter(), step - self._last_step
        seconds, self._last, self._last_step = now - self._last, now, step
        return steps / seconds if steps and seconds > 0 else math.nan
