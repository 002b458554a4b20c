"""The order of events in a sweep, with simulated jobs: what runs, when, and what is stored."""

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
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dqn_runner.core import exit_codes
from dqn_runner.core.exceptions import NoRoomError, RunFailedError, UserError
from dqn_runner.io.lock import RunLock
from dqn_runner.io.signals import SignalExit, StopSignals
from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.heartbeat import Heartbeat
from dqn_runner.sweep.jobs import SWEEP_LOCK, Command, JobExit, Jobs
from dqn_runner.sweep.plan import Plan, storage_of_jobs
from dqn_runner.sweep.reporter import JobLink, Reporter
from dqn_runner.sweep.runner import SweepRunner
from dqn_runner.sweep.search_space.space import search_space
from dqn_runner.sweep.slots import Slots
from dqn_runner.sweep.storages.journal import Journal
from dqn_runner.sweep.study import read_study
from dqn_runner.sweep.trial_queue import TrialQueue
from dqn_runner.sweep.trial_record import RunState, TrialRecord, session_of, validation_of
from tests.conftest import BUDGET

RANDOM = {"_target_": "optuna.samplers.RandomSampler", "seed": None}
NO_PRUNER = {"_target_": "optuna.pruners.NopPruner"}
METRICS = {"return": 1.0, "final_return": 1.0, "env_steps": 100.0, "parameters": 5.0}

Job = tuple[int, int]
"""The number of a trial, and the index of the seed within it."""


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


