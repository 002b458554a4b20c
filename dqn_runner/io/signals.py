"""Deferred handling of the signals that stop a run: the training loop checks for them between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, ClassVar

from dqn_runner.core import exit_codes
from dqn_runner.io.forks import end_if_forked

HANDLED = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
    if name in signal.Signals.__members__
)
"""Clusters send SIGUSR1 or SIGUSR2 before they end a job; a terminal that is closed sends SIGHUP. Windows has
none of these three."""


class SignalExit(SystemExit):
    """The program ends because of a signal."""


class UnexpectedExit(Exception):  # noqa: N818, named after SystemExit
    """Code of the user raised an exception that is not an error, such as SystemExit."""


def as_error(raised: BaseException) -> Exception:
    """Return what code of the user raised, as an error; raises it if it is due to a signal.

    Outside `StopSignals`, any KeyboardInterrupt is taken to be due to Ctrl-C. In a process that this code
    forked it does not return (see `forks`).
    """
    end_if_forked(raised)
    if isinstance(raised, Exception):
        return raised
    if isinstance(raised, SignalExit):
        raise raised
    if isinstance(raised, KeyboardInterrupt) and (
        StopSignals.active is None or StopSignals.active.interrupted
    ):
        raise raised
    return UnexpectedExit(f"{type(raised).__name__}({', '.join(map(repr, raised.args))}) was raised")


@contextmanager
def exits_as_errors() -> Generator[None]:
    """Within the block, raise as an error what `as_error` returns."""
    try:
        yield
    except BaseException as raised:
        if (error := as_error(raised)) is raised:
            raise
        raise error from raised


class StopSignals:
    """Context manager that records the first signal instead of handling it; a second SIGINT interrupts.

    Signals that the process ignores stay ignored. Outside the main thread it has no effect, because Python
    cannot handle signals there.
    """

    active: ClassVar[StopSignals | None] = None
    """The one that handles signals now."""

    def __init__(self) -> None:
        self.interrupted = False
        """Whether a signal raised KeyboardInterrupt, and not code of the user."""
        self.received: signal.Signals | None = None
        """The signal that was received last; None if there was none."""
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            StopSignals.active = self
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
        if StopSignals.active is self:
            StopSignals.active = None
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def is_received(self) -> bool:
        """Whether a signal was received that has not taken effect."""
        return self.received is not None

    def pass_on(self) -> None:
        """Call the previous handler of the received signal, which usually ends the process.

        The handler of a launcher may instead requeue the job, or return; then the run continues.
        """
        number, self.received = self.received, None
        if number is None:
            return
        handler = self._previous[number]
        if not callable(handler):
            raise SignalExit(exit_codes.SIGNAL_BASE + number)
        try:
            handler(number, None)
        except SystemExit as end:
            raise SignalExit(end.code) from end
        except KeyboardInterrupt:
            self.interrupted = True
            raise

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            self.interrupted = True
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
