"""Processes that share a study: proposals of trials, their queue, heartbeats, and reports of jobs."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import GridSampler
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.records import RunInfo
from dqn_runner.loggers.logger_group import LoggerGroup
from dqn_runner.sweep import heartbeat
from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.grid import expected_trials
from dqn_runner.sweep.heartbeat import Heartbeat
from dqn_runner.sweep.objectives import Aggregate
from dqn_runner.sweep.optuna_parts import make_part
from dqn_runner.sweep.reporter import JobLink, Reporter
from dqn_runner.sweep.results.ranking import counts
from dqn_runner.sweep.search_space.space import search_space
from dqn_runner.sweep.study import create_study, load_study, make_sampler, requeue
from dqn_runner.sweep.trial_queue import TrialQueue
from dqn_runner.sweep.trial_record import (
    RunState,
    TrialRecord,
    store_directory,
    store_metrics,
    store_pruner,
    store_worker,
    validation_of,
    workers_of,
)
from tests.conftest import BUDGET, Outcome
from tests.support.fork_server import forked_python

TPE = {"_target_": "optuna.samplers.TPESampler", "seed": None, "n_startup_trials": 3}
NO_PRUNER = {"_target_": "optuna.pruners.NopPruner"}
MEDIAN = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 1}
WILCOXON = {"_target_": "optuna.pruners.WilcoxonPruner"}
LEARNING_RATE = "agent.learning_rate=tag(log,interval(1e-5,1e-2))"
GAMMA = "agent.gamma=choice(0.9,0.99)"
DEFINITION = {"seeds": 2, "aggregate": "mean", "objective": ["return"]}


def a_study(path: Path, *arguments: str, **changes: Any) -> tuple[Study, TrialQueue]:
    """The study of a sweep as one process opens it, and the queue of that process."""
    options = {"sampler": TPE, "pruner": NO_PRUNER, "n_trials": 4, **changes}
    settings = SweepConfig(**options)
    space = search_space(arguments or (LEARNING_RATE, GAMMA), {}, None)
    study = create_study(str(path / "study.journal"), "it", settings, DEFINITION, path)
    study.sampler = make_sampler(settings, space, seed=5)
    study.pruner = make_part("pruner", settings.pruner)
    store_pruner(study, settings.pruner)
    return study, TrialQueue(study, space, OmegaConf.create({}), settings.n_trials, Heartbeat(study), path)


def proposals(trials: TrialQueue, number: int) -> list[list[str]]:
    """Take and complete this number of trials; returns their overrides."""
    found: list[list[str]] = []
    for _ in range(number):
        trial = trials.next()
        assert trial is not None
        found.append(TrialRecord(trial).overrides)
        trials.tell(trial.number, TrialState.COMPLETE, [float(trial.number)])
    return found


@pytest.mark.parametrize(
    "kind", ["TPESampler", "RandomSampler", "GPSampler", "CmaEsSampler", "NSGAIISampler"]
)
def test_resumed_sweep_proposes_the_trials_of_an_uninterrupted_one(tmp_path: Path, kind: str) -> None:
    sampler = {"_target_": f"optuna.samplers.{kind}", "seed": None}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    whole = proposals(a_study(tmp_path / "a", LEARNING_RATE, sampler=sampler, n_trials=6)[1], 6)
    parts: list[list[str]] = []
    for _ in range(3):  # a new process each time
        parts += proposals(a_study(tmp_path / "b", LEARNING_RATE, sampler=sampler, n_trials=6)[1], 2)
    assert parts == whole
    assert len({tuple(overrides) for overrides in whole}) == 6


def test_processes_that_share_a_study_propose_n_trials_different_points(
    tmp_path: Path,
) -> None:
    (_, one), (study, other) = a_study(tmp_path), a_study(tmp_path)
    taken = [queue.next() for queue in (one, other, one, other)]
    assert one.next() is None
    assert other.next() is None
    assert len({str(trial.params) for trial in taken if trial}) == 4
    assert len(one.elsewhere()) == 2
    assert len(study.trials) == 4


def test_trial_of_a_dead_process_is_run_again_with_the_same_overrides(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from tests.sweep.test_study import TrialRecord, a_study; "
        f"trial = a_study(Path({str(tmp_path)!r}))[1].next(); print(TrialRecord(trial).overrides)"
    )
    lost = subprocess.run([forked_python(), "-c", script], capture_output=True, text=True, check=True).stdout
    _, trials = a_study(tmp_path)
    trial = trials.next()
    assert trial is not None
    assert trial.number == 0
    assert str(TrialRecord(trial).overrides) == lost.strip()
    assert trials.elsewhere() == []


def test_unclaimed_trial_is_requeued_only_when_all_other_processes_have_ended(tmp_path: Path) -> None:
    study, trials = a_study(tmp_path)
    other = Heartbeat(study)
    study.ask()
    second = trials.next()
    assert second is not None
    assert second.number == 1
    other.leave()
    first = trials.next()
    assert first is not None
    assert first.number == 0


def test_surplus_trial_of_two_processes_waits_until_more_trials_are_wanted(tmp_path: Path) -> None:
    study, trials = a_study(tmp_path, n_trials=1)
    other = a_study(tmp_path, n_trials=1)[1]
    before = other.all()
    with pytest.MonkeyPatch.context() as patch:  # as if read just before the first took its trial
        patch.setattr(other, "all", lambda: before)
        assert trials.next() is not None
        assert other.next() is None
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.WAITING]
    assert counts(study, n_trials=1)["waiting"] == 0
    assert other.next() is None
    more = a_study(tmp_path, n_trials=2)[1].next()
    assert more is not None
    assert more.number == 1


def test_processes_with_one_sweep_directory_create_no_surplus_trial(tmp_path: Path) -> None:
    queues = [a_study(tmp_path, n_trials=5)[1] for _ in range(4)]
    ready = threading.Barrier(4)

    def take(queue: TrialQueue) -> None:
        ready.wait()
        while queue.next() is not None:
            pass

    threads = [threading.Thread(target=take, args=(queue,)) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [trial.state for trial in queues[0].all()] == [TrialState.RUNNING] * 5


def test_trial_finished_by_another_process_is_not_changed(tmp_path: Path) -> None:
    study, trials = a_study(tmp_path)
    trial = trials.next()
    assert trial is not None
    assert trials.tell(trial.number, TrialState.COMPLETE, [1.0])
    assert not trials.tell(trial.number, TrialState.COMPLETE, [2.0])
    assert study.trials[0].value == 1.0


GRID = {"_target_": "optuna.samplers.GridSampler", "seed": None}
RANDOM = {"_target_": "optuna.samplers.RandomSampler", "seed": None}
BRUTE_FORCE = {"_target_": "optuna.samplers.BruteForceSampler", "seed": None}
EVERY_POINT = pytest.mark.parametrize("sampler", [GRID, BRUTE_FORCE], ids=["grid", "brute force"])


@EVERY_POINT
def test_grid_ends_after_every_point(tmp_path: Path, sampler: dict[str, Any]) -> None:
    points = (GAMMA, "agent.n_step=choice(1,3)")
    study, trials = a_study(tmp_path, *points, sampler=sampler, n_trials=50)
    assert len({tuple(p) for p in proposals(trials, 4)}) == 4
    assert expected_trials(study, 50) == 4
    assert trials.next() is None
    assert a_study(tmp_path, *points, sampler=sampler, n_trials=50)[1].next() is None


@EVERY_POINT
def test_grid_does_not_repeat_points_that_are_running(tmp_path: Path, sampler: dict[str, Any]) -> None:
    _, trials = a_study(tmp_path, GAMMA, sampler=sampler, n_trials=50)
    taken = [trial.params["agent.gamma"] for trial in (trials.next(), trials.next()) if trial]
    assert sorted(taken) == [0.9, 0.99]
    assert trials.next() is None


@pytest.mark.parametrize(
    "before", [RANDOM, {**GRID, "seed": 1}, {**GRID, "seed": 7}], ids=["random", "seed 1", "seed 7"]
)
@pytest.mark.parametrize("points", ["agent.gamma=choice(0.9,0.95,0.99)", "agent.gamma=range(0.1,0.9,0.1)"])
def test_grid_completes_the_trials_of_another_sampler(
    tmp_path: Path, before: dict[str, Any], points: str
) -> None:
    earlier = proposals(a_study(tmp_path, points, sampler=before, n_trials=3)[1], 3)
    study, trials = a_study(tmp_path, points, sampler={**GRID, "seed": 3}, n_trials=50)
    left = expected_trials(study, 50) - 3
    later = proposals(trials, left)
    assert trials.next() is None
    every = [f"agent.gamma={value}" for value in trials._space.grid()["agent.gamma"]]
    assert sorted(later + [list(p) for p in {tuple(p) for p in earlier}]) == [[point] for point in every]


@EVERY_POINT
@pytest.mark.parametrize("kept", [{}, {"agent.gamma": 0.9}], ids=["nothing", "one value"])
def test_grid_tries_every_point_although_a_trial_lost_its_values(
    tmp_path: Path, sampler: dict[str, Any], kept: dict[str, float]
) -> None:
    points = (GAMMA, "agent.n_step=choice(1,3)")
    study, trials = a_study(tmp_path, *points, sampler=sampler, n_trials=50)
    first = proposals(trials, 1)
    distributions = {name: CategoricalDistribution([0.9, 0.99]) for name in kept}
    study.add_trial(create_trial(state=TrialState.FAIL, params=kept, distributions=distributions))
    assert len({tuple(point) for point in first + proposals(trials, 3)}) == 4
    assert expected_trials(study, 50) == 5
    assert trials.next() is None


@EVERY_POINT
def test_grid_does_not_repeat_the_points_of_failed_trials(tmp_path: Path, sampler: dict[str, Any]) -> None:
    _, trials = a_study(tmp_path, GAMMA, sampler=sampler, n_trials=50)
    for _ in range(2):
        trial = trials.next()
        assert trial is not None
        trials.tell(trial.number, TrialState.FAIL)
    assert trials.next() is None


def test_grid_has_the_order_of_optuna(tmp_path: Path) -> None:
    _, trials = a_study(tmp_path, "agent.n_step=range(1,8)", sampler=GRID, n_trials=8)
    theirs = optuna.create_study(sampler=GridSampler({"agent.n_step": list(range(1, 9))}, seed=5))
    theirs.optimize(lambda trial: trial.suggest_int("agent.n_step", 1, 8), n_trials=8)
    expected = [[f"agent.n_step={trial.params['agent.n_step']}"] for trial in theirs.trials]
    assert proposals(trials, 8) == expected


@pytest.mark.parametrize("seed", range(6))
def test_grid_gives_a_trial_that_was_killed_between_two_values_a_whole_point(
    tmp_path: Path, seed: int
) -> None:
    """The order of the points is another one in the next session, if the seed of the sampler is."""
    points = ("agent.gamma=choice(0.9,0.99)", "agent.n_step=choice(1,3)")
    study, trials = a_study(tmp_path, *points, sampler=GRID, n_trials=50)
    proposals(trials, 1)
    killed = study.ask()
    value = trials._space.parameters[0].suggest(killed)
    requeue(study, killed)
    again, trials = a_study(tmp_path, *points, sampler={**GRID, "seed": seed}, n_trials=50)
    found = [value in overrides[0] for overrides in proposals(trials, 3)]
    assert found[0]
    assert len({tuple(TrialRecord(trial).overrides) for trial in again.trials}) == 4


def test_choice_with_an_interpolation_is_a_point_of_a_grid_as_it_is_written(tmp_path: Path) -> None:
    _, trials = a_study(tmp_path, "env.id='${oc.env:X}','a${b}'", sampler=GRID)
    assert sorted(proposals(trials, 2)) == [["env.id='${oc.env:X}'"], ["env.id='a${b}'"]]


@pytest.mark.parametrize("part", ["sampler", "pruner"])
def test_class_of_another_kind_is_not_a_sampler_or_pruner(tmp_path: Path, part: str) -> None:
    with pytest.raises(UserError, match=f"hydra.sweeper.{part}: collections.OrderedDict makes no Base"):
        a_study(tmp_path, **{part: {"_target_": "collections.OrderedDict"}})


@EVERY_POINT
def test_grid_with_a_trial_of_another_search_space_is_an_error_of_one_line(
    tmp_path: Path, sampler: dict[str, Any]
) -> None:
    study, trials = a_study(tmp_path, GAMMA, sampler=sampler, n_trials=50)
    proposals(trials, 1)
    other = CategoricalDistribution([0.5, 0.6])
    study.add_trial(
        create_trial(
            state=TrialState.WAITING, params={"agent.gamma": 0.5}, distributions={"agent.gamma": other}
        )
    )
    with pytest.raises(UserError, match="trial 1 of the study is not one of this sweep"):
        trials.next()


def test_brute_force_rejects_a_continuous_parameter(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"agent\.learning_rate is continuous"):
        a_study(tmp_path, LEARNING_RATE, sampler=BRUTE_FORCE)


def test_requeued_trial_runs_in_the_directory_of_this_sweep_whatever_the_study_says(tmp_path: Path) -> None:
    study, trials = a_study(tmp_path)
    for directory in (tmp_path / "elsewhere", tmp_path / "missing"):
        store_directory(study.ask(), directory)
    (tmp_path / "elsewhere").mkdir()
    taken = [trials.next(), trials.next()]
    found = [trial and TrialRecord(trial).directory for trial in taken]
    assert found == [str(tmp_path / "0"), str(tmp_path / "1")]


@pytest.mark.parametrize(
    ("overrides", "params"),
    [
        (["+hydra.callbacks.x={_target_: evil.Evil}"], {}),
        (["env.id=evil:Evil"], {"agent.gamma": 0.95}),
        (["agent.gamma=0.5"], {"agent.gamma": 0.5}),
    ],
)
def test_study_with_a_trial_that_is_not_of_its_search_space_is_rejected(
    tmp_path: Path, overrides: list[str], params: dict[str, float]
) -> None:
    study, trials = a_study(tmp_path)
    trial = trials.next()
    assert trial is not None
    trials.tell(trial.number, TrialState.COMPLETE, [1.0])
    trials.check()
    distributions = {name: FloatDistribution(0, 1) for name in params}
    study.add_trial(
        create_trial(
            params=params, distributions=distributions, value=9.0, user_attrs={"overrides": overrides}
        )
    )
    with pytest.raises(UserError, match="trial 1 of the study is not one of this sweep"):
        trials.check()


def test_pruner_of_a_study_that_is_not_one_of_optuna_is_loaded_only_if_the_command_names_it(
    tmp_path: Path,
) -> None:
    study, _ = a_study(tmp_path)
    storage = str(tmp_path / "study.journal")
    mine = "optuna.pruners._nop.NopPruner"
    store_pruner(study, {"_target_": mine})
    with pytest.raises(UserError, match=f"asks for the pruner {mine}"):
        load_study(storage, "it")
    assert isinstance(load_study(storage, "it", [mine]).pruner, optuna.pruners.NopPruner)
    patient = {"_target_": "optuna.pruners.PatientPruner", "patience": 1}
    store_pruner(study, {**patient, "wrapped_pruner": NO_PRUNER})
    assert isinstance(load_study(storage, "it").pruner, optuna.pruners.PatientPruner)
    store_pruner(study, {**patient, "wrapped_pruner": {"_target_": "os.system", "command": "touch owned"}})
    with pytest.raises(UserError, match=r"asks for the pruner os\.system"):
        load_study(storage, "it")


def test_study_with_another_definition_is_rejected(tmp_path: Path) -> None:
    a_study(tmp_path)
    settings = SweepConfig(sampler=TPE, pruner=NO_PRUNER)
    with pytest.raises(UserError, match=r"created with other seeds \(seeds: 2 -> 3\)"):
        create_study(str(tmp_path / "study.journal"), "it", settings, {**DEFINITION, "seeds": 3}, tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"n_startup_trials": "abc"}, {"n_startup_trials": 0, "n_ei_candidates": "x"}]
)
def test_sampler_that_fails_for_a_new_trial_is_named_instead_of_the_study(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    """What `check_sampler` does not find, because it tries only a few trials."""
    _, trials = a_study(tmp_path, sampler={**TPE, **wrong})
    with pytest.raises(UserError, match=r"^hydra\.sweeper\.sampler cannot propose"):
        trials.next()


def test_changed_setting_of_a_config_file_is_rejected_and_a_new_one_is_not(tmp_path: Path) -> None:
    settings = SweepConfig(sampler=TPE, pruner=NO_PRUNER)
    original, edited, upgraded = (
        {**DEFINITION, "configuration": {"trainer.max_steps": steps, **more}}
        for steps, more in ((100, {}), (200, {}), (100, {"agent.new": 1}))
    )
    create_study(str(tmp_path / "study.journal"), "it", settings, original, tmp_path)
    create_study(str(tmp_path / "study.journal"), "it", settings, upgraded, tmp_path)
    with pytest.raises(UserError, match=r"other trainer.max_steps \(trainer.max_steps: 100 -> 200\)"):
        create_study(str(tmp_path / "study.journal"), "it", settings, edited, tmp_path)


def test_constraints_are_passed_to_the_sampler_or_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="RandomSampler does not support hydra"):
        a_study(tmp_path, constraints={"seconds": 9}, sampler={"_target_": "optuna.samplers.RandomSampler"})
    study, trials = a_study(tmp_path, constraints={"parameters": 100})
    for parameters in (50.0, 200.0):
        trial = trials.next()
        assert trial is not None
        store_metrics(trial, {"parameters": parameters})
        trials.tell(trial.number, TrialState.COMPLETE, [parameters])
    assert study.best_trial.number == 0


@pytest.mark.parametrize(
    ("part", "config", "message"),
    [
        ("sampler", {**TPE, "n_startup": 3}, "unexpected keyword argument 'n_startup'"),
        ("pruner", {"_target_": "optuna.pruners.NoSuch"}, "NoSuch"),
        ("pruner", {"_target_": "optuna.pruners.PercentilePruner", "percentile": 200.0}, "Percentile"),
    ],
)
def test_sampler_or_pruner_that_cannot_be_built_is_named(
    tmp_path: Path, part: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=rf"hydra.sweeper.{part} cannot be built: .*{message}"):
        a_study(tmp_path, **{part: config})


class TestHeartbeat:
    """Which processes are alive."""

    def test_process_on_this_machine_is_looked_up_by_its_number(self, tmp_path: Path) -> None:
        study, _ = a_study(tmp_path)
        mine = Heartbeat(study)
        assert not mine.is_stale(mine.worker)
        alive = {"host": heartbeat._host(), "pid": os.getpid(), "beats": 0, "ended": False}
        store_worker(study, "reused", {**alive, "started": "another time"})
        assert mine.is_stale("reused")
        other = Heartbeat(study)
        assert not mine.is_stale(other.worker)
        other.leave()
        assert mine.is_stale(other.worker)

    def test_process_on_another_machine_is_stale_after_the_grace_period(self, tmp_path: Path) -> None:
        study, _ = a_study(tmp_path)
        now = 0.0
        mine = Heartbeat(study, lambda: now)
        entry = {"host": "elsewhere", "pid": 1, "started": "1", "beats": 3, "ended": False}
        store_worker(study, "far", entry)
        assert not mine.is_stale("far")
        now = heartbeat.GRACE_PERIOD - 1
        assert not mine.is_stale("far")
        store_worker(study, "far", {**entry, "beats": 4})
        now = heartbeat.GRACE_PERIOD + 1
        assert not mine.is_stale("far")
        now = 2 * heartbeat.GRACE_PERIOD + 2
        assert mine.is_stale("far")

    def test_zombie_process_is_dead(self) -> None:
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        assert heartbeat._start_time(process.pid) is not None
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        assert heartbeat._start_time(process.pid) is None
        process.communicate()

    def test_process_in_another_container_of_this_host_is_not_looked_up(self, tmp_path: Path) -> None:
        study, _ = a_study(tmp_path)
        host = f"{socket.gethostname()} pid:[1]"
        entry = {"host": host, "pid": os.getpid(), "started": "1", "beats": 3, "ended": False}
        store_worker(study, "contained", entry)
        assert not Heartbeat(study).is_stale("contained")

    def test_trial_without_a_worker_is_unclaimed_after_the_grace_period(self, tmp_path: Path) -> None:
        study, _ = a_study(tmp_path)
        now = 0.0
        one, _other = Heartbeat(study, lambda: now), Heartbeat(study)
        assert not one.is_unclaimed(0)
        now = heartbeat.GRACE_PERIOD + 1
        assert one.is_unclaimed(0)

    def test_heartbeats_are_stored_once_per_interval(self, tmp_path: Path) -> None:
        study, _ = a_study(tmp_path)
        every = heartbeat.INTERVAL
        times = iter((0.0, 1.0, every, every, every + 1, 2 * every, 2 * every))
        mine = Heartbeat(study, lambda: next(times))
        for _ in range(4):
            mine.record()
        assert workers_of(study)[mine.worker]["beats"] == 2


class TestReporter:
    """What a job stores in the study, and the answers of the pruner."""

    def reporter(self, path: Path, trial: int, seed_index: int = 0) -> Reporter:
        return Reporter(
            JobLink(str(path / "study.journal"), "it", trial, seed_index), eval_frequency=100, budget=1000
        )

    def test_median_pruner_compares_trials_at_the_same_evaluation(self, tmp_path: Path) -> None:
        study, trials = a_study(tmp_path, pruner=MEDIAN)
        good, bad = trials.next(), trials.next()
        assert good is not None
        assert bad is not None
        well = self.reporter(tmp_path, good.number)
        assert [well(100, 5.0), well(200, 9.0)] == [None, None]
        well.finish(RunState.FINISHED, "its budget", 5, {"return": 9.0}, tmp_path)
        trials.tell(good.number, TrialState.COMPLETE, [9.0])
        badly = self.reporter(tmp_path, bad.number)
        assert badly(100, 6.0) is None
        assert badly(200, 8.0) == "pruned by the sweep's MedianPruner after evaluation 2"
        assert study.trials[0].intermediate_values == {1: 5.0, 2: 9.0}

    def test_resumed_run_reports_each_evaluation_once(self, tmp_path: Path) -> None:
        study, trials = a_study(tmp_path)
        trial = trials.next()
        assert trial is not None
        self.reporter(tmp_path, 0)(100, 5.0)
        self.reporter(tmp_path, 0)(100, 5.0)
        self.reporter(tmp_path, 0)(200, 6.0)
        assert study.trials[0].intermediate_values == {1: 5.0, 2: 6.0}

    def test_reports_are_numbered_by_completed_evaluation_periods(self, tmp_path: Path) -> None:
        study, trials = a_study(tmp_path)
        trials.next()
        reporter = self.reporter(tmp_path, 0)
        for clock in (103, 200, 301):  # several environments may end their episodes at once
            reporter(clock, 5.0)
        assert list(study.trials[0].intermediate_values) == [1, 2, 3]

    @pytest.mark.parametrize(
        "pruner",
        [
            MEDIAN,
            {
                "_target_": "optuna.pruners.SuccessiveHalvingPruner",
                "min_resource": 1,
                "reduction_factor": 2,
                "min_early_stopping_rate": 1,
            },
        ],
    )
    def test_resumed_run_gets_the_same_answers_of_the_pruner(
        self, tmp_path: Path, pruner: dict[str, Any]
    ) -> None:
        _, trials = a_study(tmp_path, pruner=pruner)
        trials.next()
        well = self.reporter(tmp_path, 0)
        assert [well(100, 5.0), well(200, 9.0)] == [None, None]
        trials.tell(0, TrialState.COMPLETE, [9.0])
        trials.next()
        badly = self.reporter(tmp_path, 1)
        answers = [badly(100, 6.0), badly(200, 4.0)]
        assert answers[0] is None
        assert answers[1] is not None
        again = self.reporter(tmp_path, 1)
        assert [again(100, 6.0), again(200, 4.0)] == answers

    def test_later_seed_reports_the_aggregate_after_the_steps_of_earlier_seeds(self, tmp_path: Path) -> None:
        study, trials = a_study(tmp_path)
        trials.next()
        self.reporter(tmp_path, 0).finish(RunState.FINISHED, "its budget", 5, {"return": 10.0}, tmp_path)
        self.reporter(tmp_path, 0, seed_index=1)(100, 20.0)
        assert study.trials[0].intermediate_values == {12: 15.0}

    def test_validation_run_is_stored_in_the_study_and_reports_no_evaluation(self, tmp_path: Path) -> None:
        study, trials = a_study(tmp_path)
        trials.next()
        trials.tell(0, TrialState.COMPLETE, [1.0])
        validation = self.reporter(tmp_path, 0, seed_index=2)
        assert validation(100, 3.0) is None
        validation.finish(RunState.FINISHED, "its budget", 7, {"return": 3.0}, tmp_path)
        stored = validation_of(study, 0, 2)
        assert stored is not None
        assert stored.metrics == {"return": 3.0}

    def test_evaluations_are_not_reported_to_the_wilcoxon_pruner(self, tmp_path: Path) -> None:
        study, trials = a_study(tmp_path, pruner=WILCOXON, seeds=2)
        trials.next()
        assert self.reporter(tmp_path, 0)(100, 3.0) is None
        assert study.trials[0].intermediate_values == {}

    def test_outcome_for_a_trial_finished_by_another_process_is_ignored(self, tmp_path: Path) -> None:
        study, trials = a_study(tmp_path)
        trials.next()
        reporter = self.reporter(tmp_path, 0)
        trials.tell(0, TrialState.FAIL)
        reporter.finish(RunState.FINISHED, "its budget", 5, {"return": 1.0}, tmp_path)
        assert TrialRecord(study.trials[0]).runs == []


def test_runs_of_a_study_have_its_name_as_logger_group(
    tmp_path: Path, program: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trials = a_study(tmp_path)
    trial = trials.next()
    assert trial is not None
    groups: list[str | None] = []
    original = LoggerGroup.open

    def open_and_record(loggers: LoggerGroup, run_dir: Path, info: RunInfo) -> None:
        groups.append(info.group)
        original(loggers, run_dir, info)

    monkeypatch.setattr(LoggerGroup, "open", open_and_record)
    link = (f"study.storage={tmp_path}/study.journal", "study.name=it", "study.trial=0")
    where = f"hydra.run.dir={TrialRecord(trial).directory}"
    done = program(*BUDGET, *link, where, "logging=[jsonl]")
    assert done.status == 0, done
    assert groups == ["it"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_trials": 0}, "n_trials must be at least 1"),
        ({"validate": -1}, "validate must not be negative"),
        ({"max_failure_rate": 2.0}, "must be between 0 and 1, got 2"),
        ({"objective": ["return", "seconds"]}, "directions"),
        ({"objective": "retrun"}, "did you mean return"),
        ({"constraints": {"params": 3}}, "did you mean parameters"),
        ({"constraints": {"parameters": math.nan}}, "the bound of parameters must be a number, got nan"),
        ({"storage": ""}, "storage is empty"),
        ({"study_name": ""}, "study_name is empty"),
        (
            {"objective": ["return", "seconds"], "direction": ["maximize", "minimize"], "pruner": MEDIAN},
            "set hydra.sweeper.pruner=none",
        ),
        ({"objective": "seconds", "direction": "minimize", "pruner": MEDIAN}, "the objective is seconds"),
    ],
)
def test_invalid_settings_of_a_sweep_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SweepConfig(**{"sampler": TPE, "pruner": NO_PRUNER, **changes})


def test_pruner_with_several_seeds_needs_a_budget() -> None:
    settings = SweepConfig(sampler=TPE, pruner=MEDIAN, seeds=2, aggregate=Aggregate.iqm)
    settings.check_budget(100, {"agent.gamma"})
    with pytest.raises(UserError, match=r"set trainer\.max_steps"):
        settings.check_budget(None, set())


@pytest.mark.parametrize("key", ["trainer.max_steps", "trainer.eval_frequency", "trainer"])
def test_pruner_with_several_seeds_needs_the_same_evaluations_in_all_trials(key: str) -> None:
    SweepConfig(sampler=TPE, pruner=MEDIAN).check_budget(100, {key})
    SweepConfig(sampler=TPE, pruner=NO_PRUNER, seeds=2).check_budget(100, {key})
    with pytest.raises(UserError, match=f"but {key} is searched"):
        SweepConfig(sampler=TPE, pruner=MEDIAN, seeds=2).check_budget(100, {key, "agent.gamma"})


def test_requeued_trial_is_the_next_of_the_study(tmp_path: Path) -> None:
    study, _ = a_study(tmp_path)
    first = study.ask()
    requeue(study, study.trials[0])
    assert study.trials[0].state is TrialState.WAITING
    assert study.ask().number == first.number
    assert study.trials[0].state is TrialState.RUNNING
