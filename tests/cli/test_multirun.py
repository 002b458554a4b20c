"""Hydra's --multirun: each job of a sweep is a run with its own directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dqn_runner.io.json_io import read_json
from tests.conftest import BUDGET, Outcome, records, run_cli

SHORT_BUDGET = (*BUDGET, "trainer.max_steps=600")


def seeds_and_learning_rates(sweep: Path) -> list[tuple[int, float]]:
    """Seed and learning rate of each job, in the order of their directories; every job has to be finished."""
    found: list[tuple[int, float]] = []
    for directory in sorted(path for path in sweep.iterdir() if path.is_dir()):
        assert read_json(directory / "metrics.json")["finished"] == "trainer.max_steps=600 reached"
        config = read_json(directory / "run.json")["config"]
        found.append((config["seed"], config["agent"]["learning_rate"]))
    return found


@pytest.mark.slow
def test_multirun_gives_every_job_its_own_directory_and_settings(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    lists = ("seed=0,1", "agent.learning_rate=1e-3,3e-4")
    done = program("-m", *lists, *SHORT_BUDGET, "hydra.sweep.dir=sweep")
    assert done.status == 0, done.err
    table = done.out.rpartition("runs in sweep:")[2].split("\n")
    assert [line.split()[:2] for line in table[2:6]] == [[str(job), "finished"] for job in range(4)]
    assert [line.split()[-2:] for line in table[2:4]] == [
        ["seed=0", "agent.learning_rate=0.001"],
        ["seed=0", "agent.learning_rate=0.0003"],
    ]
    expected = [(0, 1e-3), (0, 3e-4), (1, 1e-3), (1, 3e-4)]
    assert seeds_and_learning_rates(tmp_path / "sweep") == expected
    assert len({(tmp_path / f"sweep/{i}/metrics.jsonl").read_bytes() for i in range(4)}) == 4


@pytest.mark.slow
def test_a_job_of_a_multirun_can_be_resumed_alone(program: Callable[..., Outcome], tmp_path: Path) -> None:
    assert program("-m", "seed=0,5", *BUDGET, "hydra.sweep.dir=sweep").status == 0
    done = program("resume=sweep/1", "trainer.max_steps=1300")
    assert done.status == 0, done.err
    assert read_json(tmp_path / "sweep/1/run.json")["config"]["seed"] == 5
    assert read_json(tmp_path / "sweep/1/metrics.json")["finished"] == "trainer.max_steps=1300 reached"


@pytest.mark.slow
def test_repeating_a_multirun_with_a_larger_budget_resumes_each_job(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    command = ("-m", "seed=0,1", *BUDGET, "hydra.sweep.dir=sweep")
    assert program(*command).status == 0
    before = records(tmp_path / "sweep" / "1")
    done = program(*command, "trainer.max_steps=1300")
    assert done.out.count("trainer.max_steps: 1200 -> 1300") == 2
    assert len(records(tmp_path / "sweep" / "1")) > len(before)


@pytest.mark.slow
def test_multirun_jobs_run_in_parallel_with_the_joblib_launcher(tmp_path: Path) -> None:
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep")
    done = run_cli("-m", "seed=0,1", *SHORT_BUDGET, *launcher, cwd=tmp_path)
    assert done.status == 0, done.err
    assert seeds_and_learning_rates(tmp_path / "sweep") == [(0, 1e-3), (1, 1e-3)]


ONE_JOB = (*BUDGET, "trainer.max_steps=600", "logging=[jsonl]", "hydra.sweep.dir=sweep")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_the_table_of_a_multirun_has_the_failed_jobs(
    run_cli_here: Callable[..., Outcome], launcher: str
) -> None:
    done = run_cli_here("-m", "agent.gamma=0.9,1.5,2", f"hydra/launcher={launcher}", *ONE_JOB)
    assert done.status == 2
    lines = done.out.rpartition("runs in sweep:")[2].splitlines()
    rows = sorted(line.split()[:2] + line.split()[-1:] for line in lines[2:5])
    expected = [("0", "finished", "0.9"), ("1", "failed", "1.5"), ("2", "failed", "2")]
    assert rows == [[job, state, f"agent.gamma={gamma}"] for job, state, gamma in expected]
    assert lines[5] == "2 of 3 jobs failed: 1, 2"


def test_a_file_can_list_the_values_of_a_multirun(program: Callable[..., Outcome], tmp_path: Path) -> None:
    """Without the sweeper `optuna` too, as the messages say."""
    text = "{defaults: [config, _self_], hydra: {sweeper: {params: {agent.gamma: '1.5,2'}}}}"
    (tmp_path / "lab.yaml").write_text(text)
    done = program("-m", "--config-dir=.", "--config-name=lab", "hydra.sweep.dir=sweep")
    assert "2 of 2 jobs failed: 0, 1" in done.out


def test_a_rejected_multirun_leaves_nothing_behind(program: Callable[..., Outcome], tmp_path: Path) -> None:
    rejected = ("-m", "agent.gamma=0.9", "agent.lr=1,2", "hydra.sweep.dir=sweep")
    assert "agent.learning_rate" in program(*rejected).error
    assert not (tmp_path / "sweep").exists()


def test_the_file_of_a_sweep_tells_the_command_that_began_it(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Even if a later command reached its jobs, such as one that they reject."""
    run = tmp_path / "sweep" / "0"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text('{"finished": "trainer.max_steps=600 reached"}')
    (tmp_path / "sweep" / "multirun.yaml").write_text("the first command")
    program("-m", "agent.gamma=1.5,2", "hydra.sweep.dir=sweep")
    assert (tmp_path / "sweep" / "multirun.yaml").read_text() == "the first command"


@pytest.mark.parametrize(
    ("empty", "why"),
    [("agent=glob(zz*)", "matches no option of agent"), ("seed=range(3,3)", "has no values")],
)
def test_a_multirun_without_jobs_is_rejected(program: Callable[..., Outcome], empty: str, why: str) -> None:
    message = program("-m", "agent.gamma=0.9,0.95", empty, "hydra.sweep.dir=sweep").error
    assert message == f"the sweep has no jobs: {empty} {why}"
