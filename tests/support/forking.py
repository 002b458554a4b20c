"""An environment that forks a helper process, which ends by an exception instead of os._exit."""

from __future__ import annotations

import os
import sys
from typing import Any

from tests.support.counter import Counter


class Forking(Counter):
    """Each reset forks a process that ends in the way `end`: "_exit", "exit" or "raise"."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self.end = end

    def reset(self, **kwargs: Any) -> Any:
        child = os.fork()
        if child == 0:
            if self.end == "_exit":
                os._exit(3)
            if self.end == "exit":
                sys.exit(3)
            raise RuntimeError("in the helper")
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != (1 if self.end == "raise" else 3):
            raise ValueError("the helper ended otherwise")
        return super().reset(**kwargs)
