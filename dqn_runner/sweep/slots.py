"""The slots of a sweep: threads that run jobs, stopped together by a signal or by the first error."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dqn_runner.io.signals import StopSignals
from dqn_runner.sweep.jobs import Jobs, print_status


class Slots:
    """Runs the same function in several threads, and stops their jobs when the sweep is to end."""

    def __init__(self, number: int, jobs: Jobs, poll: Callable[[], None]) -> None:
        """`poll` is called several times a second while the threads run."""
        self._number = number
        self._jobs = jobs
        self._poll = poll
        self._error: BaseException | None = None

    def run(self, work: Callable[[int], None], signals: StopSignals) -> None:
        """Call `work(slot)` in every slot, and return when all calls have; raises the first error of one.

        After a signal the jobs save their state and end; a second Ctrl-C kills them.
        """
        threads = [threading.Thread(target=self._run_slot, args=(work, i)) for i in range(self._number)]
        for thread in threads:
            thread.start()
        try:
            while alive := [thread for thread in threads if thread.is_alive()]:
                alive[0].join(0.2)
                self._poll()
                if signals.received and not self._jobs.stopping.is_set():
                    self._jobs.stop()
                    print_status("stopping: the jobs save their state; repeat the command to continue")
        except KeyboardInterrupt:
            self._jobs.kill()
            raise
        except BaseException:
            self._jobs.stop()
            raise
        if self._error is not None:
            raise self._error

    def _run_slot(self, work: Callable[[int], None], slot: int) -> None:
        try:
            work(slot)
        except BaseException as error:
            self._error = self._error or error
            self._jobs.stop()
