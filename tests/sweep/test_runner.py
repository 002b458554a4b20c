"""The order of events in a sweep, with jobs that take no time: who runs what, when, and what is told."""

from __future__ import annotations

import errno
import io
import math
import os
import re
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dqn_runner.core import exit_codes
from dqn_runner.core.exceptions import NoRoomError, RunFailedError, UserError
from dqn_runner.io.lock import RunLock
from dqn_runner.io.signals import StopSignals
from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.jobs import SWEEP_LOCK, Command, JobExit, Jobs
from dqn_runner.sweep.plan import Plan, absolute_storage
from dqn_runner.sweep.reporter import JobLink, Reporter
from dqn_runner.sweep.runner import SweepRunner
from dqn_runner.sweep.search_space.space import search_space
from dqn_runner.sweep.slots import Slots
from dqn_runner.sweep.storages.journal import Journal
from dqn_runner.sweep.trial_queue import TrialQueue
from dqn_runner.sweep.trial_record import RunState, TrialRecord, validation_of
from tests.conftest import BUDGET

RANDOM = {"_target_": "optuna.samplers.RandomSampler", "seed": None}
NO_PRUNER = {"_target_": "optuna.pruners.NopPruner"}
METRICS = {"return": 1.0, "final_return": 1.0, "env_steps": 100.0, "parameters": 5.0}

Job = tuple[int, int]
"""A trial's number, and the how manyth of its runs."""


def a_plan(directory: Path, name: str = "it", **settings: Any) -> Plan:
    empty: Any = OmegaConf.create({})
    journal = str(directory / "study.journal")
    return Plan(
        settings=SweepConfig(**{"sampler": RANDOM, "pruner": NO_PRUNER, "n_trials": 2, **settings}),
        command=Command((), (), (), "basic"),
        space=search_space(("agent.gamma=interval(0.9,0.99)",), {}, None),
        config=empty,
        proposal=(),
        job=empty,
        directory=directory,
        storage=journal,
        storage_for_jobs=journal,
        name=name,
        seed=5,
    )