class SimulatedJobs:
    """Replaces the processes of jobs.

    `ends` are the successive ends of a job: its state, or the exit status of a job that reports an error, or
    any other end without an outcome, or a signal to the sweep while the job runs.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ran: list[Job] = []
        self.directories: dict[Job, str] = {}
        self.ends: dict[Job, Sequence[RunState | int | JobExit]] = {}
        self.metrics: dict[Job, Mapping[str, float]] = {}

    def __call__(self, arguments: Sequence[str], directory: Path, _: Mapping[str, str]) -> JobExit:
        given = dict(re.findall(r"^study\.(\w+)=(\d+)$", "\n".join(arguments), re.MULTILINE))
        job = (int(given["trial"]), int(given["seed_index"]))
        self.ran.append(job)
        self.directories[job] = str(directory.relative_to(self.directory))
        end, *later = self.ends.get(job) or [RunState.FINISHED]
        self.ends[job] = later
        if isinstance(end, JobExit):
            return end
        if isinstance(end, signal.Signals):
            os.kill(os.getpid(), end)
            end = RunState.FINISHED
        if isinstance(end, int):
            return JobExit(end, f"it broke in {directory}", said_why=True)
        link = JobLink(str(self.directory / "study.journal"), "it", *job)
        metrics = self.metrics.get(job, METRICS)
        reporter = Reporter(link, eval_frequency=100, budget=1000)
        reporter.finish(end, f"it {end.value}", 5, metrics, directory)
        return JobExit(0, "", said_why=False)


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedJobs:
    simulated = SimulatedJobs(tmp_path)
    monkeypatch.setattr(Jobs, "run", lambda _, *arguments: simulated(*arguments))
    monkeypatch.setattr("dqn_runner.sweep.results.summary.write_results", lambda *_: None)
    monkeypatch.setattr("dqn_runner.sweep.results.summary.table", lambda *_: "")
    return simulated


def test_a_nan_result_fails_only_its_own_trial(tmp_path: Path, jobs: SimulatedJobs) -> None:
    jobs.metrics[0, 0] = {**METRICS, "final_return": math.nan}
    sweep = SweepRunner(a_plan(tmp_path, objective="final_return"))
    sweep.run()
    assert [trial.state.name for trial in sweep.study.trials] == ["FAIL", "COMPLETE"]
    assert TrialRecord(sweep.study.trials[0]).reason(RunState.FAILED) == "final_return is NaN"


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("kind", ["RandomSampler", "BruteForceSampler", "GridSampler", "QMCSampler"])
def test_sweep_continues_with_its_parameters_in_another_order(tmp_path: Path, kind: str) -> None:
    points = ("agent.gamma=choice(0.9,0.99)", "agent.n_step=range(1,8)")
    texts: list[list[str]] = []
    for n_trials, arguments in ((2, points), (4, points[::-1])):
        sampler = {"_target_": f"optuna.samplers.{kind}", "seed": None}
        plan = a_plan(tmp_path, sampler=sampler, n_trials=n_trials)
        sweep = SweepRunner(replace(plan, space=search_space(arguments, {}, None)))
        sweep.run()
        texts = [TrialRecord(trial).overrides for trial in sweep.study.trials]
    assert len(texts) == 4
    assert all(text.startswith("agent.gamma") for text, _ in texts)


def test_run_with_a_stored_outcome_is_not_repeated_after_the_sweep_died(
    tmp_path: Path, jobs: SimulatedJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.ends = {(0, 0): [RunState.DIVERGED]}
    killed = SweepRunner(a_plan(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(TrialQueue, "tell", _interrupted)
        with pytest.raises(InterruptedError):
            killed.run()
    sweep = SweepRunner(a_plan(tmp_path))
    sweep.run()
    assert jobs.ran == [(0, 0), (1, 0)]
    assert [trial.state.name for trial in sweep.study.trials] == ["PRUNED", "COMPLETE"]
    assert TrialRecord(sweep.study.trials[0]).reason(RunState.DIVERGED) == "it diverged"


def _interrupted(*_: Any) -> bool:
    raise InterruptedError


def test_sweeps_that_share_a_study_validate_each_seed_once(tmp_path: Path, jobs: SimulatedJobs) -> None:
    sweeps = [SweepRunner(a_plan(tmp_path, validate=6, n_jobs=2)) for _ in range(2)]
    threads = [threading.Thread(target=sweep.run) for sweep in sweeps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(jobs.ran) == Counter([(0, 0), (1, 0), *((0, 1 + index) for index in range(6))])
    assert all(validation_of(sweeps[0].study, 0, 1 + index) for index in range(6))


def test_sweep_waits_for_a_run_that_another_sweep_runs(
    tmp_path: Path, jobs: SimulatedJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, other = SweepRunner(a_plan(tmp_path, n_trials=1)), RunLock(tmp_path / "0", SWEEP_LOCK)
    other.acquire()
    sweep._jobs.stopping.wait = lambda _: other.release()  # type: ignore[method-assign,assignment]
    sweep.run()
    assert jobs.ran == [(0, 0)]
    assert f"waiting: {tmp_path / '0'} is being written by another run" in capsys.readouterr().out


@pytest.mark.usefixtures("jobs")
def test_sweep_directory_with_runs_of_another_study_is_rejected(tmp_path: Path) -> None:
    SweepRunner(a_plan(tmp_path)).run()
    SweepRunner(a_plan(tmp_path))
    with pytest.raises(UserError, match=r"not in the study b, such as 0; .*study_name=it$"):
        SweepRunner(a_plan(tmp_path, name="b"))
    assert read_study(tmp_path).study_name == "it"  # the rejected command created none


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("kept", [0, 0.6], ids=["emptied", "cut"])
def test_study_that_lost_its_end_continues_without_the_runs_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: float
) -> None:
    monkeypatch.setattr(Heartbeat, "is_stale", lambda mine, worker: worker != mine.worker)  # as processes
    SweepRunner(a_plan(tmp_path, n_trials=4)).run()
    for number in range(4):
        (tmp_path / str(number)).mkdir(exist_ok=True)
    journal = tmp_path / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: int(kept * len(lines))]))
    with pytest.raises(UserError, match=r"if the study has lost its end, .* move the directories ") as caught:
        SweepRunner(a_plan(tmp_path, n_trials=4))
    listed = re.search(r"directories ([\d, ]+) away to continue", str(caught.value))
    assert listed is not None
    (tmp_path / "away").mkdir()
    for number in listed[1].split(", "):
        (tmp_path / number).rename(tmp_path / "away" / number)
    sweep = SweepRunner(a_plan(tmp_path, n_trials=4))
    sweep.run()
    assert [trial.state.name for trial in sweep.study.trials] == ["COMPLETE"] * 4


def test_at_most_ten_directories_are_listed(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(UserError, match=r"directories 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more away"):
        SweepRunner(a_plan(tmp_path))


def test_rejected_sampler_creates_no_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no_such"):
        SweepRunner(a_plan(tmp_path, sampler={**RANDOM, "no_such": 1}))
    other = replace(a_plan(tmp_path), space=search_space(("agent.gamma=choice(0.9,0.99)",), {}, None))
    SweepRunner(other)


def test_validation_added_to_a_finished_sweep_moves_no_run(tmp_path: Path, jobs: SimulatedJobs) -> None:
    jobs.ends = {(1, 0): [1]}
    SweepRunner(a_plan(tmp_path)).run()
    before = dict(jobs.directories)
    SweepRunner(a_plan(tmp_path, n_trials=3, validate=1)).run()
    assert jobs.directories == {**before, (2, 0): "2", (0, 1): "0/seed_6"}


def test_job_killed_by_signals_is_restarted_max_restarts_times(tmp_path: Path, jobs: SimulatedJobs) -> None:
    jobs.ends = {(0, 0): [-9, 143, RunState.FINISHED], (1, 0): [-9] * 9}
    sweep = SweepRunner(a_plan(tmp_path, max_restarts=2))
    sweep.run()
    assert Counter(jobs.ran) == {(0, 0): 3, (1, 0): 3}
    assert [trial.state.name for trial in sweep.study.trials] == ["COMPLETE", "FAIL"]
    reason = TrialRecord(sweep.study.trials[1]).reason(RunState.FAILED)
    assert reason == "it died 3 times, the last time: killed by signal 9"


@pytest.mark.parametrize(
    "end",
    [
        JobExit(0, "", said_why=False),
        JobExit(0, "a line of the environment", said_why=True),
        JobExit(1, "Traceback of an interpreter", said_why=False),
        JobExit(3, "the environment called os._exit(3)", said_why=False),
        JobExit(120, "", said_why=False),
        JobExit(exit_codes.LOST, "the launcher lost the job", said_why=True),
        JobExit(143, "killed", said_why=False),
        JobExit(-11, "", said_why=True),
    ],
    ids=lambda end: str(end.status),
)
def test_job_that_dies_without_a_word_is_restarted(tmp_path: Path, jobs: SimulatedJobs, end: JobExit) -> None:
    jobs.ends = {(0, 0): [end], (1, 0): [end] * 9}
    sweep = SweepRunner(a_plan(tmp_path, max_restarts=1))
    sweep.run()
    assert Counter(jobs.ran) == {(0, 0): 2, (1, 0): 2}
    assert [trial.state.name for trial in sweep.study.trials] == ["COMPLETE", "FAIL"]
    assert str(end) in str(TrialRecord(sweep.study.trials[1]).reason(RunState.FAILED))


@pytest.mark.parametrize("status", [exit_codes.FAILED, exit_codes.USAGE_ERROR, exit_codes.DIVERGED])
def test_job_that_reports_an_error_fails_at_once(tmp_path: Path, jobs: SimulatedJobs, status: int) -> None:
    jobs.ends = {(0, 0): [status]}
    sweep = SweepRunner(a_plan(tmp_path))
    sweep.run()
    assert jobs.ran == [(0, 0), (1, 0)]
    assert TrialRecord(sweep.study.trials[0]).reason(RunState.FAILED) == f"it broke in {tmp_path / '0'}"


def test_job_that_is_stopped_by_the_timeout_fails_its_trial(tmp_path: Path, jobs: SimulatedJobs) -> None:
    jobs.ends = {(0, 0): [JobExit(143, "", said_why=False, timed_out=True)]}
    sweep = SweepRunner(a_plan(tmp_path, job_timeout=90.0))
    sweep.run()
    assert jobs.ran == [(0, 0), (1, 0)]
    assert [trial.state.name for trial in sweep.study.trials] == ["FAIL", "COMPLETE"]
    reason = TrialRecord(sweep.study.trials[0]).reason(RunState.FAILED)
    assert reason == "it took longer than hydra.sweeper.job_timeout=90 seconds"


@pytest.mark.parametrize("objective", ["return", ["return", "parameters"]], ids=["one", "two"])
@pytest.mark.parametrize("ends", [[1], [1, RunState.DIVERGED], [RunState.DIVERGED] * 2, [-9, 1]])
def test_sweep_without_a_completed_trial_fails(
    tmp_path: Path, jobs: SimulatedJobs, ends: list[RunState | int], objective: Any
) -> None:
    jobs.ends = {(number, 0): [end] for number, end in enumerate(ends)}
    direction = "maximize" if objective == "return" else ["maximize"] * 2
    settings = {"objective": objective, "direction": direction, "n_trials": len(ends), "max_restarts": 0}
    with pytest.raises(RunFailedError, match=r"^no trial has completed: \d (diverged|failed)"):
        SweepRunner(a_plan(tmp_path, **settings)).run()


def test_max_failure_rate_of_zero_stops_the_sweep_at_the_first_failure(
    tmp_path: Path, jobs: SimulatedJobs
) -> None:
    jobs.ends = {(1, 0): [2]}
    with pytest.raises(RunFailedError, match=r"1 trials failed, more than .*max_failure_rate=0 of 9;.*broke"):
        SweepRunner(a_plan(tmp_path, n_trials=9, max_failure_rate=0.0)).run()
    assert jobs.ran == [(0, 0), (1, 0)]


def test_max_failure_rate_counts_the_failures_of_earlier_sessions(
    tmp_path: Path, jobs: SimulatedJobs
) -> None:
    jobs.ends = {(1, 0): [2]}
    for _ in range(2):
        with pytest.raises(RunFailedError, match=r"1 trials failed.*raise hydra\.sweeper\.max_failure_rate"):
            SweepRunner(a_plan(tmp_path, n_trials=3, max_failure_rate=0.0)).run()
        assert jobs.ran == [(0, 0), (1, 0)]
    SweepRunner(a_plan(tmp_path, n_trials=3, max_failure_rate=0.5)).run()
    assert jobs.ran == [(0, 0), (1, 0), (2, 0)]


def test_full_disk_ends_the_sweep_without_failing_a_trial(tmp_path: Path, jobs: SimulatedJobs) -> None:
    jobs.ends = {(1, 0): [exit_codes.DISK_FULL]}
    with pytest.raises(NoRoomError, match="trial 1 could not be stored, and the sweep ends: it broke"):
        SweepRunner(a_plan(tmp_path)).run()
    sweep = SweepRunner(a_plan(tmp_path))
    sweep.run()
    assert jobs.ran == [(0, 0), (1, 0), (1, 0)]
    assert [trial.state.name for trial in sweep.study.trials] == ["COMPLETE", "COMPLETE"]


def test_run_without_free_disk_space_exits_with_the_status_disk_full(
    program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))  # type: ignore[attr-defined]
    done = program(*BUDGET)
    assert done.status == exit_codes.DISK_FULL
    assert "where 0.0 MiB are free; free disk space" in done.err.splitlines()[-1]


def test_journal_on_a_full_disk_raises_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Journal(tmp_path / "study.journal")
    monkeypatch.setattr(os, "fsync", _no_space)
    with pytest.raises(NoRoomError, match=r"study\.journal cannot be written \(No space left on device\)"):
        log.append_logs([{"op_code": 0}])


def _no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.usefixtures("jobs")
def test_sweep_continues_when_its_output_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = SweepRunner(a_plan(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Closed())
        sweep.run()
    assert [trial.state.name for trial in sweep.study.trials] == ["COMPLETE", "COMPLETE"]


class Closed(io.StringIO):
    """A pipe whose reader has closed it."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_sweep_stops_when_the_first_trials_fail_for_the_same_reason(
    tmp_path: Path, jobs: SimulatedJobs
) -> None:
    jobs.ends = {(number, 0): [1] for number in range(9)}
    with pytest.raises(RunFailedError, match="first 3 trials all failed for the same reason: it broke in …"):
        SweepRunner(a_plan(tmp_path, n_trials=9)).run()
    assert len(jobs.ran) == 3


