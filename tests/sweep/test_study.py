"""What processes that share a study owe each other: proposals, claims, signs of life, reports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.study import Study
from optuna.trial import TrialState

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.records import RunInfo
from dqn_runner.loggers.logger_group import LoggerGroup
from dqn_runner.sweep import heartbeat
from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.heartbeat import Heartbeat
from dqn_runner.sweep.objectives import Aggregate
from dqn_runner.sweep.reporter import Place, Reporter
from dqn_runner.sweep.sampler import grid_is_exhausted
from dqn_runner.sweep.search_space.space import search_space
from dqn_runner.sweep.study import create_study, requeue, set_sampler_and_pruner, validation_key
from dqn_runner.sweep.trial_queue import OVERRIDES, TrialQueue
from tests.conftest import BUDGET, Outcome

TPE = {"_target_": "optuna.samplers.TPESampler", "seed": None, "n_startup_trials": 3}
NO_PRUNER = {"_target_": "optuna.pruners.NopPruner"}
MEDIAN = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 1}
WILCOXON = {"_target_": "optuna.pruners.WilcoxonPruner"}
LEARNING_RATE = "agent.learning_rate=tag(log,interval(1e-5,1e-2))"
GAMMA = "agent.gamma=choice(0.9,0.99)"
DEFINITION = {"seeds": 2, "aggregate": "mean", "objective": ["return"]}


def a_study(path: Path, *arguments: str, **changes: Any) -> tuple[Study, TrialQueue]:
    """The study of a sweep as one process opens it, and its queue."""
    options = {"sampler": TPE, "pruner": NO_PRUNER, "n_trials": 4, **changes}
    settings = SweepConfig(**options)
    space = search_space(arguments or (LEARNING_RATE, GAMMA), {}, None)
    study = create_study(str(path / "study.journal"), "it", settings, DEFINITION)
    set_sampler_and_pruner(study, settings, space, seed=5)
    return study, TrialQueue(study, space, OmegaConf.create({}), settings.n_trials, Heartbeat(study), path)


def proposals(trials: TrialQueue, number: int) -> list[list[str]]:
    """Take and complete so many trials; what each was asked to run."""
    found: list[list[str]] = []
    for _ in range(number):
        trial = trials.next()
        assert trial is not None
        found.append(trial.user_attrs[OVERRIDES])
        trials.tell(trial.number, TrialState.COMPLETE, [float(trial.number)])
    return found


@pytest.mark.parametrize(
    "kind", ["TPESampler", "RandomSampler", "GPSampler", "CmaEsSampler", "NSGAIISampler"]
)
def test_a_sweep_that_goes_on_proposes_what_it_would_have_and_repeats_nothing(
    tmp_path: Path, kind: str
) -> None:
    sampler = {"_target_": f"optuna.samplers.{kind}", "seed": None}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    whole = proposals(a_study(tmp_path / "a", LEARNING_RATE, sampler=sampler, n_trials=6)[1], 6)
    parts: list[list[str]] = []
    for _ in range(3):  # a new process each time
        parts += proposals(a_study(tmp_path / "b", LEARNING_RATE, sampler=sampler, n_trials=6)[1], 2)
    assert parts == whole
    assert len({tuple(overrides) for overrides in whole}) == 6


def test_processes_that_share_a_study_propose_different_points_and_exactly_the_asked_number(
    tmp_path: Path,
) -> None:
    (_, one), (study, other) = a_study(tmp_path), a_study(tmp_path)
    taken = [queue.next() for queue in (one, other, one, other)]
    assert one.next() is None
    assert other.next() is None
    assert len({str(trial.params) for trial in taken if trial}) == 4
    assert len(one.elsewhere()) == 2
    assert len(study.trials) == 4


def test_a_trial_whose_process_died_is_taken_up_with_the_same_settings(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from tests.sweep.test_study import a_study; "
        f"trial = a_study(Path({str(tmp_path)!r}))[1].next(); print(trial.user_attrs['overrides'])"
    )
    lost = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    _, trials = a_study(tmp_path)
    trial = trials.next()
    assert trial is not None
    assert trial.number == 0
    assert str(trial.user_attrs[OVERRIDES]) == lost.strip()
    assert trials.elsewhere() == []


def test_a_trial_that_died_before_it_had_a_name_on_it_waits_while_others_live(tmp_path: Path) -> None:
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


def test_the_last_trial_is_not_run_twice(tmp_path: Path) -> None:
    study, trials = a_study(tmp_path, n_trials=1)
    hasty = a_study(tmp_path, n_trials=1)[1]
    before = hasty.all()
    hasty.all = lambda: before  # type: ignore[method-assign] # as if it had looked just before the other took
    assert trials.next() is not None
    assert hasty.next() is None
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.FAIL]


def test_a_trial_finished_by_somebody_else_stays_as_it_is(tmp_path: Path) -> None:
    study, trials = a_study(tmp_path)
    trial = trials.next()
    assert trial is not None
    assert trials.tell(trial.number, TrialState.COMPLETE, [1.0])
    assert not trials.tell(trial.number, TrialState.COMPLETE, [2.0])
    assert study.trials[0].value == 1.0


def test_a_grid_ends_when_every_point_was_run(tmp_path: Path) -> None:
    sampler = {"_target_": "optuna.samplers.GridSampler", "seed": None}
    points = (GAMMA, "agent.n_step=choice(1,3)")
    study, trials = a_study(tmp_path, *points, sampler=sampler, n_trials=50)
    assert len({tuple(p) for p in proposals(trials, 4)}) == 4
    assert grid_is_exhausted(study)
    assert trials.next() is None


def test_the_last_points_of_a_grid_are_not_repeated_while_they_run(tmp_path: Path) -> None:
    sampler = {"_target_": "optuna.samplers.GridSampler", "seed": None}
    _, trials = a_study(tmp_path, GAMMA, sampler=sampler, n_trials=50)
    assert [trial and trial.params for trial in (trials.next(), trials.next(), trials.next())] == [
        {"agent.gamma": 0.9},
        {"agent.gamma": 0.99},
        None,
    ]


def test_a_trial_goes_on_where_its_directory_is_now(tmp_path: Path) -> None:
    study, trials = a_study(tmp_path)
    for begun in (tmp_path / "elsewhere", tmp_path / "gone"):
        study.ask().set_user_attr("directory", str(begun))
    (tmp_path / "elsewhere").mkdir()
    taken = [trials.next(), trials.next()]
    found = [trial and trial.user_attrs["directory"] for trial in taken]
    assert found == [str(tmp_path / "elsewhere"), str(tmp_path / "1")]


def test_another_question_to_the_same_study_is_refused(tmp_path: Path) -> None:
    a_study(tmp_path)
    settings = SweepConfig(sampler=TPE, pruner=NO_PRUNER)
    with pytest.raises(UserError, match=r"begun with another seeds \(seeds: 2 -> 3\)"):
        create_study(str(tmp_path / "study.journal"), "it", settings, {**DEFINITION, "seeds": 3})


def test_a_file_that_was_changed_meanwhile_is_noticed_by_what_it_sets(tmp_path: Path) -> None:
    settings = SweepConfig(sampler=TPE, pruner=NO_PRUNER)
    begun, edited, upgraded = (
        {**DEFINITION, "configuration": {"trainer.max_steps": steps, **more}}
        for steps, more in ((100, {}), (200, {}), (100, {"agent.new": 1}))
    )
    create_study(str(tmp_path / "study.journal"), "it", settings, begun)
    create_study(str(tmp_path / "study.journal"), "it", settings, upgraded)
    with pytest.raises(UserError, match=r"another trainer.max_steps \(trainer.max_steps: 100 -> 200\)"):
        create_study(str(tmp_path / "study.journal"), "it", settings, edited)


def test_constraints_reach_the_sampler_or_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="RandomSampler cannot keep to hydra"):
        a_study(tmp_path, constraints={"seconds": 9}, sampler={"_target_": "optuna.samplers.RandomSampler"})
    study, trials = a_study(tmp_path, constraints={"parameters": 100})
    for parameters in (50.0, 200.0):
        trial = trials.next()
        assert trial is not None
        trial.set_user_attr("metrics", {"parameters": parameters})
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
def test_a_part_that_cannot_be_made_is_named(
    tmp_path: Path, part: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=rf"hydra.sweeper.{part} cannot be made: .*{message}"):
        a_study(tmp_path, **{part: config})


class TestWorkers:
    """Who is alive."""

    def test_a_process_of_this_machine_is_looked_up(self, tmp_path: Path) -> None:
        study, _ = a_study(tmp_path)
        mine = Heartbeat(study)
        assert not mine.is_stale(mine.me)
        alive = {"host": heartbeat._machine(), "pid": os.getpid(), "beats": 0, "ended": False}
        study.set_user_attr("worker:reused", {**alive, "started": "another time"})
        assert mine.is_stale("reused")
        other = Heartbeat(study)
        assert not mine.is_stale(other.me)
        other.leave()
        assert mine.is_stale(other.me)

    def test_a_process_elsewhere_is_dead_when_it_gives_no_sign_for_long(self, tmp_path: Path) -> None:
        study, _ = a_study(tmp_path)
        now = 0.0
        mine = Heartbeat(study, lambda: now)
        entry = {"host": "elsewhere", "pid": 1, "started": "1", "beats": 3, "ended": False}
        study.set_user_attr("worker:far", entry)
        assert not mine.is_stale("far")
        now = heartbeat.GRACE - 1
        assert not mine.is_stale("far")
        study.set_user_attr("worker:far", {**entry, "beats": 4})
        now = heartbeat.GRACE + 1
        assert not mine.is_stale("far")
        now = 2 * heartbeat.GRACE + 2
        assert mine.is_stale("far")

    def test_one_that_was_killed_is_dead_though_its_parent_has_not_noticed(self) -> None:
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        assert heartbeat._started(process.pid) is not None
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        assert heartbeat._started(process.pid) is None
        process.communicate()

    def test_in_another_container_of_this_host_numbers_mean_something_else(self, tmp_path: Path) -> None:
        study, _ = a_study(tmp_path)
        host = f"{socket.gethostname()} pid:[1]"
        entry = {"host": host, "pid": os.getpid(), "started": "1", "beats": 3, "ended": False}
        study.set_user_attr("worker:contained", entry)
        assert not Heartbeat(study).is_stale("contained")

    def test_a_trial_that_bears_no_name_for_long_is_given_up_by_all(self, tmp_path: Path) -> None:
        study, _ = a_study(tmp_path)
        now = 0.0
        one, _other = Heartbeat(study, lambda: now), Heartbeat(study)
        assert not one.abandoned(0)
        now = heartbeat.GRACE + 1
        assert one.abandoned(0)

    def test_signs_of_life_are_rare(self, tmp_path: Path) -> None:
        study, _ = a_study(tmp_path)
        every = heartbeat.BEAT_EVERY
        times = iter((0.0, 1.0, every, every, every + 1, 2 * every, 2 * every))
        mine = Heartbeat(study, lambda: next(times))
        for _ in range(4):
            mine.record()
        assert study.user_attrs[f"worker:{mine.me}"]["beats"] == 2


class TestReporter:
    """What a job tells the study, and hears from it."""

    def reporter(self, path: Path, trial: int, run: int = 0) -> Reporter:
        return Reporter(Place(str(path / "study.journal"), "it", trial, run), every=100, budget=1000)

    def test_the_worse_half_is_pruned_at_the_same_evaluation(self, tmp_path: Path) -> None:
        study, trials = a_study(tmp_path, pruner=MEDIAN)
        good, bad = trials.next(), trials.next()
        assert good is not None
        assert bad is not None
        well = self.reporter(tmp_path, good.number)
        assert [well(100, 5.0), well(200, 9.0)] == [None, None]
        well.finish("finished", "its budget", 5, {"return": 9.0}, tmp_path)
        trials.tell(good.number, TrialState.COMPLETE, [9.0])
        badly = self.reporter(tmp_path, bad.number)
        assert badly(100, 6.0) is None
        assert badly(200, 8.0) == "pruned by the sweep's MedianPruner after evaluation 2"
        assert study.trials[0].intermediate_values == {1: 5.0, 2: 9.0}

    def test_a_run_that_goes_on_reports_an_evaluation_once(self, tmp_path: Path) -> None:
        study, trials = a_study(tmp_path)
        trial = trials.next()
        assert trial is not None
        self.reporter(tmp_path, 0)(100, 5.0)
        self.reporter(tmp_path, 0)(100, 5.0)
        self.reporter(tmp_path, 0)(200, 6.0)
        assert study.trials[0].intermediate_values == {1: 5.0, 2: 6.0}

    def test_evaluations_are_numbered_by_the_period_that_ended(self, tmp_path: Path) -> None:
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
    def test_a_run_that_was_killed_hears_the_same_again(self, tmp_path: Path, pruner: dict[str, Any]) -> None:
        _, trials = a_study(tmp_path, pruner=pruner)
        trials.next()
        well = self.reporter(tmp_path, 0)
        assert [well(100, 5.0), well(200, 9.0)] == [None, None]
        trials.tell(0, TrialState.COMPLETE, [9.0])
        trials.next()
        badly = self.reporter(tmp_path, 1)
        heard = [badly(100, 6.0), badly(200, 4.0)]
        assert heard[0] is None
        assert heard[1] is not None
        again = self.reporter(tmp_path, 1)
        assert [again(100, 6.0), again(200, 4.0)] == heard

    def test_later_seeds_report_the_aggregate_beyond_the_earlier_ones(self, tmp_path: Path) -> None:
        study, trials = a_study(tmp_path)
        trials.next()
        self.reporter(tmp_path, 0).finish("finished", "its budget", 5, {"return": 10.0}, tmp_path)
        self.reporter(tmp_path, 0, run=1)(100, 20.0)
        assert study.trials[0].intermediate_values == {12: 15.0}

    def test_validation_leaves_the_finished_trial_alone(self, tmp_path: Path) -> None:
        study, trials = a_study(tmp_path)
        trials.next()
        trials.tell(0, TrialState.COMPLETE, [1.0])
        stop_callback = self.reporter(tmp_path, 0, run=2)
        assert stop_callback(100, 3.0) is None
        stop_callback.finish("finished", "its budget", 7, {"return": 3.0}, tmp_path)
        assert study.user_attrs[validation_key(0, 2)]["metrics"] == {"return": 3.0}

    def test_with_wilcoxon_evaluations_are_not_reported(self, tmp_path: Path) -> None:
        study, trials = a_study(tmp_path, pruner=WILCOXON, seeds=2)
        trials.next()
        assert self.reporter(tmp_path, 0)(100, 3.0) is None
        assert study.trials[0].intermediate_values == {}

    def test_the_outcome_of_a_trial_that_was_finished_meanwhile_is_no_error(self, tmp_path: Path) -> None:
        study, trials = a_study(tmp_path)
        trials.next()
        reporter = self.reporter(tmp_path, 0)
        trials.tell(0, TrialState.FAIL)
        reporter.finish("finished", "its budget", 5, {"return": 1.0}, tmp_path)
        assert "run_0" not in study.trials[0].user_attrs


def test_the_runs_of_a_study_are_one_group_for_trackers(
    tmp_path: Path, program: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trials = a_study(tmp_path)
    trial = trials.next()
    assert trial is not None
    groups: list[str | None] = []
    original = LoggerGroup.open

    def noted(sinks: LoggerGroup, run_dir: Path, info: RunInfo) -> None:
        groups.append(info.group)
        original(sinks, run_dir, info)

    monkeypatch.setattr(LoggerGroup, "open", noted)
    link = (f"study.storage={tmp_path}/study.journal", "study.name=it", "study.trial=0")
    where = f"hydra.run.dir={trial.user_attrs['directory']}"
    done = program(*BUDGET, *link, where, "logging=[jsonl]")
    assert done.status == 0, done
    assert groups == ["it"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_trials": 0}, "n_trials must be at least 1"),
        ({"validate": -1}, "validate must not be negative"),
        ({"max_failure_rate": 2.0}, "is a share, got 2"),
        ({"objective": ["return", "seconds"]}, "directions"),
        ({"objective": "retrun"}, "did you mean return"),
        ({"constraints": {"params": 3}}, "did you mean parameters"),
        (
            {"objective": ["return", "seconds"], "direction": ["maximize", "minimize"], "pruner": MEDIAN},
            "set hydra.sweeper.pruner=none",
        ),
        ({"objective": "seconds", "direction": "minimize", "pruner": MEDIAN}, "the objective is seconds"),
    ],
)
def test_settings_that_no_sweep_can_have(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SweepConfig(**{"sampler": TPE, "pruner": NO_PRUNER, **changes})


def test_several_seeds_need_a_budget_for_a_pruner_to_compare_them() -> None:
    settings = SweepConfig(sampler=TPE, pruner=MEDIAN, seeds=2, aggregate=Aggregate.iqm)
    settings.check_budget(100)
    with pytest.raises(UserError, match=r"set trainer\.max_steps"):
        settings.check_budget(None)


def test_requeued_trials_can_be_asked_for(tmp_path: Path) -> None:
    study, _ = a_study(tmp_path)
    asked = study.ask()
    requeue(study, study.trials[0])
    assert study.trials[0].state is TrialState.WAITING
    assert study.ask().number == asked.number
    assert optuna.trial.TrialState.RUNNING is study.trials[0].state
