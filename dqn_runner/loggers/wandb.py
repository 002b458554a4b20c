"""Weights & Biases logger."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from dqn_runner.core.log import log
from dqn_runner.core.records import Record, RunInfo
from dqn_runner.core.registry import option
from dqn_runner.core.state import State
from dqn_runner.loggers.base import Logger


class WandbMode(Enum):
    """Where Weights & Biases stores the run."""

    online = "online"
    offline = "offline"


@option("logging", "wandb", package="logging.wandb")
@dataclass(kw_only=True)
class Wandb:
    """Weights & Biases; one W&B run per run directory, which a resume continues."""

    state_type: ClassVar[type] = dict[str, str]

    project: str = "dqn_runner"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null selects the default one."""
    name: str | None = None
    """Name of the W&B run; null selects the name of the run directory."""
    group: str | None = None
    """W&B group; null puts the runs of a sweep into one group."""
    tags: list[str] = field(default_factory=list[str])
    """Tags of the W&B run."""
    mode: WandbMode = WandbMode.online
    """`offline` writes into the run directory; upload it later with `wandb sync`."""

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """Open a W&B run; without a connection or an API key, log a warning and store it offline."""
        import wandb

        arguments: dict[str, Any] = {
            "project": self.project,
            "entity": self.entity,
            "name": self.name or info.name,
            "group": self.group or info.group,
            "tags": self.tags,
            "config": dict(info.config),
            "dir": str(run_dir),
            "id": None if state is None else state["id"],
            "resume": "allow",
            "settings": wandb.Settings(console="off", silent=True, init_timeout=30),
        }
        try:
            run = wandb.init(**arguments, mode=self.mode.value)
        except Exception as error:
            if self.mode is WandbMode.offline:
                raise
            reason = str(error).partition("\n")[0]
            log.warning("Weights & Biases cannot be reached (%s); the run is stored offline", reason)
            run = wandb.init(**arguments, mode="offline")
        return _Wandb(run)


class _Wandb:
    def __init__(self, run: Any) -> None:
        self._run = run
        self._broken = False

    def write(self, record: Record) -> None:
        if self._broken:
            return
        try:
            self._run.log({**record.values, "episode": record.episode}, step=record.step)
        except Exception as error:
            self._broken = True
            log.warning(
                "Weights & Biases no longer accepts records (%s); training continues without it", error
            )

    def state_dict(self) -> State:
        return {"id": self._run.id}

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
