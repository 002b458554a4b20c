"""Sends what a run logs to a server, on a thread: a server that is slow or fails does not delay training."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from dqn_runner.core.log import log
from dqn_runner.core.secrets import redact

MOST = 10_000
"""Calls that are kept while the server does not answer; the oldest are dropped."""
_RETRY = (1.0, 60.0)
"""Seconds from a failed call to the next one: at first, and at most."""


class Sender:
    """Makes calls one after the other; one that fails is repeated, with growing pauses, until `close`."""

    def __init__(self, name: str, first: Callable[[], None]) -> None:
        """`name` is the server in messages; `first` opens the connection."""
        self._name = name
        self._calls: deque[Callable[[], None]] = deque([first], maxlen=MOST)
        self._changed = threading.Condition()
        self._failures = 0
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._work, name=f"{name} sender", daemon=True)
        self._thread.start()

    def put(self, call: Callable[[], None]) -> None:
        """Add a call."""
        with self._changed:
            if len(self._calls) == MOST:  # the call in front opens the connection, or is being made
                del self._calls[1]
            self._calls.append(call)
            self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        """Wait until every call was made or one has failed, for `timeout` seconds at most."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._calls or self._failures > 0, timeout):
                self._report(f"no answer within {timeout:g} seconds")

    def close(self, timeout: float) -> None:
        """Make the remaining calls, for `timeout` seconds at most, and report what could not be sent."""
        with self._changed:
            self._deadline = time.monotonic() + timeout
            self._changed.notify_all()
        self._thread.join(timeout + 1)
        if self._calls:
            log.warning("%s did not get the last %d messages of this session", self._name, len(self._calls))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._calls or self._deadline is not None)
                if not self._calls:
                    return
                call = self._calls[0]
            try:
                call()
            except Exception as error:
                if not self._may_retry(error):
                    return
            else:
                with self._changed:
                    self._failures = 0
                    self._calls.popleft()
                    self._changed.notify_all()

    def _may_retry(self, error: Exception) -> bool:
        """Wait for the next attempt; returns whether there is time for one."""
        with self._changed:
            self._failures += 1
            if self._failures == 1:
                self._report(f"{type(error).__name__}: {error}")
            self._changed.notify_all()
            pause = min(_RETRY[0] * 2 ** (self._failures - 1), _RETRY[1])
            until = time.monotonic() + pause
            self._changed.wait_for(lambda: self._deadline is not None, pause)
            left = until - time.monotonic()
            if self._deadline is not None:
                left = min(left, _RETRY[0])  # a long pause must not use up the time that is left
            if self._deadline is not None and time.monotonic() + max(left, 0) >= self._deadline:
                return False
        time.sleep(max(0.0, left))
        return True

    def _report(self, reason: str) -> None:
        line = " ".join(redact(reason).split())
        log.warning(
            "%s cannot be reached (%.300s); training continues, and the server is tried again",
            self._name,
            line,
        )
