"""The processes of jobs: time-outs, children that they leave behind, and what their output says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dqn_runner.sweep import jobs as jobs_module
from dqn_runner.sweep.jobs import OUTPUT, JobExit, Jobs
from tests.support.processes import alive, until

IGNORING = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
LEAVE_A_CHILD = "print(os.fork() or time.sleep(60), flush=True)"
"""Prints the number of a child, which keeps the output of the job open for a minute."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., JobExit]:
    """`run(code, jobs)` is a job that runs this Python code instead of the program."""

    def call(code: str, jobs: Jobs) -> JobExit:
        monkeypatch.setattr(jobs_module, "PROGRAM", ("-c",))
        return jobs.run([f"import os, signal, sys, time\n{code}"], tmp_path, {})

    return call


@pytest.mark.parametrize(
    ("code", "status", "message", "died"),
    [
        ("print('error: no such env'); sys.exit(2)", 2, "no such env", False),
        ("print('pruned: too slow'); sys.exit(4)", 4, "too slow", False),
        ("print('error: of a library'); os._exit(0)", 0, "of a library", True),
        ("print('one'); print('two', flush=True); os._exit(1)", 1, "two", True),
        ("os._exit(3)", 3, "", True),
        ("os.kill(os.getpid(), 9)", -9, "", True),
    ],
)
def test_end_of_a_job(run: Callable[..., JobExit], code: str, status: int, message: str, died: bool) -> None:
    end = run(code, Jobs())
    assert (end.status, end.message, end.died) == (status, message, died)


def test_job_that_takes_too_long_is_asked_to_stop(run: Callable[..., JobExit]) -> None:
    end = run("time.sleep(60)", Jobs(timeout=0.3))
    assert (end.status, end.timed_out, end.died) == (-signal.SIGTERM, True, True)


def test_job_that_does_not_stop_is_killed_with_its_children(
    run: Callable[..., JobExit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "GRACE_SECONDS", 0.3)
    code = f"{IGNORING}\nos.fork()\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
    end = run(code, Jobs(timeout=1.0, here=False))
    assert (end.status, end.timed_out) == (-signal.SIGKILL, True)
    pids = (tmp_path / OUTPUT).read_text().split()
    assert len(pids) == 2
    until(lambda: not any(map(alive, pids)))


def test_children_that_a_job_leaves_behind_are_killed(run: Callable[..., JobExit], tmp_path: Path) -> None:
    assert run(LEAVE_A_CHILD, Jobs()).status == 0
    until(lambda: not alive((tmp_path / OUTPUT).read_text().strip()))


def test_run_of_a_launcher_outlives_the_process_that_waits_for_it(
    run: Callable[..., JobExit], tmp_path: Path
) -> None:
    assert run(LEAVE_A_CHILD, Jobs(here=False)).status == 0
    child = (tmp_path / OUTPUT).read_text().strip()
    assert alive(child)
    os.kill(int(child), signal.SIGKILL)


def test_kill_ends_running_jobs(run: Callable[..., JobExit]) -> None:
    jobs = Jobs()
    threading.Timer(0.5, jobs.kill).start()
    assert run(f"{IGNORING}\ntime.sleep(60)", jobs).status == -signal.SIGKILL
    assert run("print(1)", jobs).message == "the sweep was stopped"


@pytest.mark.parametrize("here", [True, False])
def test_a_run_that_hangs_is_killed_when_its_sweep_has_died(here: bool) -> None:
    """The sweep holds the pipe to its standard input; a hanging environment reads no signal."""
    code = (
        "import os, signal, time\nfrom dqn_runner.sweep import jobs\njobs.GRACE_SECONDS = 0.3\n"
        f"{IGNORING}\njobs.stop_with_stdin()\nos.fork()\nos.write(1, b'%d\\n' % os.getpid())\ntime.sleep(60)"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, jobs_module.STOP_WITH_STDIN: str(int(here))},
        start_new_session=True,
    )
    with run:
        assert run.stdin is not None
        assert run.stdout is not None
        pids = [run.stdout.readline().decode().strip() for _ in range(2)]
        run.stdin.close()
        if here:
            until(lambda: run.poll() == -signal.SIGKILL and not any(map(alive, pids)))
        else:
            with pytest.raises(subprocess.TimeoutExpired):
                run.wait(1.0)
            os.killpg(run.pid, signal.SIGKILL)
