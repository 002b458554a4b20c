"""What a trial gets does not depend on when its process was killed, nor on the order of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import QMCSampler, RandomSampler
from optuna.trial import TrialState

from dqn_runner.sweep.hydra_sweeper import PRUNERS
from dqn_runner.sweep.search_space.space import search_space
from dqn_runner.sweep.storages.journal import Journal
from dqn_runner.sweep.trial_queue import TrialQueue
from dqn_runner.sweep.trial_record import TrialRecord
from tests.sweep.test_study import LEARNING_RATE, a_study

POINTS = (LEARNING_RATE, "agent.gamma=interval(0.9,0.99)", "agent.n_step=range(1,8)")
RANDOM = {"_target_": "optuna.samplers.RandomSampler", "seed": None}
TPE = {"_target_": "optuna.samplers.TPESampler", "seed": None, "multivariate": True, "group": True}
SAMPLERS: dict[str, dict[str, Any]] = {
    "random": RANDOM,
    "tpe": TPE,
    "tpe univariate": {"_target_": "optuna.samplers.TPESampler", "seed": None, "n_startup_trials": 1},
    "qmc": {"_target_": "optuna.samplers.QMCSampler", "seed": None, "scramble": True},
    "brute force": {"_target_": "optuna.samplers.BruteForceSampler", "seed": None},
}
"""Each with some of its values drawn one after the other."""


class Killed(BaseException):
    """The process ends here."""


class Kill:
    """Ends the process before a write of the journal with this number that contains a text."""

    def __init__(self, patch: pytest.MonkeyPatch, text: bytes = b"") -> None:
        self.at, self.count = -1, 0
        write = Journal._write

        def counted(journal: Journal, file: Any, end: int, content: bytes) -> None:
            if text in content:
                if self.count == self.at:
                    raise Killed
                self.count += 1
            write(journal, file, end, content)

        patch.setattr(Journal, "_write", counted)

    def next(self, at: int) -> None:
        self.at, self.count = at, 0


def run(trials: TrialQueue) -> None:
    """Run what is left of a sweep, whose results are the numbers of the trials."""
    try:
        while (trial := trials.next()) is not None:
            trials.tell(trial.number, TrialState.COMPLETE, [float(trial.number)])
    finally:
        trials._heartbeat.leave()  # as a process that is looked up, and does not exist any more


def params_of(trials: TrialQueue) -> list[dict[str, Any]]:
    return [trial.params for trial in trials.all()]


def assert_kills_change_nothing(
    path: Path, kill: Kill, sampler: dict[str, Any], points: Sequence[str], n_trials: int
) -> None:
    """Kill a sweep before each write in turn, continue it, and compare it with one that was not killed."""

    def opened(name: str) -> TrialQueue:
        (path / name).mkdir(exist_ok=True)
        return a_study(path / name, *points, sampler=sampler, n_trials=n_trials)[1]

    whole = opened("whole")
    kill.next(-1)
    run(whole)
    for at in range(kill.count):
        queue = opened(str(at))
        kill.next(at)
        with pytest.raises(Killed):
            run(queue)
        kill.next(-1)
        run(opened(str(at)))
        assert params_of(opened(str(at))) == params_of(whole), f"killed before write {at}"


SET_PARAM = b'"op_code":5'


@pytest.mark.parametrize("kind", SAMPLERS)
def test_trial_that_was_killed_between_two_values_gets_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    points = POINTS if kind != "brute force" else ("agent.gamma=choice(0.9,0.99)", POINTS[2])
    assert_kills_change_nothing(tmp_path, Kill(monkeypatch, SET_PARAM), SAMPLERS[kind], points, 2)


def test_qmc_proposes_the_sequence_of_optuna(tmp_path: Path) -> None:
    _, trials = a_study(tmp_path, POINTS[1], sampler=SAMPLERS["qmc"], n_trials=6)
    run(trials)
    theirs = optuna.create_study(sampler=QMCSampler(scramble=True, seed=5))
    theirs.optimize(lambda trial: trial.suggest_float("agent.gamma", 0.9, 0.99), n_trials=6)
    assert params_of(trials)[1:] == [trial.params for trial in theirs.trials[1:]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["NSGAIISampler", "NSGAIIISampler"])
def test_trial_that_was_killed_after_the_selection_of_its_parents_gets_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    sampler = {"_target_": f"optuna.samplers.{kind}", "seed": None, "population_size": 2}
    assert_kills_change_nothing(tmp_path, Kill(monkeypatch, SET_PARAM), sampler, POINTS[:2], 3)


@pytest.mark.parametrize("kind", ["random", "tpe", "tpe univariate", "qmc"])
def test_order_of_the_parameters_changes_no_value(tmp_path: Path, kind: str) -> None:
    found: list[list[dict[str, Any]]] = []
    for name, points in (("a", POINTS), ("b", POINTS[::-1])):
        (tmp_path / name).mkdir()
        trials = a_study(tmp_path / name, *points, sampler=SAMPLERS[kind], n_trials=3)[1]
        run(trials)
        found.append(params_of(trials))
    assert found[0][0] == found[1][0]
    if kind != "qmc":  # its coordinates are in the order of the first trial
        assert found[0] == found[1]


CONDITIONAL: dict[str, Any] = {
    "agent.n_step": "range(1,3)",
    "agent.gamma": {"space": "interval(0.9,0.99)", "when": {"agent.n_step": 3}},
}


@pytest.mark.parametrize("own", [None, {"_target_": "optuna.samplers.RandomSampler", "seed": 3}])
def test_qmc_draws_another_conditional_value_in_each_trial(
    tmp_path: Path, own: dict[str, Any] | None
) -> None:
    sampler = {**SAMPLERS["qmc"], "warn_independent_sampling": False, "independent_sampler": own}
    study, trials = a_study(tmp_path, sampler=sampler, n_trials=16)
    trials._space = search_space((), CONDITIONAL, None)
    run(trials)
    gammas = [trial.params["agent.gamma"] for trial in study.trials if "agent.gamma" in trial.params]
    assert len(gammas) >= 4
    assert "agent.gamma" not in study.trials[0].params  # so it is not a coordinate of the sequence
    assert (len(set(gammas)) == len(gammas)) is (own is None)


class Remembering(RandomSampler):
    """A sampler of one's own, which needs to see all parameters of a trial."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.seen: list[str] = []

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        self.seen.append(param_name)
        return super().sample_independent(study, trial, param_name, param_distribution)


