"""Notices what parts of the user's own keep from call to call although no checkpoint stores it."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.own_parts import parts_without_state

_MOST_BYTES = 2**20
"""Larger attributes are not compared: that would delay every checkpoint."""


class UnstoredState:
    """Compares the attributes of such parts between one saved state and the next.

    What is computed once, in the first call, does not change from then on, and a resumed run finds it again.
    """

    def __init__(self, agent: DQNAgent) -> None:
        """Watch the parts of `agent`, but not the moments of its optimizer, which every checkpoint has."""
        self._parts = [*parts_without_state(agent.config)]
        moments = agent.learner.moments
        self._stored = {id(moments), *map(id, moments.values())}
        self._seen: dict[str, str] = {}
        self._reported: set[str] = set()

    def changed(self) -> list[str]:
        """What has changed since the last call, each once: `exploration=my.Class: its attribute left`."""
        found: list[str] = []
        for key, part in self._parts:
            for name, value in _attributes(part).items():
                if id(value) in self._stored:
                    continue
                where, now = f"{key}: its attribute {name}", _fingerprint(value)
                if self._seen.get(where, now) != now and where not in self._reported:
                    found.append(where)
                self._seen[where] = now
        self._reported.update(found)
        return found


def _attributes(part: object) -> dict[str, Any]:
    """The attributes of an object, those in slots too."""
    slots = [getattr(cls, "__slots__", ()) for cls in type(part).__mro__]
    names = [name for each in slots for name in ((each,) if isinstance(each, str) else each)]
    return {**getattr(part, "__dict__", {}), **{name: getattr(part, name, None) for name in names}}


class _Digest:
    """A file that keeps a hash of what is written to it, and does not take much."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self._left = _MOST_BYTES

    def write(self, data: Any) -> None:
        self._left -= memoryview(data).nbytes
        if self._left < 0:
            raise ValueError("too large")
        self.hash.update(data)


def _fingerprint(value: Any) -> str:
    """Differs between different contents; of what cannot be copied, or is large, nothing is known."""
    digest: Any = _Digest()
    try:
        pickle.Pickler(digest, pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception:  # pickling can call code of the user
        return ""
    return digest.hash.hexdigest()
