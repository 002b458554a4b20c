"""The jobs of a sweep: their command lines, and their processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dqn_runner.config.overrides import quote
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


@dataclass(frozen=True)
class JobExit:
    """How the process of a job ended."""

    status: int
    """Exit status; negative for a signal."""
    message: str
    """The last line that explains it in the output of the job."""

    @property
    def signal(self) -> int | None:
        """The signal that killed the job, directly or through its handler (status 128 + n), if one did."""
        if 0 <= self.status < 128:
            return None
        return self.status % 128 if self.status > 0 else -self.status


class Jobs:
    """The running jobs; `stop` ends all of them and can be called from any thread."""

    def __init__(self) -> None:
        """No job runs yet."""
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopping = threading.Event()

    @contextmanager
    def exclusive(self, directory: Path) -> Generator[None]:
        """Within the block, no other sweep runs jobs in `directory`.

        Sweeps that share a study may select the same run: each of them validates the best trial, and two may
        requeue the same trial of a third. The second one waits here, and then finds the outcome in the study.
        The second one also waits for a job whose sweep has died, which stops soon (see `stop_with_stdin`).
        """
        sweep, job = RunLock(directory, SWEEP_LOCK), RunLock(directory)
        try:
            self._wait_for(sweep)
            self._wait_for(job)
            job.release()
            yield
        finally:
            sweep.release()

    def run(self, arguments: Sequence[str], directory: Path, environment: Mapping[str, str]) -> JobExit:
        """Run `python -m dqn_runner ARGUMENTS` until it exits; append its output to `directory`/job.log."""
        output = directory / OUTPUT
        require_file(output)
        begin = output.stat().st_size if output.exists() else 0
        with output.open("ab") as file:
            process = self._start(arguments, file.fileno(), environment)
            if process is None:
                return JobExit(-signal.SIGTERM, "the sweep was stopped")
            try:
                status = process.wait()
            finally:
                assert process.stdin is not None
                process.stdin.close()
                with self._lock:
                    self._running.discard(process)
        return JobExit(status, _message(output, begin))

    def stop(self) -> None:
        """Start no more jobs, and let the running ones save their state and end."""
        with self._lock:
            self.stopping.set()
            for process in self._running:
                process.terminate()

    def kill(self) -> None:
        """Start no more jobs, and kill the running ones."""
        with self._lock:
            self.stopping.set()
            for process in self._running:
                process.kill()

    def _start(
        self, arguments: Sequence[str], output: int, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes] | None:
        with self._lock:  # a job started between a stop and its signal would miss the signal
            if self.stopping.is_set():
                return None
            process = subprocess.Popen(
                [sys.executable, "-m", "dqn_runner", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment, STOP_WITH_STDIN: "1"},
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
    """In a job: stop as after SIGTERM when the sweep that started the job has ended."""
    if os.environ.pop(STOP_WITH_STDIN, None) is None:
        return

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def print_status(text: str) -> None:
    """Print a line about the progress of a sweep; a closed terminal or pipe, or a full disk, is ignored."""
    with suppress(OSError):
        print(text, flush=True)


def _message(output: Path, begin: int) -> str:
    """The last line with the reason of an exit in the output since `begin`; else its last line."""
    with output.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").split("\n")
    lines = [line.strip() for line in lines if line.strip()]
    reasons = [line.partition(": ")[2] for line in lines if line.startswith((ERROR_PREFIX, PRUNED_PREFIX))]
    return (reasons or lines or ["no output"])[-1]
