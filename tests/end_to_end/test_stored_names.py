"""Stored runs and studies name parts by group and option, so that the package can change around them.

Each test makes a run or a study, edits a copy of the package as a later version would, and resumes with it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dqn_runner
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import to_import_path
from dqn_runner.io.json_io import read_json
from tests.conftest import BUDGET, Outcome, environment, records, run_cli
from tests.support.fork_server import forked_python

ROOT = Path(dqn_runner.__file__).parent.parent

SCRIPT = """
import gymnasium
from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig

agent = DQNAgent(DQNConfig(state_dim=4, action_dim=2, learning_starts=100, batch_size=16))
config = TrainingConfig(max_episodes={episodes}, eval_frequency=10, eval_episodes=1)
trainer = Trainer(agent, gymnasium.make("CartPole-v1"), config, output_dir="script_run")
stats = trainer.train()
print("episodes", stats.episodes, "resumed", trainer.directory.resumed)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A directory with a copy of the package, its options and its plugin."""
    for name in ("dqn_runner", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name)
    return tmp_path / "copy"


def run(package: Path, *arguments: str, copy: bool = True) -> Outcome:
    """`python ARGUMENTS` with the copy of the package, or the package itself, in its parent directory."""
    variables = environment(PYTHONPATH=str(package)) if copy else environment()
    done = subprocess.run(
        [sys.executable if copy else forked_python(), *arguments],
        cwd=package.parent,
        env=variables,
        capture_output=True,
        text=True,
        timeout=240,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def program(package: Path, *arguments: str) -> Outcome:
    """The program of the copy."""
    return run(package, "-m", "dqn_runner", *arguments)


def rename_modules(package: Path, *modules: str) -> None:
    """Rename modules of the copy, such as `agent.losses.quantile`, and every import of them."""
    root = package / "dqn_runner"
    for module in modules:
        parent, _, name = module.rpartition(".")
        file = root.joinpath(*module.split(".")).with_suffix(".py")
        file.rename(file.with_name(f"renamed_{name}.py"))
        for path in [*root.rglob("*.py"), *(package / "hydra_plugins").rglob("*.py")]:
            text = path.read_text()
            text = re.sub(
                rf"\bdqn_runner\.{re.escape(module)}\b", f"dqn_runner.{parent}.renamed_{name}", text
            )
            text = re.sub(
                rf"from dqn_runner\.{re.escape(parent)} import {name}\b",
                f"from dqn_runner.{parent} import renamed_{name} as {name}",
                text,
            )
            path.write_text(text)


def add_field(file: Path, cls: str, field: str) -> None:
    """Add a setting with a default to a dataclass of the copy."""
    text = file.read_text()
    start = text.index(f"class {cls}")
    position = text.index('"""\n', text.index('"""', start) + 3) + 4
    file.write_text(f"{text[:position]}\n    {field}\n{text[position:]}")


def file_of(package: Path, cls: str) -> Path:
    """The file of the copy that defines a class."""
    files = (package / "dqn_runner").rglob("*.py")
    (found,) = (path for path in files if re.search(rf"^class {cls}\b", path.read_text(), re.MULTILINE))
    return found


def module_of(package: Path, cls: str) -> str:
    return ".".join(file_of(package, cls).relative_to(package / "dqn_runner").with_suffix("").parts)


PARTS = ("Quantile", "DoubleTarget", "PrioritizedReplay", "Adam", "Exponential", "GymEnv", "JsonLines", "Mlp")
RUN = (
    *BUDGET,
    "agent=qr_dqn",
    "agent/loss/target=double",
    "agent/replay=prioritized",
    "agent/network=mlp",
    "agent.replay.beta_steps=1200",
    "hydra.run.dir=run",
)


@pytest.mark.slow
def test_a_run_of_the_command_line_resumes_after_its_modules_were_renamed(package: Path) -> None:
    whole = run_cli(*RUN[:-1], "hydra.run.dir=whole", "trainer.max_steps=1600", cwd=package.parent)
    assert whole.status == 0, whole.err
    first = run_cli(*RUN, cwd=package.parent)
    assert first.status == 0, first.err
    rename_modules(package, *{module_of(package, cls) for cls in PARTS}, "training.config", "config.schema")
    resumed = program(package, "resume=run", "trainer.max_steps=1600")
    assert resumed.status == 0, resumed.err
    assert "changed for this session:\ntrainer.max_steps: 1200 -> 1600\n" in resumed.out
    assert records(package.parent / "run") == records(package.parent / "whole")


@pytest.mark.slow
@pytest.mark.nightly
def test_a_study_resumes_after_the_modules_of_its_trials_were_renamed(package: Path) -> None:
    command = (
        "--multirun",
        *RUN[:-1],
        "hydra/sweeper=optuna",
        "hydra.sweep.dir=sweep",
        "agent.learning_rate=tag(log,interval(1e-4,1e-2))",
        "hydra.sweeper.pruner=median",
    )
    first = run_cli(*command, "hydra.sweeper.n_trials=1", cwd=package.parent)
    assert first.status == 0, first.err
    rename_modules(package, *{module_of(package, cls) for cls in PARTS}, "training.config", "config.schema")
    resumed = program(package, *command, "hydra.sweeper.n_trials=2")
    assert resumed.status == 0, resumed.err
    assert "2 of 2 finished" in resumed.out


@pytest.mark.slow
def test_a_run_of_the_command_line_resumes_after_settings_were_added(package: Path) -> None:
    first = run_cli(*RUN, cwd=package.parent)
    assert first.status == 0, first.err
    add_fields(package)
    resumed = program(package, *RUN, "trainer.max_steps=1600")
    assert resumed.status == 0, resumed.err
    assert "changed for this session:\ntrainer.max_steps: 1200 -> 1600\n" in resumed.out
    changed = program(package, *RUN, "agent.replay.new_setting=8")
    assert "resume cannot change agent.replay.new_setting from 7 to 8" in changed.error


@pytest.mark.slow
@pytest.mark.nightly
def test_a_run_of_the_python_api_resumes_after_settings_were_added(package: Path) -> None:
    first = run(package, "-c", SCRIPT.format(episodes=10), copy=False)
    assert first.out == "episodes 10 resumed False\n", first.err
    add_fields(package)
    assert run(package, "-c", SCRIPT.format(episodes=20)).out == "episodes 20 resumed True\n"
    rename_modules(package, *{module_of(package, cls) for cls in PARTS})
    assert run(package, "-c", SCRIPT.format(episodes=30)).out == "episodes 30 resumed True\n"


def add_fields(package: Path) -> None:
    for cls in ("Mlp", "PrioritizedReplay", "UniformReplay", "DQNConfig", "GymEnv", "TrainingConfig"):
        add_field(file_of(package, cls), cls, "new_setting: int = 7")


def test_stored_files_name_no_module_of_the_package(finished_run: Path) -> None:
    config = (finished_run / "run.json").read_text()
    assert '"_target_": "agent/loss=q_learning"' in config
    assert not re.search(r'"_target_": "dqn_runner\.', config)
    checkpoint = (finished_run / "checkpoints" / "latest.pt").read_bytes()
    assert b"agent/loss=q_learning" in checkpoint
    assert not re.search(rb"dqn_runner\.(agent|envs|replay|training|loggers)", checkpoint)
    assert read_json(finished_run / "run.json")["config"]["env"]["_target_"] == "env=gym"


def test_an_option_that_no_longer_exists_is_rejected_by_name() -> None:
    with pytest.raises(
        UserError, match="uses agent/loss=forgotten, which this version of dqn_runner does not have"
    ):
        to_import_path("agent/loss=forgotten")
