"""Messages through a pipe between two processes: a reader never waits for a writer that died."""

from __future__ import annotations

import os
import pickle
import select
import struct
import time
from collections.abc import Callable
from typing import Any

_LENGTH = struct.Struct("!Q")
_CHUNK = 1 << 16
_CHECK_MS = 1000
"""Milliseconds between two checks whether the writer is alive."""


def write_message(descriptor: int, message: Any) -> None:
    """Write a message; blocks while the pipe is full. Raises OSError if the reader is gone."""
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    rest = memoryview(_LENGTH.pack(len(content)) + content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class MessageReader:
    """Reads messages from a pipe whose writer may die in the middle of one."""

    def __init__(self, descriptor: int, is_alive: Callable[[], bool]) -> None:
        """`is_alive` says whether the writer is: a child of a dead one may hold its end of the pipe open."""
        self._descriptor = descriptor
        self._is_alive = is_alive
        self._received = bytearray()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def read(self, timeout: float | None = None) -> Any:
        """Wait for the next message and return it.

        Raises EOFError if the writer is gone, TimeoutError after `timeout` seconds without a whole message.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (missing := self._missing()) > 0:
            self.wait(deadline)
            try:
                chunk = os.read(self._descriptor, max(missing, _CHUNK))
            except OSError:
                raise EOFError from None
            if not chunk:
                raise EOFError
            self._received += chunk
        end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
        message = pickle.loads(memoryview(self._received)[_LENGTH.size : end])
        self._received = self._received[end:]
        return message

    def wait(self, deadline: float | None = None) -> None:
        """Wait until there is something to read, with the exceptions of `read`."""
        while True:
            pause = _CHECK_MS
            if deadline is not None:
                pause = min(pause, max(0, int((deadline - time.monotonic()) * 1000)))
            if self._poll.poll(pause):
                return
            if not self._is_alive() and not self._poll.poll(0):
                raise EOFError
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError

    def _missing(self) -> int:
        """Bytes that the first message lacks, as far as is known."""
        found = len(self._received)
        if found < _LENGTH.size:
            return _LENGTH.size - found
        return _LENGTH.size + _LENGTH.unpack_from(self._received)[0] - found