class Played:
    """Stands in for the processes of jobs; `ends` are what some of them come to, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ran: list[Job] = []
        self.places: dict[Job, str] = {}
        self.ends: dict[Job, list[Any]] = {}
        self.metrics: dict[Job, Mapping[str, float]] = {}

    def __call__(self, arguments: Sequence[str], directory: Path, _: Mapping[str, str]) -> Outcome:
        given = dict(re.findall(r"^study\.(\w+)=(\d+)$", "\n".join(arguments), re.MULTILINE))
        job = (int(given["trial"]), int(given["run"]))
        self.ran.append(job)
        self.places[job] = str(directory.relative_to(self.directory))
        end = self.ends[job].pop(0) if self.ends.get(job) else "finished"
        if isinstance(end, int):
            return Outcome(end, f"it broke in {directory}")
        place = Place(str(self.directory / "study.journal"), "it", *job)
        metrics = self.metrics.get(job, METRICS)
        Reporter(place, every=100, budget=1000).finish(end, f"it {end}", 5, metrics, directory)
        return Outcome(0, "")


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    played = Played(tmp_path)
    monkeypatch.setattr(Jobs, "run", lambda _, *arguments: played(*arguments))
    monkeypatch.setattr("dqn_runner.sweep.results.summary.write_results", lambda *_: None)
    monkeypatch.setattr("dqn_runner.sweep.results.summary.table", lambda *_: "")
    return played


def test_a_result_that_is_no_number_fails_its_trial_and_no_more(tmp_path: Path, jobs: Played) -> None:
    jobs.metrics[0, 0] = {**METRICS, "final_return": math.nan}
    sweep = SweepRunner(a_plan(tmp_path, objective="final_return"))
    sweep.run()
    assert [trial.state.name for trial in sweep.study.trials] == ["FAIL", "COMPLETE"]
    assert sweep.study.trials[0].user_attrs["error"] == "final_return came to no number"


def test_what_a_job_told_before_the_sweep_died_is_not_run_again(
    tmp_path: Path, jobs: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.ends = {(0, 0): ["diverged"]}
    killed = SweepRunner(a_plan(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(TrialQueue, "tell", _interrupted)
        with pytest.raises(InterruptedError):
            killed.run()
    sweep = SweepRunner(a_plan(tmp_path))
    sweep.run()
    assert jobs.ran == [(0, 0), (1, 0)]
    assert [trial.state.name for trial in sweep.study.trials] == ["PRUNED", "COMPLETE"]
    assert sweep.study.trials[0].user_attrs["diverged"] == "it diverged"


def _interrupted(*_: Any) -> bool:
    raise InterruptedError


def test_processes_that_share_a_study_validate_each_seed_once(tmp_path: Path, jobs: Played) -> None:
    sweeps = [SweepRunner(a_plan(tmp_path, validate=6, n_jobs=2)) for _ in range(2)]
    threads = [threading.Thread(target=sweep.run) for sweep in sweeps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(jobs.ran) == Counter([(0, 0), (1, 0), *((0, 1 + index) for index in range(6))])
    assert {f"validation_0_{1 + index}" for index in range(6)} <= sweeps[0].study.user_attrs.keys()


def test_a_run_that_another_sweep_has_is_waited_for(
    tmp_path: Path, jobs: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, other = SweepRunner(a_plan(tmp_path, n_trials=1)), RunLock(tmp_path / "0", SWEEP_LOCK)
    other.acquire()
    sweep._jobs.stopping.wait = lambda _: other.release()  # type: ignore[method-assign,assignment]
    sweep.run()
    assert jobs.ran == [(0, 0)]
    assert f"waiting: {tmp_path / '0'} is being written by another run" in capsys.readouterr().out


@pytest.mark.usefixtures("jobs")
def test_runs_of_another_study_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    SweepRunner(a_plan(tmp_path)).run()
    SweepRunner(a_plan(tmp_path))
    with pytest.raises(UserError, match=r"the study b does not know, such as 0; .*study_name=it$"):
        SweepRunner(a_plan(tmp_path, name="b"))


def test_a_validation_that_is_asked_for_later_moves_no_run(tmp_path: Path, jobs: Played) -> None:
    jobs.ends = {(1, 0): [9]}
    SweepRunner(a_plan(tmp_path)).run()
    before = dict(jobs.places)
    SweepRunner(a_plan(tmp_path, n_trials=3, validate=1)).run()
    assert jobs.places == {**before, (2, 0): "2", (0, 1): "0/seed_6"}


def test_a_job_that_signals_kill_is_started_again_so_often(tmp_path: Path, jobs: Played) -> None:
    jobs.ends = {(0, 0): [-9, 143, "finished"], (1, 0): [-9] * 9}
    sweep = SweepRunner(a_plan(tmp_path, max_restarts=2))
    sweep.run()
    assert Counter(jobs.ran) == {(0, 0): 3, (1, 0): 3}
    assert [trial.state.name for trial in sweep.study.trials] == ["COMPLETE", "FAIL"]
    assert sweep.study.trials[1].user_attrs["error"] == "killed by signal 9"


def test_a_failure_rate_of_zero_stops_at_the_first_failure(tmp_path: Path, jobs: Played) -> None:
    jobs.ends = {(1, 0): [2]}
    with pytest.raises(RunFailedError, match=r"1 trials failed, more than .*max_failure_rate=0 of 9;.*broke"):
        SweepRunner(a_plan(tmp_path, n_trials=9, max_failure_rate=0.0)).run()
    assert jobs.ran == [(0, 0), (1, 0)]


def test_a_full_disk_fails_no_trial(tmp_path: Path, jobs: Played) -> None:
    jobs.ends = {(1, 0): [exit_codes.DISK_FULL]}
    with pytest.raises(NoRoomError, match="trial 1 waits for room, and the sweep ends: it broke"):
        SweepRunner(a_plan(tmp_path)).run()
    sweep = SweepRunner(a_plan(tmp_path))
    sweep.run()
    assert jobs.ran == [(0, 0), (1, 0), (1, 0)]
    assert [trial.state.name for trial in sweep.study.trials] == ["COMPLETE", "COMPLETE"]


def test_a_run_without_room_has_an_exit_status_of_its_own(
    program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))  # type: ignore[attr-defined]
    done = program(*BUDGET)
    assert done.status == exit_codes.DISK_FULL
    assert "where 0.0 MiB are free; make room" in done.err.splitlines()[-1]


def test_a_journal_on_a_full_disk_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Journal(tmp_path / "study.journal")
    monkeypatch.setattr(os, "fsync", _no_space)
    with pytest.raises(NoRoomError, match=r"study\.journal takes no more \(No space left on device\)"):
        log.append_logs([{"op_code": 0}])


def _no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.usefixtures("jobs")
def test_a_sweep_needs_nobody_who_reads_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = SweepRunner(a_plan(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Closed())
        sweep.run()
    assert [trial.state.name for trial in sweep.study.trials] == ["COMPLETE", "COMPLETE"]


class Closed(io.StringIO):
    """A pipe whose reader is gone."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_trials_that_all_fail_for_one_reason_end_the_sweep(tmp_path: Path, jobs: Played) -> None:
    jobs.ends = {(number, 0): [1] for number in range(9)}
    with pytest.raises(RunFailedError, match="first 3 trials all failed for the same reason: it broke in …"):
        SweepRunner(a_plan(tmp_path, n_trials=9)).run()
    assert len(jobs.ran) == 3


def test_jobs_that_work_in_another_directory_find_the_study() -> None:
    here = Path.cwd()
    assert absolute_storage("mine.journal") == str(here / "mine.journal")
    assert absolute_storage("sqlite:///mine.db") == f"sqlite:///{here}/mine.db"
    for same in ("/a/b", "sqlite:////a/b.db", "journal:///a/b", "mysql://me@host/db", "${oc.env:URL}"):
        assert absolute_storage(same) == same


def test_a_failed_seed_is_the_last_of_its_trial(tmp_path: Path, jobs: Played) -> None:
    jobs.ends = {(0, 1): ["diverged"], (1, 0): [1]}
    SweepRunner(a_plan(tmp_path, seeds=3, n_trials=3)).run()
    assert jobs.ran == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]


@pytest.mark.parametrize(
    ("error", "sent"), [(OSError("the disk is full"), signal.SIGTERM), (KeyboardInterrupt(), signal.SIGKILL)]
)
def test_only_a_second_interrupt_costs_the_jobs_what_they_have_not_saved(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, sent: signal.Signals
) -> None:
    jobs, signals = Jobs(), []
    stop: Callable[..., None] = Jobs.stop
    monkeypatch.setattr(
        jobs, "stop", lambda number=signal.SIGTERM: (signals.append(number), stop(jobs, number))
    )

    def look_after() -> None:
        raise error

    with pytest.raises(type(error)):
        Slots(1, jobs, look_after).run(lambda _: void(jobs.stopping.wait()), StopSignals())
    assert signals == [sent]


def void(_: object) -> None:
    """For functions whose results matter to nobody."""
