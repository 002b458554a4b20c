"""Fixtures and helpers that run the whole program, and a user package for it to import."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import hypothesis
import pytest
import torch

from dqn_runner.cli import main as main_of_program
from dqn_runner.cli.main import main
from dqn_runner.core import secrets
from dqn_runner.core.log import log
from dqn_runner.run import plots
from dqn_runner.sweep.hydra_sweeper import register_sweeper
from tests.support.fork_server import CURVES, forked_python

register_sweeper()  # for tests that compose a configuration without running the program
torch.set_num_threads(1)  # for small networks, threads cost more than they save

# A shell makes background processes ignore SIGINT, and the programs under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

BUDGET = (
    "trainer.max_steps=1200",
    "trainer.eval_frequency=400",
    "trainer.eval_episodes=2",
    "trainer.checkpoint_frequency=400",
    "trainer.log_frequency=200",
    "agent.learning_starts=100",
    "agent.exploration.schedule.steps=500",
)
"""A run of a fraction of a second, with three evaluations and three checkpoints."""

MY_ENV = '''
import os
import signal
import time
from pathlib import Path

import gymnasium
import numpy as np


class MyEnv(gymnasium.Env):
    """60 features, 7 actions, episodes of 20 steps, and a reward of `gain` for action 3.

    Files in the working directory make it misbehave in method `where` (`step` or `reset`) from its step `at`
    on. `broken` makes it raise. `interrupt` makes it send the signal whose number the file contains, and is
    deleted. `stuck` makes it send SIGINT, create the file `hanging` and then block; it is deleted too.
    """

    def __init__(self, gain=1.0, at=0, where="step"):
        self.observation_space = gymnasium.spaces.Box(-1, 1, (60,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(7)
        self.gain, self.at, self.where, self.steps = gain, at, where, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._misbehave("reset")
        self._left = 20
        return self._observation(), {}

    def step(self, action):
        self._misbehave("step")
        self.steps += 1
        self._left -= 1
        return self._observation(), self.gain * float(action == 3), self._left == 0, False, {}

    def _observation(self):
        return self.np_random.uniform(-1, 1, 60).astype(np.float32)

    def _misbehave(self, where):
        if where != self.where or self.steps < self.at:
            return
        if Path("broken").exists():
            raise RuntimeError("the sensor is lost")
        if Path("interrupt").exists():
            number = int(Path("interrupt").read_text())
            Path("interrupt").unlink()
            os.kill(os.getpid(), number)
        if Path("stuck").exists():
            Path("stuck").unlink()
            os.kill(os.getpid(), signal.SIGINT)
            Path("hanging").touch()
            time.sleep(600)


def make(gain=1.0):
    return MyEnv(gain)


gymnasium.register("MyEnv-v0", MyEnv)
'''


hypothesis.settings.register_profile("dqn_runner", deadline=None, derandomize=True)
hypothesis.settings.load_profile("dqn_runner")  # neither the clock nor chance decides what fails


def pytest_configure(config: pytest.Config) -> None:
    """Start the server of forked processes before the workers, which share it."""
    if getattr(config.option, "numprocesses", None):
        forked_python()


def pytest_collection_finish() -> None:
    """Collections of garbage pass over what the tests and libraries have made until now: it stays."""
    gc.freeze()


class Outcome(NamedTuple):
    """Exit status and output of a call of the program."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that explains a usage error; fails if there is a traceback or more than one line."""
        assert self.status == 2, self
        assert "Traceback" not in self.err, self.err
        (line,) = (line for line in self.err.splitlines() if line.startswith("error: "))
        assert self.err.rstrip().endswith(line), self.err
        return line.removeprefix("error: ")


def environment(**changes: str) -> dict[str, str]:
    """The environment variables of this process without those that change the program, and with `changes`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "HYDRA_", "COLUMNS"))}
    return {**inherited, **changes}


def run_cli(*args: str, cwd: Path, env: Mapping[str, str] | None = None) -> Outcome:
    """`python -m dqn_runner ARGS` in directory `cwd`, with `env` added to the environment variables.

    It is forked from a process with the libraries imported, and draws curves only if CURVES is in `env`.
    """
    command = [forked_python(), "-m", "dqn_runner", *args]
    variables = environment(**(env or {}))
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=240)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """`program(*ARGS)` is `run_cli` in `tmp_path`, but faster: in this process and without curves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)
    monkeypatch.setattr(main_of_program, "write_sweep_page", lambda *_: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(secrets, "_hidden", {})

    def call(*args: str) -> Outcome:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "")
        monkeypatch.delenv("HYDRA_FULL_ERROR")
        monkeypatch.setattr(sys, "argv", ["dqn_runner", *args])
        capsys.readouterr()
        status, on_sigterm = 0, signal.getsignal(signal.SIGTERM)
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)
        assert isinstance(status, int)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture
def forked_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that a sweep in this process starts are forked, as by `run_cli`."""
    monkeypatch.setattr(sys, "executable", forked_python())


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process draw no training curves, which would take most of their time."""
    monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Tests that draw from the generator of torch draw the same numbers in each session and in any order."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Restore the handlers and level of the root logger, which Hydra changes."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


class MessageCollector(logging.Handler):
    """Collects the warnings and errors of the run's log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """The warnings and errors that dqn_runner logs during a test."""
    handler = MessageCollector()
    log.addHandler(handler)
    yield handler.messages
    log.removeHandler(handler)


@pytest.fixture
def my_env(tmp_path: Path, _unload_my_pkg: None) -> str:
    """Write the user package `my_pkg` to the working directory; returns the import path of its env."""
    write_my_env(tmp_path)
    return "my_pkg.envs.MyEnv"


@pytest.fixture
def _unload_my_pkg() -> Iterator[None]:
    """Remove `my_pkg` and its registered env after the test, so that the next one imports its own."""
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]:
        del sys.modules[name]
    gymnasium.registry.pop("MyEnv-v0", None)


def write_my_env(directory: Path) -> None:
    """Write the package `my_pkg`, whose module `envs` defines MyEnv and make() and registers MyEnv-v0."""
    (directory / "my_pkg").mkdir()
    (directory / "my_pkg" / "__init__.py").touch()
    (directory / "my_pkg" / "envs.py").write_text(MY_ENV)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a short CartPole run, shared by all tests; to change it, copy it first."""
    cwd = tmp_path_factory.mktemp("finished")
    command = (*BUDGET, "logging=[console,file,jsonl]", "hydra.run.dir=run")
    done = run_cli(*command, cwd=cwd, env={CURVES: "1"})
    assert done.status == 0, done.err
    (cwd / "stdout").write_text(done.out)
    (cwd / "stderr").write_text(done.err)
    return cwd / "run"


def records(run_dir: Path) -> list[dict[str, Any]]:
    """The records in metrics.jsonl without times, which differ between equal runs."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


@pytest.fixture
def run_cli_here(tmp_path: Path) -> Callable[..., Outcome]:
    """`run_cli` in `tmp_path`."""

    def call(*args: str, env: Mapping[str, str] | None = None) -> Outcome:
        return run_cli(*args, cwd=tmp_path, env=env)

    return call
