"""Notices what parts of the user's own keep from call to call although no checkpoint stores it."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.own_parts import parts_without_state


class UnstoredState:
    """Compares the attributes of such parts between one saved state and the next.

    What is computed once, in the first call, does not change from then on, and a resumed run finds it again.
    """

    def __init__(self, agent: DQNAgent) -> None:
        """Watch the parts of `agent`; the moments of its optimizer are stored, whoever holds them."""
        self._parts = [*parts_without_state(agent.config)]
        moments = agent.learner.moments
        self._stored = {id(moments), *map(id, moments.values())}
        self._seen: dict[str, str] = {}
        self._reported: set[str] = set()

    def changed(self) -> list[str]:
        """What has changed since the last call, each once: `exploration=my.Class: its attribute left`."""
        found: list[str] = []
        for key, part in self._parts:
            for name, value in getattr(part, "__dict__", {}).items():
                if id(value) in self._stored:
                    continue
                where, now = f"{key}: its attribute {name}", _fingerprint(value)
                if self._seen.get(where, now) != now and where not in self._reported:
                    found.append(where)
                self._seen[where] = now
        self._reported.update(found)
        return found


def _fingerprint(value: Any) -> str:
    """Differs between different contents; of what cannot be copied, nothing is known."""
    try:
        return hashlib.sha256(pickle.dumps(value)).hexdigest()
    except Exception:  # pickling can call code of the user
        return ""
