"""The jobs of a sweep: what their commands are, and running them as processes of their own."""

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
from dqn_runner.io.lock import RunLock

OUTPUT = "job.log"
"""What a job prints, in its directory."""
CLAIM = ".sweep.lock"
"""Says in the directory of a job which sweep runs it."""
NO_ROOM = 5
"""Exit status of a job that cannot go on until there is room on the disk."""
PARENT = "DQN_RUNNER_STOP_WITH_STDIN"
"""Set for a job that shall stop when its standard input ends, which it does when the sweep dies."""

_OWN = (
    "hydra.run.dir",
    "hydra.sweep.",
    "hydra/sweeper",
    "hydra.sweeper",
    "hydra.mode",
    "hydra.output_subdir",
)
"""Settings of Hydra that belong to the sweep and not to its jobs."""


@dataclass(frozen=True)
class Command:
    """The command line of the sweep, from which those of its jobs follow."""

    flags: tuple[str, ...]
    """--config-name, --config-dir."""
    fixed: tuple[str, ...]
    """The overrides of the program's own settings that are the same in all jobs."""
    hydra: tuple[str, ...]
    """Overrides of Hydra's settings."""
    launcher: str
    """`basic` where jobs are processes of this machine, else that of Hydra that starts them."""

    def job(self, overrides: Sequence[str], directory: Path) -> list[str]:
        """The arguments of a job that writes `directory`."""
        mine = [o for o in self.hydra if not o.lstrip("+~").startswith(_OWN)]
        where = directory.absolute()
        if self.launcher == "basic":
            mine = [o for o in mine if not o.startswith(("hydra/launcher", "hydra.launcher"))]
            place = ["hydra.mode=RUN", f"hydra.run.dir={quote(where)}"]
        else:
            place = [
                "hydra.mode=MULTIRUN",
                "hydra/sweeper=optuna",
                f"hydra.sweep.dir={quote(where.parent)}",
                f"hydra.sweep.subdir={quote(where.name)}",
            ]
        return [*self.flags, *self.fixed, *mine, *overrides, *place]


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    status: int
    """Exit status; negative for a signal."""
    message: str
    """The last thing it said."""


class Jobs:
    """The jobs that run now; `stop` ends them all, from whichever thread."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.Lock()
        self.stopping = threading.Event()

    @contextmanager
    def alone(self, directory: Path) -> Generator[None]:
        """While entered, no other sweep runs jobs in `directory`.

        Sweeps that share a study may come by the same run: all of them validate, and two may take over what
        a third left. The second waits here, and finds the outcome in the study. A job whose sweep died is
        waited for too; it knows how to end.
        """
        claim, job = RunLock(directory, CLAIM), RunLock(directory)
        try:
            self._take(claim)
            self._take(job)
            job.release()
            yield
        finally:
            claim.release()

    def run(self, arguments: Sequence[str], directory: Path, environment: Mapping[str, str]) -> Outcome:
        """Run `python -m dqn_runner ARGUMENTS` to its end; its output is appended to `directory`/job.log."""
        output = directory / OUTPUT
        begin = output.stat().st_size if output.exists() else 0
        with output.open("ab") as file:
            process = self._start(arguments, file.fileno(), environment)
            if process is None:
                return Outcome(-signal.SIGTERM, "the sweep was stopped")
            try:
                status = process.wait()
            finally:
                assert process.stdin is not None
                process.stdin.close()
                with self._guard:
                    self._running.discard(process)
        return Outcome(status, _last_line(output, begin))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Start no more jobs, and send the running ones a signal."""
        with self._guard:
            self.stopping.set()
            for process in self._running:
                process.send_signal(number)

    def _start(
        self, arguments: Sequence[str], output: int, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes] | None:
        with self._guard:  # no job may slip through between a stop and its signal
            if self.stopping.is_set():
                return None
            process = subprocess.Popen(
                [sys.executable, "-m", "dqn_runner", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment, PARENT: "1"},
                start_new_session=True,  # Ctrl-C is for the sweep, which passes it on
            )
            self._running.add(process)
        return process

    def _take(self, lock: RunLock) -> None:
        """Wait for a lock, and say so; it is not held where the sweep is stopped meanwhile."""
        waiting = False
        while not self.stopping.is_set():
            try:
                lock.acquire()
                return
            except UserError as error:
                if not waiting:
                    say(f"waiting: {error}")
                waiting = True
                self.stopping.wait(1.0)


def stop_with_stdin() -> None:
    """In a job: stop as after SIGTERM when the sweep that started it is gone."""
    if os.environ.pop(PARENT, None) is None:
        return

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def say(text: str) -> None:
    """Tell the user how a sweep stands; it goes on without a terminal or pipe that is gone, or a full log."""
    with suppress(OSError):
        print(text, flush=True)


def _last_line(output: Path, begin: int) -> str:
    with output.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    verdicts = [line.partition(": ")[2] for line in said if line.startswith(("error: ", "pruned: "))]
    return (verdicts or said or ["it said nothing"])[-1]
