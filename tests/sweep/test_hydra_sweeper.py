"""The sweeper `optuna` is registered for this program only; other Hydra programs are not affected.

Some tests need the published plugin hydra-optuna-sweeper with the Optuna that it requires, in a folder that
`make .venv/optuna_sweeper` creates. OPTUNA_SWEEPER_PACKAGES names another folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.hydra_sweeper import PRUNERS, SAMPLERS
from dqn_runner.sweep.optuna_parts import is_pruner, is_sampler
from tests.conftest import BUDGET, Outcome, environment, run_cli

ROOT = Path(__file__).parents[2]
PUBLISHED = Path(os.environ.get("OPTUNA_SWEEPER_PACKAGES", ROOT / ".venv" / "optuna_sweeper"))

APP = """
import hydra


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg):
    {body}


if __name__ == "__main__":
    main()
"""
SPHERE = "print(f'x={cfg.x} y={cfg.y}'); return cfg.x**2 + cfg.y**2"


def write_app(directory: Path, config: str, body: str = SPHERE, **modules: str) -> None:
    """A Hydra program in `directory` that does not use dqn_runner."""
    (directory / "conf").mkdir()
    (directory / "conf" / "config.yaml").write_text(config)
    (directory / "app.py").write_text(APP.format(body=body))
    for name, text in modules.items():
        (directory / f"{name}.py").write_text(text)


def run_app(directory: Path, *arguments: str, packages: Path | None = None) -> Outcome:
    """Run the program, with dqn_runner and with the folder `packages` in its environment."""
    path = [*([str(packages)] if packages else []), str(ROOT)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "app.py", *arguments],
        cwd=directory,
        env=environment(PYTHONPATH=os.pathsep.join(path)),
        capture_output=True,
        text=True,
        timeout=240,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def published() -> Path:
    """The folder with hydra-optuna-sweeper and its Optuna."""
    if not (PUBLISHED / "hydra_plugins" / "hydra_optuna_sweeper").is_dir():
        pytest.skip(f"hydra-optuna-sweeper is not in {PUBLISHED}: run `make .venv/optuna_sweeper`")
    return PUBLISHED


def test_other_program_sweeps_with_the_basic_sweeper(tmp_path: Path) -> None:
    write_app(tmp_path, "x: 1.0\ny: 1.0\n")
    done = run_app(tmp_path, "-m", "hydra/sweeper=basic", "x=1,2", "hydra/job_logging=none")
    assert done.status == 0, done.err
    assert [line for line in done.out.splitlines() if line.startswith("x=")] == ["x=1 y=1.0", "x=2 y=1.0"]


def test_other_program_without_a_plugin_has_no_sweeper_optuna(tmp_path: Path) -> None:
    write_app(tmp_path, "x: 1.0\ny: 1.0\n")
    done = run_app(tmp_path, "-m", "hydra/sweeper=optuna", "x=1,2")
    assert done.status == 1
    assert "Could not find 'hydra/sweeper/optuna'" in done.err
    assert "dqn_runner" not in done.err


def test_discovery_of_plugins_imports_nothing_of_this_program(tmp_path: Path) -> None:
    body = (
        "import sys; from hydra.core.config_store import ConfigStore; "
        "assert 'hydra_plugins.dqn_runner_sweeper.sweeper' in sys.modules; "
        "assert 'optuna' not in sys.modules; "
        "assert not [name for name in sys.modules if name.partition('.')[0] == 'dqn_runner']; "
        "assert not {'agent.yaml', 'agent', 'env'} & ConfigStore.instance().repo.keys()"
    )
    write_app(tmp_path, "x: 1\n", body)
    done = run_app(tmp_path)
    assert done.status == 0, done.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler", ["tpe", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("random", "grid"))]
)
def test_other_program_uses_the_published_plugin(tmp_path: Path, published: Path, sampler: str) -> None:
    """The example `sphere` of hydra-optuna-sweeper."""
    config = """
defaults: [override hydra/sweeper: optuna, override hydra/sweeper/sampler: SAMPLER, _self_]
x: 1
y: 1
hydra:
  sweeper:
    direction: minimize
    study_name: sphere
    storage: null
    n_trials: 6
    n_jobs: 1
    params:
      x: range(-5.5, 5.5, step=0.5)
      y: choice(-5, 0, 5)
"""
    write_app(tmp_path, config.replace("SAMPLER", sampler))
    done = run_app(tmp_path, "-m", "hydra.sweep.dir=out", packages=published)
    assert done.status == 0, done.err
    results: Any = OmegaConf.load(tmp_path / "out" / "optimization_results.yaml")
    assert results.name == "optuna"
    assert set(results.best_params) == {"x", "y"}


@pytest.mark.slow
@pytest.mark.nightly
def test_other_program_uses_a_custom_search_space_of_the_published_plugin(
    tmp_path: Path, published: Path
) -> None:
    """The example `custom-search-space` of hydra-optuna-sweeper."""
    config = """
