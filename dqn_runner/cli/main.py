"""The program: composes the command line with Hydra, runs the job, and exits with a documented status."""

from __future__ import annotations

import math
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dqn_runner.cli.job import make_job
from dqn_runner.config.command_line import expand_arguments, long_form
from dqn_runner.config.error_messages import explain
from dqn_runner.config.schema import CONF, Mode
from dqn_runner.config.secret_arguments import move_secrets
from dqn_runner.config.trust import check_best_config
from dqn_runner.core import exit_codes
from dqn_runner.core.exceptions import DivergedError, NoRoomError, PrunedError, RunFailedError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.secrets import redact
from dqn_runner.io.signals import HANDLED
from dqn_runner.sweep.hydra_sweeper import register_sweeper
from dqn_runner.sweep.jobs import ERROR_PREFIX, PRUNED_PREFIX, stop_with_stdin


def main() -> None:
    """Run the command line. Errors are one readable line, and the exit status is one of exit_codes."""
    sys.path.insert(0, str(Path.cwd()))  # a user's env package, as `python -m` finds it
    for number in HANDLED:
        if number is not signal.SIGINT:
            signal.signal(number, lambda number, _: sys.exit(exit_codes.SIGNAL_BASE + number))
    stop_with_stdin()
    debug = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are raised here instead of being printed by Hydra
    try:
        register_sweeper()
        command = long_form(move_secrets(sys.argv[1:]))
        sys.argv[1:] = expand_arguments(command)
        check_best_config(command)
        compose_and_run(command)
    except KeyboardInterrupt:
        sys.exit(exit_codes.SIGNAL_BASE + signal.SIGINT)
    except Exception as error:
        message = explain(error)
        if debug or message is None:
            print(redact(traceback.format_exc()), file=sys.stderr)
        prefix = PRUNED_PREFIX if isinstance(error, PrunedError) else ERROR_PREFIX
        print(f"{prefix}{redact(' '.join(str(message or error).split()))}", file=sys.stderr)
        sys.exit(_status(error, message))


def compose_and_run(command: Sequence[str]) -> None:
    """Let Hydra compose the command line and run the job, or the jobs of a sweep; raise what a job raised.

    `command` is the command line without what a stored run adds to it.
    """
    failure: Exception | None = None

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def job(cfg: DictConfig) -> float:
        nonlocal failure
        try:
            return _run_job(cfg, command)
        except Exception as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise
            failure = error  # raised below: Hydra would print an announcement before it
            return math.nan

    job()
    if failure is not None:
        raise failure


def _run_job(cfg: DictConfig, command: Sequence[str]) -> float:
    """Train or evaluate, and return what a sweep maximises."""
    job = make_job(cfg, command)
    torch.set_num_threads(job.run.threads)
    if job.run.mode is Mode.eval:
        from dqn_runner.cli.evaluate import evaluate

        return evaluate(job)
    from dqn_runner.cli.train import train

    return train(job)


def _status(error: Exception, message: str | None) -> int:
    if isinstance(error, DivergedError):
        return exit_codes.DIVERGED
    if isinstance(error, PrunedError):
        return exit_codes.PRUNED
    if isinstance(error, NoRoomError):
        return exit_codes.DISK_FULL
    if message is None or isinstance(error, RunFailedError):
        return exit_codes.FAILED
    return exit_codes.USAGE_ERROR