def test_sampler_of_the_user_draws_all_values_of_a_trial(tmp_path: Path) -> None:
    sampler = {"_target_": f"{__name__}.Remembering", "seed": None}
    study, trials = a_study(tmp_path, *POINTS, sampler=sampler, n_trials=2)
    run(trials)
    current: Any = study.sampler
    assert len(current.current.seen) == 3


OF_OPTUNA = ("TPESampler", "RandomSampler", "CmaEsSampler", "GPSampler", "NSGAIISampler", "QMCSampler")


def ended(queue: TrialQueue) -> list[tuple[list[str], TrialState]]:
    """Take all trials, and report three evaluations of each, or as many as its pruner wants."""
    found: list[tuple[list[str], TrialState]] = []
    while (trial := queue.next()) is not None:
        state, value = TrialState.COMPLETE, trial.params["agent.gamma"]
        for step in range(1, 4):
            trial.report(value * step, step)
            if trial.should_prune():
                state = TrialState.PRUNED
                break
        queue.tell(trial.number, state, [value] if state is TrialState.COMPLETE else None)
        found.append((TrialRecord(queue.get(trial.number)).overrides, state))
    return found


@pytest.mark.parametrize("sampler", [f"optuna.samplers.{name}" for name in (*OF_OPTUNA, "BruteForceSampler")])
def test_hyperband_works_with_each_sampler(tmp_path: Path, sampler: str) -> None:
    """It gives a sampler a study of its own, which cannot be copied."""
    points = ("agent.gamma=range(0.9,0.99,0.01)", "agent.n_step=range(1,8)")
    parts = {"sampler": {"_target_": sampler, "seed": None}, "pruner": PRUNERS["hyperband"]}
    found: list[Any] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        _, queue = a_study(tmp_path / name, *points, n_trials=8, **parts)
        found.append(ended(queue))
    assert len(found[0]) == 8
    assert found[0] == found[1]


@pytest.mark.parametrize("pruner", PRUNERS)
def test_each_pruner_decides_trials(tmp_path: Path, pruner: str) -> None:
    _, queue = a_study(tmp_path, *POINTS, n_trials=8, sampler=RANDOM, pruner=PRUNERS[pruner])
    states = [state for _, state in ended(queue)]
    assert len(states) == 8
    assert (TrialState.PRUNED in states) == (pruner not in {"none", "wilcoxon"})
