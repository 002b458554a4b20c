"""One job of the program: a typed configuration, made from the composed one and a stored run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dqn_runner.checkpointing.names import CHECKPOINTS, LATEST
from dqn_runner.checkpointing.recovery import has_checkpoints
from dqn_runner.config import trust
from dqn_runner.config.environment import as_stored, digests, with_digests
from dqn_runner.config.overrides import parse_overrides, written_overrides
from dqn_runner.config.resume import AUTO, NEVER, Stored, changes_of, read_stored, restore
from dqn_runner.config.schema import (
    Mode,
    RunConfig,
    apply_targets,
    check_keys,
    fit_defaults,
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

    @property
    def comparable_config(self) -> dict[str, Any]:
        """The configuration, as `Stored.comparable_config`."""
        return with_digests(self.source["config"], self.source.get("environment", {}))


def make_job(cfg: DictConfig, command: Sequence[str]) -> Job:
    """The job that a composed configuration describes; settings that it does not change are the stored ones.

    `command` is the command line as the user gave it, without what a stored run adds. Raises UserError for
    unknown keys, and for a stored run that does not exist, does not fit, or asks for what is not granted.
    """
    hydra = HydraConfig.get()
    overrides = list(written_overrides(hydra.overrides.task))
    check_keys(cfg)
    apply_targets(cfg, {override.key_or_group for override in parse_overrides(overrides)})
    if cfg.resume not in (AUTO, NEVER) and not any(
        token.lstrip("+").startswith("resume=") for token in command
    ):
        raise UserError(
            f"resume={cfg.resume} is in a file, but Hydra composes with the settings of the stored run: take "
            "it out of the file, and write it in the command"
        )
    run_dir = Path(hydra.runtime.output_dir)
    stored = _find_stored(cfg, run_dir)
    changes = _restore(cfg, stored, overrides, command) if stored else []
    fit_defaults(cfg)
    run = to_typed_config(cfg)
    source = {
        "config": {key: value for key, value in to_plain_config(cfg).items() if key != "study"},
        "overrides": _without_session_keys(overrides),
        "config_name": hydra.job.config_name,
        "config_dir": _config_dir(hydra),
    }
    if hidden := as_stored(cfg).hidden:
        source["environment"] = digests(hidden, cfg.seed)
    sweep = Path(hydra.sweep.dir).name if hydra.mode is RunMode.MULTIRUN else None
    return Job(run, run_dir, stored, changes, source, run.study.name or sweep)


def _restore(cfg: DictConfig, stored: Stored, overrides: Sequence[str], command: Sequence[str]) -> list[str]:
    """Restore the stored settings; without `trust`, only what the command grants is resolved or imported."""
    if cfg.trust:
        restore(cfg, stored, overrides)
        return changes_of(cfg, stored)
    source = str(stored.path)
    own: Callable[[], set[trust.Request]]
    if cfg.resume in (AUTO, NEVER) and cfg.checkpoint.path is None:
        own = trust.in_config(cfg).copy  # what the command composes, before `restore` changes it
    else:
        own = cache(trust.Command(command).requests)  # asked for only if needed: it composes the command
    texts = trust.in_overrides(_not_replaced(stored, overrides)) | trust.in_tree(_written(cfg))
    trust.grant(source, trust.resolver_calls(texts), own)
    restore(cfg, stored, overrides)
    trust.grant(source, trust.resolver_calls(trust.in_tree(_written(cfg))), own)
    trust.grant(source, trust.in_config(cfg), own)
    return changes_of(cfg, stored)


def _not_replaced(stored: Stored, overrides: Sequence[str]) -> list[Override]:
    """The stored overrides that the command does not replace."""
    ours = {o.key_or_group for o in parse_overrides(overrides) if o.input_line not in stored.overrides}
    return [o for o in parse_overrides(stored.overrides) if o.key_or_group not in ours]


def _written(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg, enum_to_str=True)


def _find_stored(cfg: DictConfig, run_dir: Path) -> Stored | None:
    """The stored run that this command continues or evaluates, if it does."""
    path: str | None = cfg.checkpoint.path
    if cfg.mode is not Mode.train:
        if cfg.resume not in (AUTO, NEVER):
            raise UserError(f"mode={cfg.mode.value} takes checkpoint=PATH, not resume=")
        return read_stored(path, "checkpoint") if path and cfg.mode is not Mode.report else None
    if path is not None:
        raise UserError(
            "checkpoint= is for mode=eval, play, export, publish, record and report; use resume= to continue "
            "training"
        )
    if cfg.resume not in (AUTO, NEVER):
        return read_stored(cfg.resume, "resume")
    if not has_checkpoints(run_dir):
        return None
    if cfg.resume == NEVER:
        raise UserError(
            f"{run_dir} already holds a run, and resume=never needs a fresh directory; choose another"
        )
    return read_stored(str(run_dir / CHECKPOINTS / LATEST), "resume")


def _without_session_keys(overrides: Sequence[str]) -> list[str]:
    """The overrides that make the configuration of the run, without those of this command only."""
    parsed = parse_overrides(overrides)
    return [o.input_line or "" for o in parsed if o.key_or_group.partition(".")[0] not in SESSION_KEYS]


def _config_dir(hydra: Any) -> str | None:
    """The directory given with --config-dir."""
    return next((s.path for s in hydra.runtime.config_sources if s.provider == "command-line"), None)
