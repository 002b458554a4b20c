"""mode=train: train or resume a run, and report its outcome to the study that it belongs to."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dqn_runner.cli.job import Job
from dqn_runner.config.build import build_trainer
from dqn_runner.config.resume import AUTO, check_compatible
from dqn_runner.core.exceptions import (
    CallbackError,
    DirectoryLostError,
    DivergedError,
    LoggerError,
    NoRoomError,
    PrunedError,
    RunFailedError,
    UserError,
)
from dqn_runner.core.secrets import redact
from dqn_runner.io.files import no_room_error
from dqn_runner.run import provenance
from dqn_runner.run.session import noticed_if_lost
from dqn_runner.sweep.objectives import run_metrics
from dqn_runner.sweep.trial_record import RunState
from dqn_runner.training.stats import TrainingStats
from dqn_runner.training.trainer import Trainer

if TYPE_CHECKING:
    from dqn_runner.sweep.reporter import Reporter


def train(job: Job) -> float:
    """Train until the run ends, and return its objective.

    Raises UserError for a change that a resumed run cannot make, NoRoomError on a full disk, DivergedError,
    PrunedError if the sweep stopped the run, and RunFailedError if the environment or the learner raised.
    """
    if job.stored:
        _check_resume(job)
        print("\n".join(["changed for this session:", *job.changes]) if job.changes else "nothing changed")
    reporter = _make_reporter(job)
    with noticed_if_lost(job.run_dir) as notice:
        if notice is not None:
            print(f"warning: {notice}", file=sys.stderr)
        trainer = build_trainer(job.run, job.run_dir, job.source, job.group, reporter)
    trainer.directory.draws_curves = reporter is None
    _start_session(trainer, job)
    with _reported(reporter, job, trainer):
        stats = trainer.train()
    print(f"best evaluation {stats.best_mean:g} at step {stats.best_step}; everything is in {job.run_dir}")
    if reporter:
        _report_end(reporter, job, stats, trainer.agent.num_parameters())
    if stats.pruned:
        raise PrunedError(stats.reason)
    return stats.objective


def _check_resume(job: Job) -> None:
    """Reject a change that a resumed run cannot make, and the run of another trial of the sweep."""
    assert job.stored is not None
    check_compatible(job.stored.comparable_config, job.comparable_config)
    if job.run.study.trial is not None and job.stored.overrides != job.source["overrides"]:
        raise UserError(
            f"{job.run_dir} holds a run of another trial ({'; '.join(job.changes)}); choose another "
            "hydra.sweep.dir"
        )


def _start_session(trainer: Trainer, job: Job) -> None:
    """Lock the run directory, load the stored state, and record this session in run.json."""
    trainer.prepare(job.stored.path if job.stored else None)
    if trainer.finished_reason is None:
        notices, origin = trainer.directory.notices, trainer.preload.origin
        notices += _data_changes(trainer, job)
        provenance.record_session(
            job.run_dir, job.source["config"], job.source["overrides"], job.changes, notices, origin
        )
    elif job.changes:
        print(
            f"ignoring the changes: the run has finished ({trainer.finished_reason}); raise its budget to "
            "continue"
        )


def _data_changes(trainer: Trainer, job: Job) -> Iterator[str]:
    """One line if agent.replay.preload names other data than in the session before.

    With `resume=PATH`, the file is not looked at: only the stored run names it.
    """
    origin = trainer.preload.origin
    if trainer.directory.resumed:
        if job.run.resume == AUTO:
            yield from trainer.preload.changed()
    elif origin and provenance.recorded_digest(job.run_dir) not in (None, origin["sha256"]):
        yield (
            f"agent.replay.preload={origin['source']} has changed since the session before, which left no "
            "checkpoint; this run begins with the new transitions"
        )


@contextmanager
def _reported(reporter: Reporter | None, job: Job, trainer: Trainer) -> Generator[None]:
    """Report a failure to the study, and raise RunFailedError for one that is not the user's."""
    try:
        yield
    except DivergedError as error:
        if reporter:
            reporter.finish(RunState.DIVERGED, redact(str(error)), job.run.seed, {}, job.run_dir)
        raise
    except (NoRoomError, DirectoryLostError):
        raise
    except UserError as error:
        if trainer.failed:  # not a mistake in the command: the environment returned nonsense, for example
            raise RunFailedError(str(error)) from error
        raise
    except Exception as error:
        if full := no_room_error(error):
            raise NoRoomError(
                f"the run cannot write ({full}); free disk space, and repeat the command to continue"
            ) from error
        if reporter:
            reporter.failed(redact(traceback.format_exc()))
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, CallbackError | LoggerError):
            reason = str(error)
        raise RunFailedError(
            f"the run failed: {reason} (the log of {job.run_dir} has the traceback)"
        ) from error


def _report_end(reporter: Reporter, job: Job, stats: TrainingStats, num_parameters: int) -> None:
    state = RunState.PRUNED if stats.pruned else RunState.FINISHED
    metrics = run_metrics(stats, num_parameters)
    reporter.finish(state, stats.reason, job.run.seed, metrics, job.run_dir)


def _make_reporter(job: Job) -> Reporter | None:
    """The connection to the study, if the run is a job of one."""
    study, trainer = job.run.study, job.run.trainer
    if study.storage is None or study.name is None or study.trial is None:
        return None
    from dqn_runner.sweep.reporter import JobLink, Reporter

    link = JobLink(study.storage, study.name, study.trial, study.seed_index, tuple(study.imports))
    return Reporter(link, trainer.eval_frequency, trainer.total)
