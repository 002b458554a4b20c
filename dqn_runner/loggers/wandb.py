"""Weights & Biases logger."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.log import log
from dqn_runner.core.records import Record, RunInfo
from dqn_runner.core.registry import option
from dqn_runner.core.settings import check_settings
from dqn_runner.core.state import State
from dqn_runner.loggers.base import Logger

_MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")
"""The modes that W&B itself accepts."""


class WandbMode(Enum):
    """Where Weights & Biases stores the run."""

    online = "online"
    offline = "offline"


@option("logging", "wandb", package="logging.wandb")
@dataclass(kw_only=True)
class Wandb:
    """Weights & Biases; one W&B run per run directory, which a resume continues."""

    state_type: ClassVar[type] = dict[str, str]

    project: str | None = None
    """W&B project; null: WANDB_PROJECT, else `dqn_runner`."""
    entity: str | None = None
    """W&B user or team; null: WANDB_ENTITY, else the default one."""
    name: str | None = None
    """Name of the W&B run; null: WANDB_NAME, else the name of the run directory."""
    group: str | None = None
    """W&B group; null: WANDB_RUN_GROUP, else one group for the runs of a sweep."""
    tags: list[str] = field(default_factory=list[str])
    """Tags of the W&B run; without any, WANDB_TAGS."""
    mode: WandbMode | None = None
    """null: WANDB_MODE, else `online`. `offline` writes into the run directory, or WANDB_DIR; upload it later
    with `wandb sync`."""

    __post_init__ = check_settings

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """Open a W&B run; without a connection or an API key, log a warning and store it offline."""
        import wandb

        quiet: dict[str, Any] = {"console": "off", "silent": True, "init_timeout": 30}
        arguments: dict[str, Any] = {
            "project": self.project or _unless_set("WANDB_PROJECT", "dqn_runner"),
            "entity": self.entity,
            "name": self.name or _unless_set("WANDB_NAME", info.name),
            "group": self.group or _unless_set("WANDB_RUN_GROUP", info.group),
            "tags": self.tags or None,
            "config": dict(info.config),
            "dir": _unless_set("WANDB_DIR", str(run_dir)),
            "id": None if state is None else state["id"],
            "resume": "allow",
            "settings": wandb.Settings(
                **{key: value for key, value in quiet.items() if _unless_set(f"WANDB_{key.upper()}", True)}
            ),
        }
        mode = self.mode.value if self.mode else _unless_set("WANDB_MODE", "online")
        try:
            run = wandb.init(**arguments, mode=mode)
        except Exception as error:
            asked = mode or os.environ["WANDB_MODE"]
            if asked not in _MODES:
                raise UserError(f"WANDB_MODE={asked} is not one of {', '.join(_MODES)}") from error
            if asked == "offline":
                raise
            reason = str(error).partition("\n")[0]
            log.warning("Weights & Biases cannot be reached (%s); the run is stored offline", reason)
            run = wandb.init(**arguments, mode="offline")
        return _Wandb(run)


def _unless_set(variable: str, value: Any) -> Any:
    """`value`, or None if the environment variable is set: W&B takes it from there."""
    return None if os.environ.get(variable) else value


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

    def write_video(self, path: Path, step: int) -> None:
        import wandb

        suffix: Any = path.suffix[1:]
        self._run.log({"eval/video": wandb.Video(str(path), format=suffix)}, step=step)

    def state_dict(self) -> State:
        return {"id": self._run.id}

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
