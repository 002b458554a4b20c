"""Training time of a run, over all its sessions and between its log lines."""

from __future__ import annotations

import math
import time


class Stopwatch:
    """Measures training time in seconds; training never depends on it."""

    def __init__(self) -> None:
        """Start at zero seconds and env step 0."""
        self.start(0.0, 0)

    def start(self, before: float, step: int) -> None:
        """Start a session at env step `step`; earlier sessions took `before` seconds."""
        self._before = before
        self._started = self._last = time.perf_counter()
        self._last_step = step

    @property
    def elapsed(self) -> float:
        """Seconds of training, over all sessions."""
        return self._before + time.perf_counter() - self._started

    def eta(self, done: float) -> float:
        """Seconds left at the average speed of the run when the fraction `done` is complete; NaN at 0.

        A run that continues with a smaller budget than it has used has none left.
        """
        return self.elapsed * max(0.0, 1 - done) / done if done > 0 else math.nan

    def lap(self, step: int) -> float:
        """Env steps per second since the last call; NaN if there were none."""
        now, steps = time.perf_counter(), step - self._last_step
        seconds, self._last, self._last_step = now - self._last, now, step
        return steps / seconds if steps and seconds > 0 else math.nan
