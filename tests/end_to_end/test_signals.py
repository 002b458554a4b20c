"""Ctrl-C, SIGTERM and exceptions: the state is saved, and the log and the exit status give the reason."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.schedules import Constant
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.run import plots
from dqn_runner.training.config import FrequencyUnit
from dqn_runner.training.evaluator import Evaluator
from tests.conftest import BUDGET, Outcome, environment, records, run_cli, write_my_env
from tests.support import crash
from tests.support.fork_server import CURVES, forked_python

ENDLESS = (*BUDGET, "trainer.max_steps=1000000", "env.id=my_pkg.envs.MyEnv", "env.kwargs.at=650")
RUN = (
    *BUDGET,
    "trainer.retry_env=false",
    "env.id=my_pkg.envs.MyEnv",
    "env.kwargs.at=650",
    "hydra.run.dir=run",
)


def log_of(run_dir: Path) -> str:
    return (run_dir / "logs" / "training.log").read_text()


def step_of(run_dir: Path) -> int:
    return load_checkpoint(run_dir / "checkpoints" / "latest.pt")["step"]


@pytest.mark.slow
class TestSignals:
    @pytest.mark.slow
    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_signal_saves_the_state_and_sets_the_exit_status(
        self, tmp_path: Path, number: signal.Signals, status: int
    ):
        write_my_env(tmp_path)
        (tmp_path / "interrupt").write_text(str(int(number)))
        curves = number is signal.SIGTERM
        done = run_cli(*ENDLESS, "hydra.run.dir=run", cwd=tmp_path, env={CURVES: "1"} if curves else None)

        assert done.status == status
        assert "Traceback" not in done.err
        assert "error:" not in done.err
        assert f"stopped by {number.name}" in done.err
        assert f"stopped by {number.name}" in log_of(tmp_path / "run")
        assert "resume=" in done.out + done.err, "the message says how to continue"
        assert 650 <= step_of(tmp_path / "run") <= 660
        assert records(tmp_path / "run")[-1]["step"] <= 660
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert metrics["finished"] is None
        assert metrics["evaluations"]["step"] == [400], "the signal causes no evaluation"
        assert (tmp_path / "run" / "training_curves.png").exists() == curves

    @pytest.mark.slow
    def test_second_ctrl_c_ends_the_process_immediately(self, tmp_path: Path):
        """The environment hangs after the first Ctrl-C, so the step never ends."""
        write_my_env(tmp_path)
        (tmp_path / "stuck").touch()
        command = [forked_python(), "-m", "dqn_runner", *ENDLESS, "hydra.run.dir=run"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=pipe, text=True) as process:
            try:
                while not (tmp_path / "hanging").exists():
                    assert process.poll() is None
                    time.sleep(0.02)
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=60)
            finally:
                process.kill()
        assert process.returncode == 130
        assert "error:" not in err

    def test_stopped_run_resumes_and_finishes(
        self, my_env: str, program: Callable[..., Outcome], tmp_path: Path
    ):
        (tmp_path / "interrupt").write_text(str(int(signal.SIGTERM)))
        assert program(*RUN).status == 143
        done = program("resume=run", "trust=true")
        assert done.status == 0, done.err
        assert "nothing changed" in done.out
        assert step_of(tmp_path / "run") == 1200

    @pytest.mark.parametrize(("every", "number", "at"), [(400, 1, 400), (1000, 3, 1200)])
    def test_a_signal_stops_an_evaluation_which_the_resumed_run_repeats(
        self,
        program: Callable[..., Outcome],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        every: int,
        number: int,
        at: int,
    ):
        """In an evaluation that is due, and in that at the end; in its second episode."""
        play, episodes = Evaluator._play, itertools.count()  # pyright: ignore[reportPrivateUsage]
        run = (*BUDGET, "logging=[jsonl]", f"trainer.eval_frequency={every}")
        assert program(*run, "hydra.run.dir=whole").status == 0

        def interrupted(self: Evaluator, *arguments: Any) -> Any:
            if next(episodes) == number:
                os.kill(os.getpid(), signal.SIGTERM)
            return play(self, *arguments)

        monkeypatch.setattr(Evaluator, "_play", interrupted)
        assert program(*run, "hydra.run.dir=run").status == 143
        assert step_of(tmp_path / "run") == at
        monkeypatch.setattr(Evaluator, "_play", play)
        assert program(*run, "hydra.run.dir=run").status == 0
        assert crash.result_differences(tmp_path / "whole", tmp_path / "run") == []

    def test_ctrl_c_stops_all_jobs_of_a_multirun(
        self, my_env: str, program: Callable[..., Outcome], tmp_path: Path
    ):
        (tmp_path / "interrupt").write_text(str(int(signal.SIGINT)))
        assert program("-m", "seed=0,1,2", *RUN[:-1], "hydra.sweep.dir=sweep").status == 130
        assert (tmp_path / "sweep" / "0" / "checkpoints" / "latest.pt").exists()
        assert not (tmp_path / "sweep" / "1").exists()

    def test_signal_handlers_are_restored_after_a_run(self, my_env: str, program: Callable[..., Outcome]):
        before = signal.getsignal(signal.SIGINT)
        assert program(*RUN).status == 0
        assert signal.getsignal(signal.SIGINT) is before


class Clock(gymnasium.Env[Any, Any]):
    """Observes the seed of the episode and the time, rewards the time, and truncates at time 7."""

    observation_space = gymnasium.spaces.Box(0, 2**31, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fails_in: str = "nothing", at: int = 0) -> None:
        self.fails_in, self.at, self.steps = fails_in, at, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.fail_if_due("reset")
        assert seed is not None
        self.seed, self.time = seed % 2**20, 0
        return self.observation(), {}

    def step(self, action: Any) -> Any:
        self.fail_if_due("step")
        self.time, self.steps = self.time + 1, self.steps + 1
        return self.observation(), float(self.time), False, self.time == 7, {}

    def observation(self) -> Any:
        return np.array([self.seed, self.time], np.float32)

    def fail_if_due(self, where: str) -> None:
        if self.fails_in == where and self.steps >= self.at:
            raise RuntimeError(f"lost in {where}")


class Clocks:
    """An environment part that returns `envs` first, for training, and new ones after that."""

    def __init__(self, *envs: Clock) -> None:
        self.envs = list(envs)
        self.num_envs = len(envs)

    def learning_reward(self, reward: float) -> float:
        return reward

    def make(self, training: bool = True, render: bool = False) -> Clock:
        return self.envs.pop(0) if self.envs else Clock()


@pytest.mark.slow
class TestExceptions:
    @pytest.mark.parametrize("where", ["step", "reset"])
    @pytest.mark.parametrize("broken", [0, 1])
    def test_env_that_raises_leaves_only_whole_episodes_and_valid_transitions(
        self, tmp_path: Path, where: str, broken: int
    ):
        """One of two environments raises. Stored n-step transitions must still belong to one episode."""

        def trainer(*envs: Clock) -> Trainer:
            config = DQNConfig(
                state_dim=2,
                action_dim=2,
                gamma=0.5,
                n_step=3,
                learning_starts=10,
                train_every=10,
                exploration=EpsilonGreedy(schedule=Constant(value=1.0)),
            )
            budget = TrainingConfig(
                frequency_unit=FrequencyUnit.steps,
                max_steps=200,
                eval_frequency=100,
                log_frequency=100,
                retry_env=False,
            )
            return Trainer(DQNAgent(config), Clocks(*envs), budget, tmp_path, loggers={})

        envs = [Clock(), Clock()]
        envs[broken] = Clock(fails_in=where, at=38)
        with pytest.raises(RuntimeError, match=f"lost in {where}"):
            trainer(*envs).train()
        resumed = trainer(Clock(), Clock())
        resumed.resume(tmp_path)
        stats = resumed.train()

        assert stats.steps == 200
        assert set(stats.history["episodes"]["length"]) == {7}
        assert set(stats.history["episodes"]["return"]) == {28.0}
        columns = {name: np.asarray(c) for name, c in resumed.replay.state_dict()["rows"].all().items()}
        (seed, time), (next_seed, next_time) = columns["obs"].T, columns["next_obs"].T
        length = -np.log2(columns["discount"])
        assert (seed == next_seed).all()
        assert (next_time - time == length).all()
        for row in range(len(seed)):
            window = [0.5**i * (time[row] + 1 + i) for i in range(int(length[row]))]
            assert columns["reward"][row] == sum(window)
        assert len(set(zip(seed.tolist(), time.tolist(), strict=True))) == len(seed), "no duplicates"

    @pytest.mark.parametrize("where", ["step", "reset"])
    @pytest.mark.parametrize("num_envs", [pytest.param(1, marks=pytest.mark.nightly), 2])
    def test_run_resumed_after_an_env_error_equals_an_uninterrupted_run(
        self, my_env: str, program: Callable[..., Outcome], tmp_path: Path, where: str, num_envs: int
    ):
        command = (*RUN, f"env.kwargs.where={where}", f"env.num_envs={num_envs}")
        (tmp_path / "broken").touch()
        done = program(*command, f"env.kwargs.at={650 // num_envs}")

        assert done.status == 1
        (line,) = (line for line in done.err.splitlines() if line.startswith("error: "))
        assert "RuntimeError: the sensor is lost" in line
        log = log_of(tmp_path / "run")
        assert "Traceback (most recent call last)" in log
        assert "my_pkg/envs.py" in log
        assert "RuntimeError: the sensor is lost" in log
        assert "the state was saved to" in log
        failed_at = step_of(tmp_path / "run")
        assert 640 <= failed_at <= 680
        assert json.loads((tmp_path / "run" / "metrics.json").read_text())["env_steps"] == failed_at

        (tmp_path / "broken").unlink()
        done = program("resume=run", "trust=true")
        assert done.status == 0, done.err
        assert f"resuming from step {failed_at}, " in done.err
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert metrics["finished"] == "trainer.max_steps=1200 reached"
        assert metrics["evaluations"]["step"] == [400, 800, 1200]
        assert set(metrics["episodes"]["length"]) == {20}, "no episode is lost or truncated"
        assert program(*command, "hydra.run.dir=whole").status == 0
        assert records(tmp_path / "run") == records(tmp_path / "whole")

    def test_run_that_fails_before_its_first_step_leaves_an_unused_directory(
        self, my_env: str, program: Callable[..., Outcome], tmp_path: Path
    ):
        (tmp_path / "broken").touch()
        done = program(*RUN, "env.kwargs.at=0", "env.kwargs.where=reset")
        assert done.status == 1
        assert "RuntimeError: the sensor is lost" in done.err
        (tmp_path / "broken").unlink()
        assert program(*RUN).status == 0, "the directory can be used again"

    def test_error_in_an_update_keeps_the_last_checkpoint(
        self, program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        learn = DQNAgent.learn
        calls = iter(range(1_000))

        def fail_once(self: DQNAgent, batch: object, step: int) -> object:
            if next(calls) == 150:
                raise ArithmeticError("the loss is not finite")
            return learn(self, batch, step)  # pyright: ignore[reportArgumentType]

        monkeypatch.setattr(DQNAgent, "learn", fail_once)
        done = program(*BUDGET, "hydra.run.dir=run")
        assert done.status == 1
        assert "ArithmeticError: the loss is not finite" in done.err.splitlines()[-1]
        log = log_of(tmp_path / "run")
        assert "ArithmeticError: the loss is not finite" in log
        assert "the last checkpoint stays" in log
        assert step_of(tmp_path / "run") == 400, "the state within a training iteration is not saved"

        assert program(*BUDGET, "hydra.run.dir=run").status == 0
        assert program(*BUDGET, "hydra.run.dir=whole").status == 0
        assert records(tmp_path / "run") == records(tmp_path / "whole")

    def test_error_while_saving_does_not_hide_the_original_error(
        self, my_env: str, program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def unwritable(_: DQNAgent) -> object:
            raise OSError("no space left on device")

        (tmp_path / "broken").touch()
        monkeypatch.setattr(DQNAgent, "state_dict", unwritable)
        done = program(*RUN, "env.kwargs.at=50")
        assert done.status == 1
        assert "RuntimeError: the sensor is lost" in done.err.splitlines()[-1]
        log = log_of(tmp_path / "run")
        assert "the sensor is lost" in log
        assert "the state could not be saved" in log
        assert "no space left on device" in log

    def test_error_in_drawing_curves_does_not_fail_the_run(
        self, program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def broken(_: Path) -> None:
            raise RuntimeError("no fonts")

        monkeypatch.setattr(plots, "draw_training_curves", broken)
        assert program(*BUDGET, "hydra.run.dir=run").status == 0
        assert "no fonts" in log_of(tmp_path / "run")
        assert (tmp_path / "run" / "metrics.json").exists()


IMPORT = """
import signal, sys
from dqn_runner.cli.main import _exit_for_signal
sys.path.insert(0, sys.argv[1])
signal.signal(int(sys.argv[2]), _exit_for_signal)
print("imports")
try:
    import torch
except BaseException as error:
    print("raised", error)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_during_the_import_of_torch_raises_nothing(number: int, tmp_path: Path) -> None:
    """C++ code that initialises torch calls Python, and aborts the process if that raises."""
    (tmp_path / "torch.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    command = [sys.executable, "-c", IMPORT, str(tmp_path), str(int(number))]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (128 + number, "imports\n", "")
