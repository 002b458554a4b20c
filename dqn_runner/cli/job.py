"""One job of the program: a typed configuration, made from the composed one and a stored run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dqn_runner.checkpointing.checkpointer import LATEST
from dqn_runner.checkpointing.recovery import has_checkpoints
from dqn_runner.config.overrides import parse_overrides
from dqn_runner.config.resume import AUTO, NEVER, Stored, read_stored, restore
from dqn_runner.config.schema import (
    Mode,
    RunConfig,
    apply_env_target,
    check_keys,
    to_plain_config,
    to_typed_config,
)
from dqn_runner.core.exceptions import UserError
from dqn_runner.run.compatibility import SESSION_KEYS


@dataclass(frozen=True)
class Job:
    """What the program runs: a typed configuration, and where it comes from and goes to."""

    run: RunConfig
    run_dir: Path
    stored: Stored | None
    """The stored run that is continued or evaluated."""
    changes: list[str]
    """What the command changes in it, as `key: old -> new`."""
    source: dict[str, Any]
    """What its checkpoints store to identify the run and to compose it again."""
    group: str | None
    """Shared by the runs of a sweep."""


def make_job(cfg: DictConfig) -> Job:
    """The job that a composed configuration describes; settings that it does not change are the stored ones.

    Raises UserError for unknown keys, and for a stored run that does not exist or does not fit.
    """
    hydra = HydraConfig.get()
    overrides = list(hydra.overrides.task)
    check_keys(cfg)
    apply_env_target(cfg, {override.key_or_group for override in parse_overrides(overrides)})
    run_dir = Path(hydra.runtime.output_dir)
    stored = _find_stored(cfg, run_dir)
    changes = restore(cfg, stored, overrides) if stored else []
    run = to_typed_config(cfg)
    source = {
        "config": {key: value for key, value in to_plain_config(cfg).items() if key != "study"},
        "overrides": _without_session_keys(overrides),
        "config_name": hydra.job.config_name,
        "config_dir": _config_dir(hydra),
    }
    sweep = Path(hydra.sweep.dir).name if hydra.mode is RunMode.MULTIRUN else None
    return Job(run, run_dir, stored, changes, source, run.study.name or sweep)


def _find_stored(cfg: DictConfig, run_dir: Path) -> Stored | None:
    """The stored run that this command continues or evaluates, if it does."""
    path: str | None = cfg.checkpoint.path
    if cfg.mode is Mode.eval:
        if cfg.resume not in (AUTO, NEVER):
            raise UserError("mode=eval takes checkpoint=PATH, not resume=")
        return read_stored(path, "checkpoint") if path else None
    if path is not None:
        raise UserError("checkpoint= is for mode=eval; use resume= to continue training")
    if cfg.resume not in (AUTO, NEVER):
        return read_stored(cfg.resume, "resume")
    if not has_checkpoints(run_dir):
        return None
    if cfg.resume == NEVER:
        raise UserError(
            f"{run_dir} already holds a run, and resume=never needs a fresh directory; choose another"
        )
    return read_stored(str(run_dir / "checkpoints" / LATEST), "resume")


def _without_session_keys(overrides: Sequence[str]) -> list[str]:
    """The overrides that make the configuration of the run, without those of this command only."""
    kept = [o for o in parse_overrides(overrides) if not o.key_or_group.startswith("study.")]
    return [o.input_line or "" for o in kept if o.key_or_group not in SESSION_KEYS]


def _config_dir(hydra: Any) -> str | None:
    """The directory given with --config-dir."""
    return next((s.path for s in hydra.runtime.config_sources if s.provider == "command-line"), None)
