"""The jobs of a sweep: their command lines, and their processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dqn_runner.config.overrides import quote
from dqn_runner.core import exit_codes
from dqn_runner.core.exceptions import UserError
from dqn_runner.io.entries import require_file
from dqn_runner.io.lock import RunLock

OUTPUT = "job.log"
"""The output of a job, in its directory."""
SWEEP_LOCK = ".sweep.lock"
"""The lock file in the directory of a job that names the sweep which runs it."""
ERROR_PREFIX = "error: "
PRUNED_PREFIX = "pruned: "
"""The last line of a job that fails begins with one of these prefixes; the sweep reads the reason from it."""
PROGRAM = ("-m", "dqn_runner")
"""What Python runs as a job."""
GRACE_SECONDS = 30.0
"""How long a job that is stopped by the time-out may take to save its state before it is killed."""
STOP_WITH_STDIN = "DQN_RUNNER_STOP_WITH_STDIN"
"""The environment variable of a job that stops when its standard input is closed: its sweep has ended."""

_SWEEP_SETTINGS = (
    "hydra.run.dir",
    "hydra.sweep.",
    "hydra/sweeper",
    "hydra.sweeper",
    "hydra.mode",
    "hydra.output_subdir",
)
"""Settings of Hydra that belong to the sweep and are not passed to its jobs."""


@dataclass(frozen=True)
class Command:
    """The command line of the sweep, from which those of its jobs are made."""

    flags: tuple[str, ...]
    """--config-name, --config-dir."""
    fixed: tuple[str, ...]
    """The overrides of the program's own settings that all jobs share."""
    hydra: tuple[str, ...]
    """Overrides of Hydra's settings."""
    launcher: str
    """`basic` for processes on this machine, or the launcher of Hydra that starts the jobs."""

    def job(self, overrides: Sequence[str], directory: Path) -> list[str]:
        """The arguments of a job that writes `directory`."""
        hydra = [o for o in self.hydra if not o.lstrip("+~").startswith(_SWEEP_SETTINGS)]
        absolute = directory.absolute()
        if self.launcher == "basic":
            hydra = [o for o in hydra if not o.startswith(("hydra/launcher", "hydra.launcher"))]
            output = ["hydra.mode=RUN", f"hydra.run.dir={quote(absolute)}"]
        else:
            output = [
                "hydra.mode=MULTIRUN",
                "hydra/sweeper=optuna",
                f"hydra.sweep.dir={quote(absolute.parent)}",
                f"hydra.sweep.subdir={quote(absolute.name)}",
            ]
        return [*self.flags, *self.fixed, *hydra, *overrides, *output]

    def search_path(self) -> list[str]:
        """The overrides of hydra.searchpath."""
        return [o for o in self.hydra if o.lstrip("+").startswith("hydra.searchpath")]


@dataclass(frozen=True)
class JobExit:
    """How the process of a job ended."""

    status: int
    """Exit status; negative for a signal."""
    message: str
    """The last line of its output that says why it ended; else its last line."""
    said_why: bool
    """Whether the message is what the job itself said about its end."""
    timed_out: bool = False
    """Whether the job was stopped because it took too long."""

    @property
    def died(self) -> bool:
        """Whether the process ended without a word: it was killed, its machine was lost, or it just ended."""
        explained = (exit_codes.FAILED, exit_codes.USAGE_ERROR, exit_codes.DIVERGED, exit_codes.PRUNED)
        return not (self.said_why and self.status in explained)

    def __str__(self) -> str:
        """Why the job ended."""
        if not self.died or self.status == exit_codes.LOST:
            return self.message
        if self.status < 0 or self.status > exit_codes.SIGNAL_BASE:
            return f"killed by signal {abs(self.status) % exit_codes.SIGNAL_BASE}"
        last = f"; its last line: {self.message}" if self.message else ""
        return f"its process ended with status {self.status} and without a result{last}"


