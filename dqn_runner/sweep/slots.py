"""The slots of a sweep: threads that run jobs, stopped together by a signal or by the first error."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from dqn_runner.io.signals import StopSignals
from dqn_runner.sweep.jobs import Jobs, say


class Slots:
    """Runs the same work in several threads; the jobs that they wait for end when the sweep shall."""

    def __init__(self, number: int, jobs: Jobs, look_after: Callable[[], None]) -> None:
        """`look_after` is called several times a second meanwhile."""
        self._number = number
        self._jobs = jobs
        self._look_after = look_after
        self._error: BaseException | None = None

    def run(self, work: Callable[[int], None], signals: StopSignals) -> None:
        """Call `work(slot)` in every slot, and return when all have; raises the first error of one.

        A signal lets the jobs save and end; a second Ctrl-C kills them.
        """
        threads = [threading.Thread(target=self._guarded, args=(work, i)) for i in range(self._number)]
        for thread in threads:
            thread.start()
        try:
            while alive := [thread for thread in threads if thread.is_alive()]:
                alive[0].join(0.2)
                self._look_after()
                if signals.received and not self._jobs.stopping.is_set():
                    self._jobs.stop()
                    say("stopping: the jobs save their state, and the same command goes on")
        except KeyboardInterrupt:
            self._jobs.stop(signal.SIGKILL)
            raise
        except BaseException:
            self._jobs.stop()
            raise
        if self._error is not None:
            raise self._error

    def _guarded(self, work: Callable[[int], None], slot: int) -> None:
        try:
            work(slot)
        except BaseException as error:
            self._error = self._error or error
            self._jobs.stop()