def test_sweep_whose_first_trials_failed_continues_when_it_is_repeated(
    tmp_path: Path, jobs: SimulatedJobs
) -> None:
    """As long as its next trial fails too, it stops after that one."""
    jobs.ends = {(number, 0): [1] for number in range(4)}
    for ran in (3, 4):
        with pytest.raises(RunFailedError, match=f"first {ran} trials all failed for the same reason"):
            SweepRunner(a_plan(tmp_path, n_trials=6)).run()
        assert len(jobs.ran) == ran
    SweepRunner(a_plan(tmp_path, n_trials=6)).run()
    assert len(jobs.ran) == 6


@pytest.mark.parametrize(
    ("ends", "error", "settings"),
    [
        ({(number, 0): [1] for number in range(3)}, RunFailedError, {"n_trials": 3}),
        ({(1, 0): [1]}, RunFailedError, {"max_failure_rate": 0.0}),
        ({(0, 1): [1]}, RunFailedError, {"validate": 1}),
        ({(1, 0): [signal.SIGTERM]}, SignalExit, {}),
    ],
    ids=["all fail", "too many fail", "the validation fails", "stopped"],
)
def test_results_are_printed_when_a_sweep_ends_early(
    tmp_path: Path,
    jobs: SimulatedJobs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ends: dict[Job, Sequence[RunState | int | JobExit]],
    error: type[BaseException],
    settings: dict[str, Any],
) -> None:
    monkeypatch.setattr("dqn_runner.sweep.results.summary.table", lambda *_: "the results")
    jobs.ends = ends
    with pytest.raises(error):
        SweepRunner(a_plan(tmp_path, **settings)).run()
    assert capsys.readouterr().out.splitlines()[-1] == "the results"


