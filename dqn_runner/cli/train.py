"""The program: Hydra composes, one line makes typed objects of it, and the run begins."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from dqn_runner.checkpointing.checkpointer import LATEST
from dqn_runner.checkpointing.recovery import has_checkpoints
from dqn_runner.config import resume
from dqn_runner.config.overrides import parse_overrides
from dqn_runner.config.schema import Mode, RunConfig, apply_env_target, check_parts, to_plain_config
from dqn_runner.core.exceptions import DivergedError, PrunedError, RunFailedError, UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.sweep.objectives import run_metrics
from dqn_runner.sweep.trial_record import RunState

if TYPE_CHECKING:
    from dqn_runner.sweep.reporter import Reporter


def run_job(cfg: DictConfig, job: Any) -> float:
    from hydra.utils import instantiate  # late: `--help` does without it

    overrides = list(job.overrides.task)
    check_parts(cfg)
    apply_env_target(cfg, {override.key_or_group for override in parse_overrides(overrides)})
    run_dir = Path(job.runtime.output_dir)
    stored = _stored(cfg, run_dir)
    changes = resume.restore(cfg, stored, overrides) if stored else []
    run: RunConfig = instantiate(cfg, _convert_="object")
    torch.set_num_threads(run.threads)
    if run.mode is Mode.eval:
        return _evaluate(run, stored, run_dir, changes)
    source = {
        "config": {key: value for key, value in to_plain_config(cfg).items() if key != "study"},
        "overrides": _lasting(overrides),
        "config_name": job.job.config_name,
        "config_dir": _config_dir(job),
    }
    group = run.study.name or (Path(job.sweep.dir).name if resume.is_sweep(job.mode) else None)
    return _train(run, stored, run_dir, changes, source, group)


def _train(
    run: RunConfig,
    stored: resume.Stored | None,
    run_dir: Path,
    changes: Sequence[str],
    source: dict[str, Any],
    group: str | None,
) -> float:
    from dqn_runner.config.build import build_trainer
    from dqn_runner.run import provenance

    if stored:
        resume.check_compatible(stored.config, source["config"])
        if run.study.trial is not None and stored.overrides != source["overrides"]:
            raise UserError(
                f"{run_dir} holds a run that is not of this trial ({'; '.join(changes)}); choose another "
                "hydra.sweep.dir"
            )
        print("\n".join(["changed for this session:", *changes]) if changes else "nothing changed")
    reporter = _reporter(run)
    trainer = build_trainer(run, run_dir, source, group, reporter)
    trainer.directory.claim()
    if stored:
        trainer.resume(stored.path)
    if trainer.ended is None:
        notices = trainer.directory.notices
        provenance.record_session(run_dir, source["config"], source["overrides"], changes, notices)
    elif changes:
        print(
            f"no change has an effect: the run has ended ({trainer.ended}), and a larger budget was not given"
        )
    try:
        stats = trainer.train()
    except DivergedError as error:
        if reporter:
            reporter.finish(RunState.DIVERGED, str(error), run.seed, {}, run_dir)
        raise error
    except UserError:
        raise
    except Exception as error:
        if reporter:
            reporter.failed(traceback.format_exc())
        reason = f"{type(error).__name__}: {error}"
        raise RunFailedError(f"the run failed: {reason} (the log of {run_dir} has the traceback)") from error
    print(f"best evaluation {stats.best_mean:g} at step {stats.best_step}; everything is in {run_dir}")
    if reporter:
        metrics = run_metrics(stats, trainer.agent.num_parameters())
        state = RunState.PRUNED if stats.pruned else RunState.FINISHED
        reporter.finish(state, stats.reason, run.seed, metrics, run_dir)
    if stats.pruned:
        raise PrunedError(stats.reason)
    return stats.objective


def _reporter(run: RunConfig) -> Reporter | None:
    """The line to the study, where the run is a job of one."""
    study, trainer = run.study, run.trainer
    if study.storage is None or study.name is None or study.trial is None:
        return None
    from dqn_runner.sweep.reporter import JobLink, Reporter

    link = JobLink(study.storage, study.name, study.trial, study.seed_index)
    return Reporter(link, trainer.eval_frequency, trainer.total)


def _evaluate(run: RunConfig, stored: resume.Stored | None, run_dir: Path, changes: Sequence[str]) -> float:
    from dqn_runner.cli.evaluate import evaluate_checkpoint

    if stored is None:
        raise UserError("mode=eval needs checkpoint=PATH, a checkpoint or a run directory")
    for change in changes:
        print(f"changed for this evaluation: {change}")
    return evaluate_checkpoint(run, stored.path, run_dir).mean


def _stored(cfg: DictConfig, run_dir: Path) -> resume.Stored | None:
    """The stored run that this command takes up, if it takes one up."""
    path: str | None = cfg.checkpoint.path
    if cfg.mode is Mode.eval:
        if cfg.resume not in (resume.AUTO, resume.NEVER):
            raise UserError("mode=eval takes checkpoint=PATH, not resume=")
        return resume.read_stored(path, "checkpoint") if path else None
    if path is not None:
        raise UserError("checkpoint= belongs to mode=eval; to go on training use resume=")
    if cfg.resume not in (resume.AUTO, resume.NEVER):
        return resume.read_stored(cfg.resume, "resume")
    if not has_checkpoints(run_dir):
        return None
    if cfg.resume == resume.NEVER:
        raise UserError(
            f"{run_dir} already holds a run, and resume=never needs a fresh directory; choose another"
        )
    return resume.read_stored(str(run_dir / "checkpoints" / LATEST), "resume")


def _lasting(overrides: Sequence[str]) -> list[str]:
    """The overrides that make the run's configuration, without what only this command asks."""
    asked = [o for o in parse_overrides(overrides) if not o.key_or_group.startswith("study.")]
    return [o.input_line or "" for o in asked if o.key_or_group not in resume.SESSION_KEYS]


def _config_dir(job: Any) -> str | None:
    """The directory given with --config-dir."""
    return next((s.path for s in job.runtime.config_sources if s.provider == "command-line"), None)
