"""The program: Hydra composes, one line makes typed objects of it, and the run begins."""

from __future__ import annotations

import math
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dqn_runner.config import resume
from dqn_runner.config.error_messages import explain
from dqn_runner.config.schema import CONF
from dqn_runner.core.exceptions import DivergedError, NoRoomError, PrunedError, RunFailedError
from dqn_runner.core.exit_codes import DISK_FULL
from dqn_runner.sweep.hydra_sweeper import register_sweeper
from dqn_runner.sweep.jobs import ERROR_PREFIX, PRUNED_PREFIX, stop_with_stdin

if TYPE_CHECKING:
    pass

from dqn_runner.cli.train import run_job

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
        register_sweeper()
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
        prefix = PRUNED_PREFIX if isinstance(error, PrunedError) else ERROR_PREFIX
        print(f"{prefix}{' '.join(str(message or error).split())}", file=sys.stderr)
        sys.exit(_status(error, message))


def _status(error: Exception, message: str | None) -> int:
    if isinstance(error, DivergedError):
        return DIVERGED
    if isinstance(error, PrunedError):
        return PRUNED
    if isinstance(error, NoRoomError):
        return DISK_FULL
    return RUN_FAILED if message is None or isinstance(error, RunFailedError) else USAGE_ERROR


_failures: list[Exception] = []
"""The error of a single run, which Hydra would announce in words of its own."""


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def compose_and_run(cfg: DictConfig) -> float:
    """One job: returns what a sweep maximises."""
    job = HydraConfig.get()
    try:
        return run_job(cfg, job)
    except Exception as error:
        if resume.is_sweep(job.mode):
            raise
        _failures.append(error)
        return math.nan
