"""A part of a sweep that needs a package which is not installed is found before the first trial."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import BUDGET, Outcome

OPTUNA = ("-m", "hydra/sweeper=optuna", "hydra.sweep.dir=sweep", *BUDGET)
SPACE = "agent.learning_rate=tag(log,interval(1e-4,1e-2))"
LAUNCHERS = ("joblib", "submitit_local", "submitit_slurm", "ray")


@pytest.mark.parametrize(
    ("missing", "extra", "arguments"),
    [
        ("cmaes", "samplers", ["hydra.sweeper.sampler=cmaes"]),
        ("scipy", "samplers", ["hydra.sweeper.sampler=gp"]),
        ("scipy", "samplers", ["hydra.sweeper.sampler=qmc"]),
        ("scipy", "samplers", ["hydra.sweeper.pruner=wilcoxon", "hydra.sweeper.seeds=5"]),
        ("psycopg", "postgresql", ["hydra.sweeper.storage=postgresql://me:it@localhost/it"]),
        ("psycopg", "postgresql", ["hydra.sweeper.storage=postgresql+psycopg://me:it@localhost/it"]),
        ("pymysql", "mysql", ["hydra.sweeper.storage=mysql://me:it@localhost/it"]),
        *((name.partition("_")[0], "launchers", [f"hydra/launcher={name}"]) for name in LAUNCHERS),
        ("tensorboard", "tensorboard", ["logging=[tensorboard]"]),
        ("mlflow", "mlflow", ["logging=[mlflow]"]),
        ("ale_py", "atari", ["env=atari", "env.game=Pong"]),
        ("minatar", "minatar", ["env=minatar", "env.game=breakout"]),
    ],
)
def test_missing_extra_is_named_and_no_trial_is_created(
    program: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    missing: str,
    extra: str,
    arguments: list[str],
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    error = program(*OPTUNA, SPACE, *arguments).error
    assert error.endswith(f"pip install 'dqn_runner[{extra}]'")
    assert not list(tmp_path.glob("sweep/*/"))
    assert not (tmp_path / "sweep" / "study.journal").exists()
