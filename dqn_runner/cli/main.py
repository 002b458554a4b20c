"""The program: composes the command line with Hydra, runs the job, and exits with a documented status."""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from dqn_runner.cli.job import make_job
from dqn_runner.cli.multirun import run_jobs
from dqn_runner.config.chosen_files import check_best_config, only_checked_files
from dqn_runner.config.command_line import expand_arguments, long_form
from dqn_runner.config.error_messages import explain
from dqn_runner.config.hydra_internals import (
    checking_files,
    checking_names,
    composing_once,
    parse_arguments,
    sweeping_by,
)
from dqn_runner.config.mistakes import check_package, check_run_has_no_sweeper
from dqn_runner.config.schema import CONF, Mode
from dqn_runner.config.secret_arguments import move_secrets
from dqn_runner.config.yaml_files import check_file
from dqn_runner.core import exit_codes
from dqn_runner.core.exceptions import (
    DirectoryLostError,
    DivergedError,
    JobLostError,
    NoRoomError,
    PrunedError,
    RunFailedError,
    UserError,
)
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.secrets import redact
from dqn_runner.io.files import no_room_error
from dqn_runner.io.forks import ending_forks
from dqn_runner.io.output import ignore_output_errors
from dqn_runner.io.signals import HANDLED, SignalExit
from dqn_runner.sweep.hydra_sweeper import register_sweeper
from dqn_runner.sweep.jobs import ERROR_PREFIX, PRUNED_PREFIX, stop_with_stdin


def main() -> None:
    """Run the command line. Errors are one readable line, and the exit status is one of exit_codes."""
    ignore_output_errors()
    _print_any_text()
    for number in HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as after nohup
            signal.signal(number, _exit_for_signal)
    stop_with_stdin()
    debug = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are raised here instead of being printed by Hydra
    try:
        sys.path.insert(0, _working_directory())  # a user's env package, as `python -m` finds it
        register_sweeper(write_sweep_page)
        command = long_form(move_secrets(sys.argv[1:]))
        with checking_files(partial(check_file, primary=parse_arguments(command).config_name)):
            sys.argv[1:] = expand_arguments(command)
            check_best_config(command)
            check_package(parse_arguments(sys.argv[1:]))
            compose_and_run(command)
    except KeyboardInterrupt:
        sys.exit(exit_codes.SIGNAL_BASE + signal.SIGINT)
    except Exception as error:
        if (signalled := _signal_behind(error)) is not None:
            sys.exit(signalled)
        message = explain(error)
        status = _status(error, message)  # before anything is printed
        if debug or message is None:
            print(redact(traceback.format_exc()), file=sys.stderr)
        prefix = PRUNED_PREFIX if isinstance(error, PrunedError) else ERROR_PREFIX
        text = " ".join([*getattr(error, "__notes__", []), message or f"{type(error).__name__}: {error}"])
        print(f"{prefix}{redact(' '.join(text.split()))}", file=sys.stderr)
        sys.exit(status)


def _signal_behind(error: Exception) -> int | None:
    """The exit status of a signal that became an error; None for any other error.

    Up to Python 3.11, what a signal raises while a class is made (`__set_name__`) becomes a RuntimeError.
    """
    cause: BaseException | None = error
    while cause is not None:
        signalled = cause.__cause__
        if type(cause) is RuntimeError and isinstance(signalled, SignalExit):
            return int(signalled.code or 0)
        if type(cause) is RuntimeError and isinstance(signalled, KeyboardInterrupt):
            return exit_codes.SIGNAL_BASE + signal.SIGINT
        cause = signalled or cause.__context__
    return None


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError as error:
        raise UserError("the working directory does not exist any more; change to another one") from error


def write_sweep_page(study: Any, directory: Path) -> None:
    """Write the report of a sweep, while it runs and at its end."""
    from dqn_runner.report.sweep_page import write_page

    write_page(study, directory)


