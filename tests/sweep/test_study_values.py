"""Values that a study has of its trials: those outside of the search space are not run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.search_space.space import search_space
from tests.sweep.test_study import GAMMA, LEARNING_RATE, RANDOM, a_study, proposals

N_STEP = "agent.n_step=range(1,8)"
OUTSIDE = (
    {"agent.gamma": 0.5},
    {"agent.n_step": 9},
    {"agent.n_step": 2.5},
    {"agent.n_step": math.nan},
    {"agent.n_step": "many"},
    {"agent.n_step": [1]},
    {"agent.n_step": 10**400},
    {"agent.learning_rate": 0.1},
    {"agent.tau": 0.15},
    5,
    "agent.gamma",
)


@pytest.mark.parametrize("values", OUTSIDE, ids=lambda values: str(values)[:25])
def test_trial_with_a_value_outside_of_the_search_space_does_not_run(tmp_path: Path, values: Any) -> None:
    points = (GAMMA, N_STEP, LEARNING_RATE, "agent.tau=range(0.1,0.9,0.1)")
    study, trials = a_study(tmp_path, *points)
    enqueued = create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": values})
    study.add_trial(enqueued)
    for _ in range(2):  # also when the command is repeated
        with pytest.raises(UserError, match=r"^trial 0 of the study is not one of this sweep: "):
            trials.next()
        trials._heartbeat.leave()
        trials = a_study(tmp_path, *points)[1]


def test_enqueued_trial_within_the_search_space_runs_with_its_values(tmp_path: Path) -> None:
    study, trials = a_study(tmp_path, GAMMA, N_STEP)
    study.enqueue_trial({"agent.gamma": 0.9, "agent.n_step": "4"})
    assert proposals(trials, 1) == [["agent.gamma=0.9", "agent.n_step=4"]]
    assert trials.overrides(0) == ["agent.gamma=0.9", "agent.n_step=4"]


def suggest(_: object, trial: optuna.Trial) -> None:
    trial.suggest_float("agent.gamma", 0.9, 0.99)
    trial.suggest_int("agent.n_step", 1, 8)
    trial.suggest_categorical("agent", ["dqn", "double_dqn"])


@pytest.mark.parametrize("value", ["agent.gamma=0.5", "agent.n_step=2.5", "agent=sarsa"])
def test_value_outside_of_a_custom_search_space_is_rejected(tmp_path: Path, value: str) -> None:
    study, trials = a_study(tmp_path)
    trials._space = search_space((), {}, f"{__name__}.suggest")
    name, _, text = value.partition("=")
    study.enqueue_trial({name: text if name == "agent" else float(text)})
    for _ in range(2):  # also when the trial has the values that were suggested before
        with pytest.raises(UserError, match=rf"not one of this sweep: {value} is not in the search space"):
            trials.next()
        trials._heartbeat.leave()
        trials = a_study(tmp_path)[1]
        trials._space = search_space((), {}, f"{__name__}.suggest")


@pytest.mark.parametrize("points", ["agent.gamma=range(0.1,0.9,0.1)", "agent.gamma=range(0.3,0.9,1e-13)"])
def test_steps_that_a_sampler_computes_are_in_the_search_space(tmp_path: Path, points: str) -> None:
    _, trials = a_study(tmp_path, points, n_trials=20)
    assert len(proposals(trials, 20)) == 20


def test_value_that_a_sampler_fixes_outside_of_the_search_space_is_named(tmp_path: Path) -> None:
    fixed = {"_target_": "optuna.samplers.PartialFixedSampler", "fixed_params": {"agent.gamma": 0.5}}
    points = "agent.gamma=interval(0.9,0.99)"
    _, trials = a_study(tmp_path, points, sampler={**fixed, "base_sampler": {**RANDOM, "seed": 1}})
    with pytest.raises(UserError, match=r"sampler cannot propose .*: agent\.gamma=0\.5 is not in the search"):
        trials.next()
