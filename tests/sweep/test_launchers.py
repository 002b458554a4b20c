"""The launchers of Hydra start the jobs of a sweep, whose outcomes are stored in the study."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from dqn_runner.sweep.storages.factory import open_storage
from dqn_runner.sweep.trial_record import TrialRecord
from tests.conftest import BUDGET, run_cli

SWEEP = ("-m", "hydra/sweeper=optuna", "hydra.sweep.dir=sweep", *BUDGET, "logging=[file,jsonl]")
SPACE = ("env.id=CartPole-v1,Acrobot-v1", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=2")
PRUNER = (
    "hydra.sweeper.pruner._target_=optuna.pruners.ThresholdPruner",
    "+hydra.sweeper.pruner.lower=0",  # Acrobot's returns are negative
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", ["joblib", "submitit_local", pytest.param("ray", marks=pytest.mark.nightly)]
)
def test_launcher_runs_the_jobs_of_a_sweep(tmp_path: Path, launcher: str) -> None:
    done = run_cli(*SWEEP, *SPACE, *PRUNER, f"hydra/launcher={launcher}", cwd=tmp_path)
    assert done.status == 0, done
    storage = open_storage(str(tmp_path / "sweep" / "study.journal"))
    trials = optuna.load_study(study_name="sweep", storage=storage).trials
    states = {trial.params["env.id"]: trial.state for trial in trials}
    assert states == {"CartPole-v1": TrialState.COMPLETE, "Acrobot-v1": TrialState.PRUNED}
    for trial in trials:
        directory = tmp_path / "sweep" / str(trial.number)
        record = TrialRecord(trial)
        assert record.directory == str(directory)
        assert [run.directory for run in record.runs] == [str(directory)]
        assert (directory / "metrics.json").exists()
        assert (directory / "job.log").stat().st_size
