"""Sweeps of the real program: killed, stopped, failing, shared, validated."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial

from dqn_runner.config.schema import CONF
from dqn_runner.sweep.runner import SweepRunner
from dqn_runner.sweep.storages.factory import open_storage
from dqn_runner.sweep.study import read_study
from dqn_runner.sweep.trial_record import RunState, TrialRecord, definition_of
from tests.conftest import BUDGET, Outcome, environment, records, run_cli
from tests.support.fork_server import forked_python
from tests.support.processes import alive, until

SWEEP = ("-m", "hydra/sweeper=optuna", "hydra.sweep.dir=sweep", *BUDGET, "logging=[file,jsonl]")
LEARNING_RATE = "agent.learning_rate=tag(log,interval(1e-4,1e-2))"

pytestmark = pytest.mark.slow


def start(cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command, running in the background."""
    return subprocess.Popen(
        [forked_python(), "-m", "dqn_runner", *SWEEP, *arguments],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def trials_of(cwd: Path) -> list[FrozenTrial]:
    storage = open_storage(str(cwd / "sweep" / "study.journal"))
    return optuna.load_study(study_name="sweep", storage=storage).trials


def results_of(cwd: Path) -> Any:
    return OmegaConf.load(cwd / "sweep" / "optimization_results.yaml")


def pid_of(run_dir: Path) -> int:
    """The process that writes a run directory."""
    owner = re.match(r"pid (\d+)", (run_dir / ".lock").read_text())
    assert owner is not None
    return int(owner[1])


def content(trial: FrozenTrial) -> tuple[Any, ...]:
    runs = [run.metrics["return"] for run in TrialRecord(trial).runs]
    return (trial.number, trial.state, trial.params, trial.values, trial.intermediate_values, runs)


def test_killed_sweep_resumes_to_the_results_of_an_uninterrupted_one(tmp_path: Path) -> None:
    arguments = (LEARNING_RATE, "hydra.sweeper.n_trials=2", "hydra.sweeper.seeds=2")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for cwd in (whole, killed):
        cwd.mkdir()
    assert run_cli(*SWEEP, *arguments, cwd=whole).status == 0

    first = killed / "sweep" / "0" / "seed_0"
    sweeper = start(killed, *arguments)
    until(lambda: (first / "checkpoints" / "latest.pt").exists())
    job = pid_of(first)
    sweeper.kill()
    sweeper.communicate()
    until(lambda: not alive(job))  # its parent is dead and cannot wait for it

    second = killed / "sweep" / "1" / "seed_1"
    sweeper = start(killed, *arguments)
    until(lambda: (second / "checkpoints" / "latest.pt").exists())
    os.kill(pid_of(second), signal.SIGKILL)
    out, _ = sweeper.communicate()
    assert sweeper.returncode == 0, out

    assert [content(trial) for trial in trials_of(killed)] == [content(trial) for trial in trials_of(whole)]
    for run in ("0/seed_0", "1/seed_1"):
        assert records(killed / "sweep" / run) == records(whole / "sweep" / run)
    again = run_cli(*SWEEP, *arguments, cwd=killed)
    assert again.status == 0
    assert "2 complete" in again.out
    assert len(trials_of(killed)) == 2


def test_sweep_saves_its_runs_and_stops_after_a_signal(tmp_path: Path) -> None:
    arguments = (LEARNING_RATE, "hydra.sweeper.n_trials=2", "trainer.max_steps=100000")
    sweeper = start(tmp_path, *arguments)
    run_dir = tmp_path / "sweep" / "0"
    until(lambda: (run_dir / "checkpoints" / "latest.pt").exists())
    sweeper.send_signal(signal.SIGTERM)
    out, _ = sweeper.communicate()
    assert sweeper.returncode == 143, out
    assert "stopping: the jobs save their state; repeat the command to continue" in out.splitlines()
    assert out.splitlines()[-1] == "RESULT: none; no trial has completed"
    assert "stopped by SIGTERM" in (run_dir / "logs" / "training.log").read_text()
    assert [trial.state.name for trial in trials_of(tmp_path)] == ["RUNNING"]


def test_two_sweeps_share_a_study(tmp_path: Path) -> None:
    arguments = (LEARNING_RATE, "hydra.sweeper.n_trials=4")
    both = [start(tmp_path, *arguments) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    trials = trials_of(tmp_path)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    assert len({TrialRecord(trial).worker for trial in trials}) == 2
    assert all("4 complete" in text for text in outputs)


def test_failures_and_divergence_end_only_their_own_trials(tmp_path: Path) -> None:
    done = run_cli(
        *SWEEP,
        "agent.batch_size=8,100000",
        "agent.learning_rate=1e-3,1e30",
        "hydra.sweeper.sampler=grid",
        cwd=tmp_path,
    )
    assert done.status == 0, done.err
    found = {tuple(trial.params.values()): trial for trial in trials_of(tmp_path)}
    states = {key: trial.state.name for key, trial in found.items()}
    assert states == {
        (8, 1e-3): "COMPLETE",
        (8, 1e30): "PRUNED",
        (100000, 1e-3): "FAIL",
        (100000, 1e30): "FAIL",
    }
    failed = TrialRecord(found[(100000, 1e30)]).reason(RunState.FAILED)
    assert failed is not None
    assert "agent.batch_size=100000 is larger than agent.replay.capacity" in failed
    diverged = TrialRecord(found[(8, 1e30)]).reason(RunState.DIVERGED)
    assert diverged is not None
    assert "learning diverged" in diverged
    assert results_of(tmp_path).trials == {
        "complete": 1,
        "pruned": 0,
        "diverged": 1,
        "failed": 2,
        "running": 0,
        "waiting": 0,
    }


def test_traceback_of_a_failed_job_is_in_the_study_and_in_its_log(tmp_path: Path, my_env: str) -> None:
    (tmp_path / "broken").touch()
    done = run_cli(*SWEEP, f"env._target_={my_env}", LEARNING_RATE, "hydra.sweeper.n_trials=1", cwd=tmp_path)
    assert done.status == 1
    assert "failed: trial 0: the run failed: RuntimeError: the sensor is lost" in done.out
    line = 'raise RuntimeError("the sensor is lost")'
    assert line in (tmp_path / "sweep" / "0" / "job.log").read_text()
    (trial,) = trials_of(tmp_path)
    traceback = TrialRecord(trial).traceback
    assert traceback is not None
    assert line in traceback


def test_best_trial_is_validated_on_fresh_seeds_and_can_be_run_again(tmp_path: Path) -> None:
    settings = ("hydra.sweeper.n_trials=1", "hydra.sweeper.seeds=2", "hydra.sweeper.validate=2", "seed=5")
    done = run_cli(*SWEEP, LEARNING_RATE, *settings, "hydra.sweeper.n_jobs=2", cwd=tmp_path)
    assert done.status == 0, done.err
    found = results_of(tmp_path)
    assert found.validation.seeds == [7, 8]
    assert found.validation.mean == pytest.approx(sum(found.validation["values"]) / 2)
    assert f"RESULT: trial {found.best_trial}" in done.out
    arguments = ("--config-dir", "sweep", "experiment=best_config", "seed=7", "hydra.run.dir=again")
    again = run_cli(*arguments, cwd=tmp_path)
    assert again.status == 0, again.err
    validated = tmp_path / "sweep" / str(found.best_trial) / "seed_7"
    assert records(tmp_path / "again") == records(validated)


def test_pruned_run_exits_with_status_4_and_has_its_artefacts(tmp_path: Path) -> None:
    pruner = (
        "hydra.sweeper.pruner._target_=optuna.pruners.ThresholdPruner",
        "hydra.sweeper.pruner.lower=1000",
    )
    done = run_cli(*SWEEP, LEARNING_RATE, *pruner, "hydra.sweeper.n_trials=1", cwd=tmp_path)
    assert done.status == 1, done.err
    assert "RESULT: none; no trial has completed" in done.out
    (trial,) = trials_of(tmp_path)
    assert trial.state.name == "PRUNED"
    assert (
        TrialRecord(trial).reason(RunState.PRUNED)
        == "pruned by the sweep's ThresholdPruner after evaluation 1"
    )
    run_dir = tmp_path / "sweep" / "0"
    assert (run_dir / "metrics.json").exists()
    assert (run_dir / "checkpoints" / "best.pt").exists()
    link = (f"study.storage={tmp_path}/sweep/study.journal", "study.name=sweep", "study.trial=0")
    run = run_cli(*BUDGET, LEARNING_RATE.replace("tag(log,interval(1e-4,1e-2))", "1e-3"), *link, cwd=tmp_path)
    assert run.status == 4
    assert run.err.splitlines()[-1] == "pruned: pruned by the sweep's ThresholdPruner after evaluation 1"
    freed = run_cli(f"resume={run_dir}", cwd=tmp_path)
    assert freed.status == 0, freed.err


def test_dry_run_prints_an_estimate_and_starts_nothing(tmp_path: Path) -> None:
    settings = ("hydra.sweeper.n_trials=6", "hydra.sweeper.seeds=2", "hydra.sweeper.validate=3")
    done = run_cli(*SWEEP, LEARNING_RATE, *settings, "hydra.sweeper.dry_run=true", cwd=tmp_path)
    assert done.status == 0, done.err
    assert done.out.startswith("runs    15: 6 trials of 2 seed(s) and 3 to validate the best, 1 at a time")
    assert not (tmp_path / "sweep").exists()


def test_dry_run_measures_a_run_that_ends_before_it_logs_its_progress(tmp_path: Path) -> None:
    settings = ("trainer.log_frequency=1000000", "hydra.sweeper.dry_run=true")
    done = run_cli(*SWEEP, LEARNING_RATE, *settings, cwd=tmp_path)
    assert done.status == 0, done.err
    assert "for a run that uses up its budget" in done.out


def error(outcome: Outcome) -> str:
    return outcome.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("agent.learning_rat=interval(1e-4,1e-2)",), "did you mean 'agent.learning_rate'"),
        ((LEARNING_RATE, "hydra.sweeper.n_trial=3"), "did you mean 'hydra.sweeper.n_trials'"),
        ((LEARNING_RATE, "hydra.sweeper.sampler=tpee"), "did you mean hydra/sweeper/sampler=tpe"),
        ((LEARNING_RATE, "hydra.sweeper.sampler=grid"), "agent.learning_rate"),
        ((LEARNING_RATE, "hydra.sweep.subdir=x"), "hydra.sweep.subdir cannot be set"),
        (("hydra.sweeper.search_space.x=1",), "search spaces are in hydra.sweeper.params"),
        (("+hydra.sweeper.search_space.x=1",), "search spaces are in hydra.sweeper.params"),
        ((LEARNING_RATE, "+hydra.sweeper.n_trial=1"), "did you mean 'hydra.sweeper.n_trials'"),
        ((LEARNING_RATE, "hydra.sweeper.pruner=null"), "choose one, such as hydra.sweeper.pruner=none"),
        (
            (LEARNING_RATE, "hydra.sweeper.sampler.seed=-1"),
            "sampler.seed must be an integer from 0 on, got -1",
        ),
        ((LEARNING_RATE, "hydra.sweeper.sampler.seed=abc"), "must be an integer from 0 on, got 'abc'"),
        ((LEARNING_RATE, "hydra.sweeper.objective=[[return]]"), "unknown objective"),
        ((LEARNING_RATE, "mode=eval"), "the jobs of this sweep train"),
        ((LEARNING_RATE, "hydra.sweeper.pruner._target_=no_pkg.Pruner"), "No module named 'no_pkg'"),
        ((LEARNING_RATE, "hydra.sweeper.storage=${oc.env:NO_STUDY_URL,''}"), "storage is empty"),
        (
            (
                LEARNING_RATE,
                "trainer.max_episodes=5,9",
                "hydra.sweeper.seeds=2",
                "hydra.sweeper.pruner=median",
            ),
            "trainer.max_episodes is searched",
        ),
    ],
)
def test_invalid_sweep_is_rejected_before_it_starts(
    program: Callable[..., Outcome], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    rejected = program(*SWEEP, *arguments)
    assert message in error(rejected)
    assert rejected.err.count("\n") == 1
    assert not list(tmp_path.glob("sweep/[0-9]*"))


def test_basic_sweep_with_an_interval_names_the_sweeper(program: Callable[..., Outcome]) -> None:
    assert "add hydra/sweeper=optuna" in error(program("-m", LEARNING_RATE))


def test_sweep_with_config_path_is_rejected(program: Callable[..., Outcome], tmp_path: Path) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    outcome = program(f"--config-path={tmp_path}/conf", *SWEEP, LEARNING_RATE)
    assert outcome.error.endswith("add options with --config-dir instead")


def test_job_does_not_resume_a_run_of_another_trial(
    program: Callable[..., Outcome], tmp_path: Path, finished_run: Path
) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    found = program(*BUDGET, "hydra.run.dir=run", "agent.learning_rate=0.5", "study.trial=0")
    assert "run holds a run of another trial (agent.learning_rate: " in found.error


def test_changed_experiment_file_is_rejected_when_the_sweep_is_repeated(
    program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SweepRunner, "run", lambda _: None)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    for steps in (150, 200):
        file = tmp_path / "conf" / "experiment" / "mine.yaml"
        file.write_text(f"# @package _global_\nagent:\n  batch_size: {steps}\n")
        command = ("--config-dir=conf", *SWEEP, LEARNING_RATE, "experiment=mine", "agent.learning_starts=1")
        done = program(*command)
    assert "other agent.batch_size (agent.batch_size: 150 -> 200)" in done.error


def test_search_space_in_another_order_continues_the_sweep(
    program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the study stores does not depend on the values of the example trial, nor on their order."""
    monkeypatch.setattr(SweepRunner, "run", lambda _: None)
    space = (LEARNING_RATE, "agent.gamma=interval(0.9,0.99)", "agent=choice(dqn,c51,qr_dqn,iqn)")
    for arguments in itertools.permutations(space):
        done = program(*SWEEP, *arguments)
        assert done.status == 0, done.err
    definition = definition_of(read_study(tmp_path / "sweep"))
    assert definition is not None
    assert not {"agent.learning_rate", "agent.gamma"} & definition["configuration"].keys()
    changed = program(*SWEEP, *space, "agent.batch_size=16")
    assert "other overrides (overrides: (missing) -> agent.batch_size=16); repeat" in changed.error
