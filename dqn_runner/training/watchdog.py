"""Ends a run whose environment hangs in this process, where nothing can interrupt it."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType

from dqn_runner.core import exit_codes
from dqn_runner.core.log import log

_PACKAGE = __name__.partition(".")[0]
_CALLERS = tuple(f"{_PACKAGE}.{name}" for name in ("envs.worker", "envs.checked_env", "training.evaluator"))
"""The modules that call environments."""


class Watchdog:
    """Context manager that ends the process if a call of an environment takes longer than `timeout` seconds.

    A thread looks at the stack of the thread that entered it, so that a step costs nothing. It cannot look
    while code in C holds the interpreter.
    """

    def __init__(self, timeout: float | None, advice: str, at_end: Callable[[], None] = lambda: None) -> None:
        """Without a `timeout` there is nothing to watch.

        `advice` says what to do after the end, before which `at_end` is called.
        """
        self._timeout = timeout
        self._advice = advice
        self._at_end = at_end
        self._stop = threading.Event()
        self._watched = 0

    def __enter__(self) -> None:
        """Start to watch the current thread."""
        self._watched = threading.get_ident()
        if self._timeout is not None:
            threading.Thread(target=self._watch, args=(self._timeout,), name="watchdog", daemon=True).start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop watching."""
        self._stop.set()

    def _watch(self, timeout: float) -> None:
        """Look four times per `timeout` whether the same call is still on the stack."""
        call, seen = None, 0
        while not self._stop.wait(timeout / 4):
            frame = sys._current_frames().get(self._watched)  # pyright: ignore[reportPrivateUsage]
            now = None if frame is None else _call_of_env(frame)
            call, seen = now, seen + 1 if now is not None and now is call else 0
            if seen > 4 and frame is not None:
                self._end_process(_place(frame), "".join(traceback.format_stack(frame)))
                return

    def _end_process(self, place: str, stack: str) -> None:
        """Report that an environment hangs at `place`, and end the process; the last checkpoint is intact."""
        message = (
            f"an environment did not finish a step, reset or close within trainer.env_timeout, at {place}; "
            f"{self._advice}"
        )
        log.error("%s\n%s", message, stack)
        print(f"error: {message}", file=sys.stderr, flush=True)
        self._at_end()
        os._exit(exit_codes.FAILED)


def _call_of_env(frame: FrameType | None) -> FrameType | None:
    """The outermost frame of an environment that was called by this package; None if there is none."""
    found, inner = None, None
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if inner is not None and name in _CALLERS and not _is_ours(inner):
            found = inner
        inner, frame = frame, frame.f_back
    return found


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith(f"{_PACKAGE}.")


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"