class Jobs:
    """The running jobs; `stop` ends all of them and can be called from any thread."""

    def __init__(self, timeout: float | None = None, here: bool = True) -> None:
        """No job runs yet.

        `timeout` is the time limit of a job in seconds. `here` is whether the processes of the jobs are the
        runs themselves; otherwise they wait for runs that a launcher has started, which may end after them.
        """
        self._timeout = timeout
        self._here = here
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopping = threading.Event()

    @contextmanager
    def exclusive(self, directory: Path) -> Generator[None]:
        """Within the block, no other sweep runs jobs in `directory`.

        Sweeps that share a study may select the same run: each of them validates the best trial, and two may
        requeue the same trial of a third. The second one waits here, and then finds the outcome in the study.
        """
        sweep = RunLock(directory, SWEEP_LOCK)
        try:
            self._wait_for(sweep)
            yield
        finally:
            sweep.release()

    def wait_until_free(self, directory: Path) -> None:
        """Wait for a job that still writes `directory` although the process that waited for it has ended.

        Its sweep has died, and it stops soon (see `stop_with_stdin`); or a launcher has started it elsewhere.
        """
        job = RunLock(directory)
        try:
            self._wait_for(job)
        finally:
            job.release()

    def run(self, arguments: Sequence[str], directory: Path, environment: Mapping[str, str]) -> JobExit:
        """Run `python -m dqn_runner ARGUMENTS` until it exits; append its output to `directory`/job.log.

        A job that takes longer than the time-out is asked to stop, which saves its state, and is killed
        `GRACE_SECONDS` later. What a job leaves behind in its process group is killed when it has ended.
        """
        require_file(directory / OUTPUT)
        with (directory / OUTPUT).open("a+b") as file:  # also read from there: the directory may be renamed
            begin = file.seek(0, os.SEEK_END)
            process = self._start(arguments, file.fileno(), environment)
            if process is None:
                return JobExit(-signal.SIGTERM, "the sweep was stopped", said_why=False)
            try:
                timed_out = not _ended_within(process, self._timeout)
                if timed_out:
                    process.terminate()
                    if not _ended_within(process, GRACE_SECONDS):
                        _kill_group(process)
                status = process.wait()
                if self._here:  # its children would keep its lock, its memory and its devices
                    _kill_group(process)
            finally:
                assert process.stdin is not None
                process.stdin.close()
                with self._lock:
                    self._running.discard(process)
            return JobExit(status, *_message(file, begin), timed_out)

    def stop(self) -> None:
        """Start no more jobs, and ask the running ones to stop, which saves their states."""
        with self._lock:
            self.stopping.set()
            for process in self._running:
                process.terminate()

    def kill(self) -> None:
        """Start no more jobs, and kill the running ones with their children."""
        with self._lock:
            self.stopping.set()
            for process in self._running:
                _kill_group(process)

    def _start(
        self, arguments: Sequence[str], output: int, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes] | None:
        with self._lock:  # a job started between a stop and its signal would miss the signal
            if self.stopping.is_set():
                return None
            process = subprocess.Popen(
                [sys.executable, *PROGRAM, *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment, STOP_WITH_STDIN: str(int(self._here))},
                start_new_session=True,  # Ctrl-C reaches the sweep, which forwards it
            )
            self._running.add(process)
        return process

    def _wait_for(self, lock: RunLock) -> None:
        """Acquire a lock, waiting while another process holds it; not acquired if the sweep is stopped."""
        waiting = False
        while not self.stopping.is_set():
            try:
                lock.acquire()
                return
            except UserError as error:
                if not waiting:
                    print_status(f"waiting: {error}")
                waiting = True
                self.stopping.wait(1.0)


def stop_with_stdin() -> None:
    """In a job: stop as after SIGTERM when the sweep that started the job has ended.

    A run that does not stop, because its environment hangs, is killed with its children `GRACE_SECONDS`
    later; a process that waits for the run of a launcher is not.
    """
    is_run = os.environ.pop(STOP_WITH_STDIN, None)
    if is_run is None:
        return

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        if is_run == "1":
            time.sleep(GRACE_SECONDS)
            os.killpg(0, signal.SIGKILL)  # the group of the job alone, see `Jobs._start`

    threading.Thread(target=watch, daemon=True).start()


def print_status(text: str) -> None:
    """Print a line about the progress of a sweep; a closed terminal or pipe, or a full disk, is ignored."""
    with suppress(OSError):
        print(f"{text}\n", end="", flush=True)  # in one piece, because threads print at the same time


def _ended_within(process: subprocess.Popen[bytes], seconds: float | None) -> bool:
    """Wait for a process, at most `seconds`; whether it has ended."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a job and its children; a job is the leader of its process group (Windows has no such groups)."""
    if os.name == "nt":
        process.kill()
        return
    with suppress(ProcessLookupError, PermissionError):  # nothing is left of the group
        os.killpg(process.pid, signal.SIGKILL)


def _message(output: BinaryIO, begin: int) -> tuple[str, bool]:
    """The last line in the output since `begin` with the reason of an exit, and True.

    Without such a line it is the last one, and False.
    """
    output.seek(begin)
    lines = output.read().decode(errors="replace").split("\n")
    lines = [line.strip() for line in lines if line.strip()]
    reasons = [line.partition(": ")[2] for line in lines if line.startswith((ERROR_PREFIX, PRUNED_PREFIX))]
    return (reasons[-1], True) if reasons else (lines[-1] if lines else "", False)
