"""Runs and sweeps do not begin in each other's directories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dqn_runner.run.contents import holds_run, holds_sweep
from tests.conftest import BUDGET, Outcome

RUN = (*BUDGET, "trainer.max_steps=200", "agent.exploration.schedule.steps=100")
JOBS = ("-m", "seed=1,2", *RUN)
STUDY = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "agent.gamma=choice(0.9,0.95)", *RUN)
STUDY_IN_DATABASE = (*STUDY, "hydra.sweeper.storage=sqlite:///study.db")
SWEEPS = pytest.mark.parametrize(
    "sweep",
    [
        pytest.param(JOBS, id="jobs"),
        pytest.param(STUDY, id="study", marks=pytest.mark.slow),
        pytest.param(STUDY_IN_DATABASE, id="database"),
    ],
)


def files_below(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@SWEEPS
def test_a_run_does_not_begin_in_the_directory_of_a_sweep(
    program: Callable[..., Outcome], tmp_path: Path, sweep: tuple[str, ...]
) -> None:
    assert program(*sweep, "hydra.sweep.dir=here").status == 0
    assert holds_sweep(tmp_path / "here")
    before = files_below(tmp_path / "here")
    message = program(*RUN, "hydra.run.dir=here").error
    assert message == f"{tmp_path / 'here'} is the directory of a sweep; choose another one for the run"
    assert files_below(tmp_path / "here") == before
    assert program(*sweep, "hydra.sweep.dir=here").status == 0


@SWEEPS
def test_a_sweep_does_not_begin_in_the_directory_of_a_run(
    program: Callable[..., Outcome], tmp_path: Path, sweep: tuple[str, ...]
) -> None:
    assert program(*RUN, "hydra.run.dir=here").status == 0
    assert holds_run(tmp_path / "here")
    before = files_below(tmp_path / "here")
    message = program(*sweep, "hydra.sweep.dir=here").error
    assert message == "here is the directory of a run; choose another hydra.sweep.dir"
    assert files_below(tmp_path / "here") == before


def test_the_only_job_of_a_sweep_may_run_in_the_directory_of_the_sweep(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    """As a launcher for a cluster needs `-m` for a single run too; the same command continues it."""
    command = ("-m", *RUN, "hydra.sweep.dir=here", "hydra.sweep.subdir=.")
    for _ in range(2):
        assert program(*command).status == 0
    assert holds_run(tmp_path / "here")
    assert not holds_sweep(tmp_path / "here")


def test_a_run_may_begin_in_an_empty_directory_or_beside_others(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert program(*RUN, "hydra.run.dir=all/first").status == 0
    assert program(*RUN, "hydra.run.dir=all").status == 0
    assert not holds_sweep(tmp_path / "missing")
