"""Start-up: help and completion are quick, write nothing, and work from any directory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf

import dqn_runner
from dqn_runner.cli import main as main_of_program
from dqn_runner.io.signals import SignalExit
from tests.conftest import Outcome, environment

PACKAGE = Path(dqn_runner.__file__).parent
CHECKOUT = PACKAGE.parent
MAIN = PACKAGE / "__main__.py"
HEAVY_LIBRARIES = ("torch", "gymnasium", "matplotlib", "wandb", "optuna", "pandas", "rich")


@pytest.mark.parametrize(
    ("args", "line", "expected"),
    [
        (["--help"], "", ["agent: c51, double_dqn, dqn", "agent/loss: ", "--cfg job", "resume=RUN_DIR"]),
        (
            ["--cfg", "job", "--resolve", "seed=3", "agent=double_dqn"],
            "",
            [
                "seed: 3\n",
                "_target_: dqn_runner.agent.losses.targets.DoubleTarget",
                "learning_rate: 0.001",
                "target_return: 475.0",
            ],
        ),
        (["--info", "defaults-tree"], "", ["agent: dqn", "env: cartpole", "logging/jsonl"]),
        (["-sc", "query=bash"], "dqn_runner agent=d", ["agent=double_dqn", "agent=dqn"]),
        (["-sc", "query=bash"], "dqn_runner agent.lear", ["agent.learning_rate="]),
        (["-sc", "query=bash"], "dqn_runner agent/exploration/schedule=lin", ["schedule=linear"]),
    ],
    ids=["help", "cfg", "info", "complete-option", "complete-key", "complete-nested-group"],
)
def test_help_and_completion_do_not_import_heavy_libraries(
    args: list[str], line: str, expected: list[str], run_cli_here: Callable[..., Outcome]
) -> None:
    """PYTHONPROFILEIMPORTTIME lists the imports of the process on its stderr."""
    variables = {"PYTHONPROFILEIMPORTTIME": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    done = run_cli_here(*args, env=variables)
    assert done.status == 0, done.err
    for text in expected:
        assert text in done.out
    imported = {entry.rpartition("|")[2].strip() for entry in done.err.splitlines()}
    assert "hydra" in imported
    assert not imported.intersection(HEAVY_LIBRARIES)


@pytest.mark.parametrize("command", [[], ["-m"]], ids=["run", "sweep"])
def test_the_configuration_of_a_command_is_composed_once(
    command: list[str], program: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra alone composes it twice. It also composes each job of a sweep to check it, and again to run."""
    composed: list[list[str]] = []
    compose = ConfigLoaderImpl._load_configuration_impl

    def count(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> Any:
        composed.append(list(kwargs["overrides"]))
        return compose(self, *args, **kwargs)

    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", count)
    short = ("trainer.max_steps=10", "agent.learning_starts=5", "trainer.eval_episodes=1", "logging=[jsonl]")
    assert program(*short, "hydra.run.dir=run", "hydra.sweep.dir=sweep", *command).status == 0
    jobs = [overrides for overrides in composed if "hydra.mode=MULTIRUN" in overrides]
    assert len(composed) - len(jobs) == 1
    assert len(jobs) == 2 * len(command)
    stored = "sweep/multirun.yaml" if command else "run/.hydra/hydra.yaml"
    overrides = OmegaConf.load(stored).hydra.overrides.hydra
    assert f"hydra.mode={'MULTIRUN' if command else 'RUN'}" in overrides


def test_showing_the_configuration_writes_no_files(program: Callable[..., Outcome], tmp_path: Path) -> None:
    assert program("--cfg", "job").status == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("cwd", "pythonpath"),
    [(CHECKOUT, None), (PACKAGE, None), (Path("/"), None), (Path("/"), str(CHECKOUT))],
    ids=["checkout", "package", "elsewhere", "pythonpath"],
)
def test_main_file_runs_as_a_script_from_any_directory(cwd: Path, pythonpath: str | None) -> None:
    """The checkout does not have to be installed or on PYTHONPATH."""
    file = MAIN.relative_to(cwd) if cwd in (CHECKOUT, PACKAGE) else MAIN
    done = run_script(file, "--help", cwd=cwd, pythonpath=pythonpath)
    assert done.returncode == 0, done.stderr
    assert "agent: c51, double_dqn, dqn" in done.stdout


@pytest.mark.slow
def test_main_file_as_a_script_keeps_package_modules_from_shadowing_others(tmp_path: Path) -> None:
    """Python puts the directory of a script on sys.path; `dqn_runner/loggers` would then be `loggers`."""
    done = run_script(MAIN, "env.id=loggers:MyEnv-v0", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "needs the module 'loggers'" in done.stderr


def run_script(
    file: Path, *args: str, cwd: Path, pythonpath: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`python FILE ARGS` in directory `cwd`, with this value of PYTHONPATH, or without the variable."""
    variables = environment()
    variables.pop("PYTHONPATH", None)
    if pythonpath is not None:
        variables["PYTHONPATH"] = pythonpath
    command = [sys.executable, str(file), *args]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("raised", "status"),
    [(SignalExit(143), 143), (KeyboardInterrupt(), 130), (ValueError("wrong"), 1), (SystemExit(3), 1)],
    ids=repr,
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_signal_that_python_makes_an_error_while_a_class_is_made_has_its_status(
    program: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    status: int,
    wrapped: bool,
) -> None:
    """Python 3.11 does so with whatever `__set_name__` raises."""

    def compose(_: Any) -> None:
        try:
            raise RuntimeError("Error calling __set_name__ on 'Field' instance 'when'") from raised
        except RuntimeError as error:
            if wrapped:
                raise ImportError("the module cannot be imported") from error
            raise

    monkeypatch.setattr(main_of_program, "compose_and_run", compose)
    done = program("seed=1")
    assert done.status == status
    assert ("Error calling" in done.err) is (status == 1)
