"""Deferred handling of the signals that stop a run: the training loop checks for them between steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from dqn_runner.core import exit_codes

HANDLED = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if name in signal.Signals.__members__
)
"""Clusters send SIGUSR1 or SIGUSR2, which Windows lacks, before they end a job."""


class StopSignals:
    """Context manager that records the first signal instead of handling it; a second SIGINT interrupts.

    Signals that the process ignores stay ignored. Outside the main thread it has no effect, because Python
    cannot handle signals there.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        """The signal that was received last; None if there was none."""
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in HANDLED:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._record)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def pass_on(self) -> None:
        """Call the previous handler of the received signal, which usually ends the process.

        The handler of a launcher may instead requeue the job, or return; then the run continues.
        """
        number, self.received = self.received, None
        if number is None:
            return
        handler = self._previous[number]
        if not callable(handler):
            raise SystemExit(exit_codes.SIGNAL_BASE + number)
        handler(number, None)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