defaults: [override hydra/sweeper: optuna, _self_]
x: 1
y: 1
max_z_difference_from_x: 0.5
hydra:
  sweeper:
    sampler: {seed: 123}
    direction: minimize
    n_trials: 4
    n_jobs: 1
    params: {x: "range(-5.5, 5.5, step=0.5)", y: "choice(-5, 0, 5)"}
    custom_search_space: space.configure
"""
    space = (
        "def configure(cfg, trial):\n"
        "    x, most = trial.params['x'], cfg.max_z_difference_from_x\n"
        "    trial.suggest_float('+z', x - most, x + most)\n"
    )
    write_app(tmp_path, config, "return cfg.x**2 + cfg.y**2 + cfg.z**2", space=space)
    done = run_app(tmp_path, "-m", "hydra.sweep.dir=out", packages=published)
    assert done.status == 0, done.err
    results: Any = OmegaConf.load(tmp_path / "out" / "optimization_results.yaml")
    assert set(results.best_params) == {"x", "y", "+z"}


@pytest.mark.slow
@pytest.mark.nightly
def test_other_program_optimises_several_objectives_with_the_published_plugin(
    tmp_path: Path, published: Path
) -> None:
    """The example `multi-objective` of hydra-optuna-sweeper."""
    config = """
defaults: [override hydra/sweeper: optuna, override hydra/sweeper/sampler: nsgaii, _self_]
x: 1
y: 1
hydra:
  sweeper:
    sampler: {seed: 123}
    direction: [minimize, minimize]
    n_trials: 4
    n_jobs: 1
    params: {x: "range(0, 5, step=0.5)", y: "range(0, 3, step=0.5)"}
"""
    write_app(tmp_path, config, "return 4 * cfg.x**2 + 4 * cfg.y**2, (cfg.x - 5) ** 2 + (cfg.y - 5) ** 2")
    done = run_app(tmp_path, "-m", "hydra.sweep.dir=out", packages=published)
    assert done.status == 0, done.err
    results: Any = OmegaConf.load(tmp_path / "out" / "optimization_results.yaml")
    assert results.solutions


@pytest.mark.slow
def test_this_program_sweeps_beside_the_published_plugin(tmp_path: Path, published: Path) -> None:
    """Only the plugin is added: its Optuna is too old for this program."""
    shutil.copytree(published / "hydra_plugins", tmp_path / "packages" / "hydra_plugins")
    path = os.pathsep.join([str(tmp_path / "packages"), str(ROOT)])
    sweep = ("hydra.sweep.dir=sweep", "hydra.sweeper.n_trials=1", "hydra/sweeper/sampler=random", *BUDGET)
    done = run_cli("search=dqn", *sweep, "logging=[jsonl]", cwd=tmp_path, env={"PYTHONPATH": path})
    assert done.status == 0, done
    assert "1 complete" in done.out
    command = ("-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=motpe")
    listed = run_cli(*command, cwd=tmp_path, env={"PYTHONPATH": path})
    assert listed.error.endswith(f"(available: {', '.join(sorted(SAMPLERS))})")


SUBCLASSES = """
from optuna.pruners import NopPruner, WilcoxonPruner
from optuna.samplers import GridSampler


class MyNop(NopPruner):
    pass


class MyWilcoxon(WilcoxonPruner):
    pass


class MyGrid(GridSampler):
    pass


def make_median():
    from optuna.pruners import MedianPruner

    return MedianPruner()
"""


@pytest.fixture
def _subclasses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_kinds.py").write_text(SUBCLASSES)
    monkeypatch.syspath_prepend(tmp_path)


def settings(pruner: str, **changes: Any) -> SweepConfig:
    return SweepConfig(sampler=SAMPLERS["tpe"], pruner={"_target_": pruner}, **changes)


@pytest.mark.usefixtures("_subclasses")
def test_subclass_of_a_pruner_is_of_its_kind() -> None:
    nop, wilcoxon = settings("my_kinds.MyNop"), settings("my_kinds.MyWilcoxon", seeds=2)
    assert not nop.prunes
    assert wilcoxon.prunes
    assert wilcoxon.prunes_between_seeds
    wilcoxon.check_budget(None, {"trainer.max_steps"})


@pytest.mark.usefixtures("_subclasses")
def test_function_that_returns_a_pruner_is_of_no_special_kind() -> None:
    median = settings("my_kinds.make_median")
    assert median.prunes
    assert not median.prunes_between_seeds


@pytest.mark.usefixtures("_subclasses")
def test_subclass_of_a_sampler_is_of_its_kind() -> None:
    assert is_sampler({"_target_": "my_kinds.MyGrid"}, "GridSampler")
    assert not is_sampler({"_target_": "my_kinds.MyGrid"}, "RandomSampler", "QMCSampler")


def test_every_sampler_and_pruner_option_names_a_class_of_optuna() -> None:
    assert all(is_sampler(config, "BaseSampler") for config in SAMPLERS.values())
    assert all(is_pruner(config, "BasePruner") for config in PRUNERS.values())