def _exit_for_signal(number: int, frame: FrameType | None) -> None:
    """Raise what ends the program; end it at once while torch is imported, whose C++ code would abort."""
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    if getattr(spec, "_initializing", False):
        with suppress(Exception):  # the signal may have interrupted a write
            sys.stdout.flush()
        os._exit(exit_codes.SIGNAL_BASE + number)
    if number == signal.SIGINT:
        signal.default_int_handler(number, frame)
    raise SignalExit(exit_codes.SIGNAL_BASE + number)


def compose_and_run(command: Sequence[str]) -> None:
    """Let Hydra compose the command line and run the job, or the jobs of a sweep; raise what a job raised.

    `command` is the command line without what a stored run adds to it. The error of a job of `-m` has a note
    that names the job. Launchers pickle the note with the error.
    """
    failure: Exception | None = None

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def job(cfg: DictConfig) -> float:
        nonlocal failure
        try:
            with ending_forks():
                return _run_job(cfg, command)
        except Exception as error:
            if HydraConfig.get().mode is RunMode.MULTIRUN:
                raise _for_launcher(error, "" if cfg.study.trial is not None else _name_of_job()) from None
            failure = error  # raised below: Hydra would print an announcement before it
            return math.nan

    argv = sys.argv[1:]
    with (
        composing_once(argv, check_run_has_no_sweeper),
        checking_names(only_checked_files(argv)),
        sweeping_by(run_jobs),
    ):
        job()
    if failure is not None:
        raise failure


def _for_launcher(error: Exception, note: str) -> Exception:
    """The error with a note, and with its whole message: launchers pickle it without its cause."""
    message = explain(error)
    if message is not None and message != str(error):
        kind = NoRoomError if no_room_error(error) is not None else UserError
        error = kind(message).with_traceback(error.__traceback__)
    if note:
        error.add_note(note)
        print(f"failed: {note} {message or error}", file=sys.stderr)
    return error


def _name_of_job() -> str:
    """The number, the overrides and the directory of a job of `-m`, as the start of a message."""
    hydra = HydraConfig.get()
    swept = shlex.join(hydra.overrides.task)
    return f"job {hydra.job.num} ({swept or 'no overrides'}) in {hydra.runtime.output_dir}:"


def _run_job(cfg: DictConfig, command: Sequence[str]) -> float:
    """Do what the mode says, and return what a sweep maximises."""
    _print_any_text()  # again, because a launcher may run the job in a process of its own
    job = make_job(cfg, command)
    if job.run.mode is Mode.report:
        from dqn_runner.cli.report import report

        return report(job)
    torch.set_num_threads(job.run.threads)
    if job.run.mode is Mode.eval:
        from dqn_runner.cli.evaluate import evaluate

        return evaluate(job)
    if job.run.mode is Mode.export:
        from dqn_runner.cli.export import export

        return export(job)
    if job.run.mode is Mode.play:
        from dqn_runner.cli.play import play

        return play(job)
    if job.run.mode is Mode.publish:
        from dqn_runner.cli.publish import publish

        return publish(job)
    if job.run.mode is Mode.record:
        from dqn_runner.cli.record import record

        return record(job)
    from dqn_runner.cli.train import train

    return train(job)


def _print_any_text() -> None:
    """Escape characters that the terminal cannot show; printing must not end a run."""
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        with suppress(OSError, AttributeError):  # a stream that is closed, or was replaced by a program
            stream.reconfigure(errors="backslashreplace")


def _status(error: Exception, message: str | None) -> int:
    if isinstance(error, DivergedError):
        return exit_codes.DIVERGED
    if isinstance(error, PrunedError):
        return exit_codes.PRUNED
    if isinstance(error, NoRoomError | DirectoryLostError) or no_room_error(error) is not None:
        return exit_codes.DISK_FULL
    if isinstance(error, JobLostError):
        return exit_codes.LOST
    if message is None or isinstance(error, RunFailedError):
        return exit_codes.FAILED
    return exit_codes.USAGE_ERROR
