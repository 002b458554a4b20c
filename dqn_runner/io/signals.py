"""Signals that ask a run to stop, as a wish that the training loop reads between steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""The last two are what clusters send before they take a machine away."""


class StopSignals:
    """While entered, the first signal is only noted; a second SIGINT interrupts at once.

    Outside the main thread Python cannot handle signals, and nothing is changed; nor is anything for signals
    that the process ignores.
    """

    def __init__(self) -> None:
        """No signal has come yet."""
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        """Take over the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in HANDLED:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def pass_on(self) -> None:
        """Let the signal have the effect that it would have had, which as a rule ends the process.

        A launcher's handler may instead put the job back into its queue, or return: then the run goes on.
        """
        number, self.received = self.received, None
        if number is None:
            return
        handler = self._previous[number]
        if not callable(handler):
            raise SystemExit(128 + number)
        handler(number, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
