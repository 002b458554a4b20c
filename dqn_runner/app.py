"""The program: Hydra composes, one line makes typed objects of it, and the run begins."""

from __future__ import annotations

import math
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dqn_runner import resume
from dqn_runner.checkpointer import LATEST
from dqn_runner.config import CONF, Mode, RunConfig, accept_env, plain, refuse_other_than_parts
from dqn_runner.errors import RunFailedError, explain
from dqn_runner.lazy import torch
from dqn_runner.recovery import holds_checkpoints
from dqn_runner.sweep.jobs import NO_ROOM, stop_with_stdin
from dqn_runner.sweep.objectives import metrics_of
from dqn_runner.types import DivergedError, NoRoomError, PrunedError, UserError

if TYPE_CHECKING:
    from dqn_runner.sweep.reporter import Reporter

USAGE_ERROR = 2
RUN_FAILED = 1
DIVERGED = 3
PRUNED = 4
SIGNAL_BASE = 128
"""A run ended by signal n exits with 128 + n: 130 for Ctrl-C, 143 for SIGTERM."""


def main() -> None:
    """Run the command line; one readable message and a documented exit status whatever happens."""
    sys.path.insert(0, str(Path.cwd()))  # a user's env package, as `python -m` finds it
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _: sys.exit(SIGNAL_BASE + number))
    stop_with_stdin()
    debug = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of being printed by Hydra
    try:
        sys.argv[1:] = resume.expand_arguments(sys.argv[1:])
        compose_and_run()
        if _failures:
            raise _failures.pop()
    except KeyboardInterrupt:
        sys.exit(SIGNAL_BASE + signal.SIGINT)
    except Exception as error:
        message = explain(error)
        if debug or message is None:
            traceback.print_exc()
        kind = "pruned" if isinstance(error, PrunedError) else "error"
        print(f"{kind}: {' '.join(str(message or error).split())}", file=sys.stderr)
        sys.exit(_status(error, message))


def _status(error: Exception, message: str | None) -> int:
    if isinstance(error, DivergedError):
        return DIVERGED
    if isinstance(error, PrunedError):
        return PRUNED
    if isinstance(error, NoRoomError):
        return NO_ROOM
    return RUN_FAILED if message is None or isinstance(error, RunFailedError) else USAGE_ERROR


_failures: list[Exception] = []
"""The error of a single run, which Hydra would announce in words of its own."""


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def compose_and_run(cfg: DictConfig) -> float:
    """One job: returns what a sweep maximises."""
    job = HydraConfig.get()
    try:
        return _run_job(cfg, job)
    except Exception as error:
        if resume.is_sweep(job.mode):
            raise
        _failures.append(error)
        return math.nan


def _run_job(cfg: DictConfig, job: Any) -> float:
    from hydra.utils import instantiate  # late: `--help` does without it

    overrides = list(job.overrides.task)
    refuse_other_than_parts(cfg)
    accept_env(cfg, {override.key_or_group for override in resume.parse(overrides)})
    run_dir = Path(job.runtime.output_dir)
    stored = _stored(cfg, run_dir)
    changes = resume.restore(cfg, stored, overrides) if stored else []
    run: RunConfig = instantiate(cfg, _convert_="object")
    torch.set_num_threads(run.threads)
    if run.mode is Mode.eval:
        return _evaluate(run, stored, run_dir, changes)
    source = {
        "config": {key: value for key, value in plain(cfg).items() if key != "study"},
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
    from dqn_runner import provenance
    from dqn_runner.build import build_trainer

    if stored:
        resume.refuse_impossible(stored.config, source["config"])
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
            reporter.finish("diverged", str(error), run.seed, {}, run_dir)
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
        metrics = metrics_of(stats, trainer.agent.num_parameters())
        state = "pruned" if stats.pruned else "finished"
        reporter.finish(state, stats.reason, run.seed, metrics, run_dir)
    if stats.pruned:
        raise PrunedError(stats.reason)
    return stats.objective


def _reporter(run: RunConfig) -> Reporter | None:
    """The line to the study, where the run is a job of one."""
    study, trainer = run.study, run.trainer
    if study.storage is None or study.name is None or study.trial is None:
        return None
    from dqn_runner.sweep.reporter import Place, Reporter

    place = Place(study.storage, study.name, study.trial, study.run)
    return Reporter(place, trainer.eval_frequency, trainer.total)


def _evaluate(run: RunConfig, stored: resume.Stored | None, run_dir: Path, changes: Sequence[str]) -> float:
    from dqn_runner.evaluation import evaluate_checkpoint

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
    if not holds_checkpoints(run_dir):
        return None
    if cfg.resume == resume.NEVER:
        raise UserError(
            f"{run_dir} already holds a run, and resume=never needs a fresh directory; choose another"
        )
    return resume.read_stored(str(run_dir / "checkpoints" / LATEST), "resume")


def _lasting(overrides: Sequence[str]) -> list[str]:
    """The overrides that make the run's configuration, without what only this command asks."""
    asked = [o for o in resume.parse(overrides) if not o.key_or_group.startswith("study.")]
    return [o.input_line or "" for o in asked if o.key_or_group not in resume.SESSION_KEYS]


def _config_dir(job: Any) -> str | None:
    """The directory given with --config-dir."""
    return next((s.path for s in job.runtime.config_sources if s.provider == "command-line"), None)
