"""Settings that every replay has."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.settings import check_settings, setting


@dataclass(kw_only=True)
class ReplaySettings:
    """How many transitions a replay holds, and with which it begins."""

    capacity: int = setting(50_000, at_least=1)
    """Maximum number of transitions; new ones replace the oldest."""
    preload: str | None = None
    """Recorded transitions that fill the replay before the first env step: an .npz file, as mode=record
    writes it, or `minari:DATASET`; null for an empty replay (docs/howto/offline-data.md)."""
    demonstrations: float = setting(0.0, at_least=0, at_most=1)
    """Share of each batch that is reserved for the preloaded transitions, which are then kept for the whole
    run, beside `capacity`; 0 makes them ordinary transitions."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        if isinstance(self.preload, os.PathLike):
            self.preload = os.fspath(self.preload)
        check_settings(self)
        if self.preload == "":
            raise UserError("agent.replay.preload is empty; give an .npz file, minari:DATASET, or null")
        if self.demonstrations and self.preload is None:
            raise UserError(
                f"agent.replay.demonstrations={self.demonstrations:g} is a share of preloaded transitions; "
                "set agent.replay.preload to a recording, or demonstrations to 0"
            )