def test_storage_of_the_jobs_has_an_absolute_path() -> None:
    here = Path.cwd()
    assert storage_of_jobs("mine.journal") == str(here / "mine.journal")
    assert storage_of_jobs("sqlite:///mine.db") == f"sqlite:///{here}/mine.db"
    for unchanged in ("/a/b", "sqlite:////a/b.db", "journal:///a/b", "mysql://me@host/db", "${oc.env:URL}"):
        assert storage_of_jobs(unchanged) == unchanged


@pytest.mark.usefixtures("jobs")
def test_sweep_whose_journal_was_damaged_continues_without_the_lost_trial(tmp_path: Path) -> None:
    SweepRunner(a_plan(tmp_path)).run()
    journal = tmp_path / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if b"param_name" in line)
    lines[first] = lines[first].replace(b"gamma", b"gamme")
    journal.write_bytes(b"".join(lines))
    sweep = SweepRunner(a_plan(tmp_path, n_trials=3))
    sweep.run()
    assert [trial.state.name for trial in sweep.study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]


@pytest.mark.parametrize(
    "wrong",
    [{"n_startup_trials": "abc"}, {"n_ei_candidates": "x"}, {"n_ei_candidates": "x", "n_startup_trials": 0}],
)
def test_sampler_that_cannot_propose_is_rejected_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    sampler = {"_target_": "optuna.samplers.TPESampler", "seed": None, **wrong}
    with pytest.raises(UserError, match=r"^hydra\.sweeper\.sampler cannot propose the values of a trial: "):
        SweepRunner(a_plan(tmp_path / "sweep", sampler=sampler))
    assert not (tmp_path / "sweep").exists()


@pytest.mark.usefixtures("jobs")
def test_sweep_over_a_grid_says_how_many_trials_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = search_space(("agent.gamma=choice(0.9,0.95,0.99)",), {}, None)
    grid = {"_target_": "optuna.samplers.GridSampler", "seed": None}
    left_out = "hydra.sweeper.n_trials=2 leaves out 1 point(s) of the grid; with 3 every point is tried"
    for n_trials, lines in ((2, [left_out, "2 of 2 finished"]), (9, ["3 of 3 finished"])):
        SweepRunner(replace(a_plan(tmp_path, sampler=grid, n_trials=n_trials), space=space)).run()
        printed = capsys.readouterr().out
        assert all(line in printed for line in lines)
        assert ("leaves out" in printed) == (n_trials == 2)
        session = session_of(read_study(tmp_path))
        assert session is not None
        assert session["n_trials"] == min(n_trials, 3)


def test_trial_runs_no_more_seeds_after_one_fails_or_diverges(tmp_path: Path, jobs: SimulatedJobs) -> None:
    jobs.ends = {(0, 1): [RunState.DIVERGED], (1, 0): [1]}
    SweepRunner(a_plan(tmp_path, seeds=3, n_trials=3)).run()
    assert jobs.ran == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2)]


@pytest.mark.parametrize(
    ("error", "called"), [(OSError("a broken disk"), "stop"), (KeyboardInterrupt(), "kill")]
)
def test_jobs_are_killed_only_by_a_second_interrupt(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, called: str
) -> None:
    jobs, calls = Jobs(), []
    for name in ("stop", "kill"):
        original: Callable[[], None] = getattr(jobs, name)
        monkeypatch.setattr(jobs, name, lambda name=name, call=original: (calls.append(name), call()))

    def poll() -> None:
        raise error

    with pytest.raises(type(error)):
        Slots(1, jobs, poll).run(lambda _: void(jobs.stopping.wait()), StopSignals())
    assert calls == [called]


def void(_: object) -> None:
    """Discard a result."""
