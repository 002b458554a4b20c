"""Runs of scripts: wrappers of the script, changed attributes, and the program that continues them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig, UserError
from dqn_runner.report.grouping import grouped
from dqn_runner.report.stored_run import read_run
from dqn_runner.run import plots
from dqn_runner.run.session import Session
from dqn_runner.training.watchdog import Watchdog
from tests.conftest import Outcome, records


class Doubled(gymnasium.RewardWrapper[Any, Any]):
    """A wrapper that does not record its arguments."""

    def __init__(self, env: Any, factor: float) -> None:
        super().__init__(env)
        self.factor = factor

    def reward(self, reward: Any) -> float:
        return self.factor * reward


class Stuck(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Hangs in the method `where` until a test sets `free`."""

    where, free = "", False

    def reset(self, **options: Any) -> Any:
        self._hang("reset")
        return self.env.reset(**options)

    def step(self, action: Any) -> Any:
        self._hang("step")
        return self.env.step(action)

    def close(self) -> None:
        self._hang("close")
        self.env.close()

    def _hang(self, where: str) -> None:
        while where == Stuck.where and not Stuck.free:
            pass


def trainer(env: Any, directory: Path, episodes: int = 6, **settings: Any) -> Trainer:
    agent = DQNAgent(DQNConfig(state_dim=4, action_dim=2, seed=3, learning_starts=20, batch_size=8))
    config = TrainingConfig(max_episodes=episodes, eval_frequency=3, eval_episodes=1, **settings)
    return Trainer(agent, env, config, output_dir=directory)


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)


def test_wrappers_and_changed_attributes_are_in_training_and_evaluation(tmp_path: Path) -> None:
    env = Doubled(gymnasium.make("CartPole-v1"), 2.0)
    env.unwrapped.force_mag = 0.0  # type: ignore[attr-defined]
    made = trainer(env, tmp_path)
    assert made.evaluator.env.unwrapped.force_mag == 0.0
    episodes = made.train().history["episodes"]
    assert episodes["return"] == [2 * length for length in episodes["length"]]


def test_program_resumes_and_evaluates_the_run_of_a_script_exactly(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    for name, episodes in (("short", 6), ("long", 9)):
        trainer(gymnasium.make("CartPole-v1"), tmp_path / name, episodes).train()
    done = program("resume=short", "trainer.max_episodes=9", "logging=[jsonl]")
    assert done.status == 0, done.err
    assert records(tmp_path / "short") == records(tmp_path / "long")
    done = program("mode=eval", "checkpoint=long", "evaluator.episodes=2", "hydra.run.dir=eval")
    assert done.status == 0, done.err


def test_program_asks_for_an_env_that_it_cannot_make(program: Callable[..., Outcome], tmp_path: Path) -> None:
    trainer(Doubled(gymnasium.make("CartPole-v1"), 2.0), tmp_path / "run").train()
    evaluate = ("mode=eval", "checkpoint=run", "evaluator.episodes=1", "hydra.run.dir=eval")
    assert "name it, as in env.id=my_pkg.my_envs:MyEnv" in program(*evaluate).error
    done = program(*evaluate, "env.id=CartPole-v1")
    assert done.status == 0, done.err


def test_runs_of_scripts_record_their_settings_and_sessions(tmp_path: Path) -> None:
    for name, factor, rate in (("a", 2.0, 1e-3), ("b", 3.0, 1e-2)):
        agent = DQNAgent(DQNConfig(state_dim=4, action_dim=2, learning_starts=20, learning_rate=rate))
        config = TrainingConfig(max_episodes=3, eval_frequency=3, eval_episodes=1)
        env = Doubled(gymnasium.make("CartPole-v1"), factor)
        Trainer(agent, env, config, output_dir=tmp_path / name).train()
    trainer(gymnasium.make("CartPole-v1"), tmp_path / "c").train()
    found = {name: read_run(tmp_path / name) for name in "abc"}
    assert {run.env for run in found.values()} == {"CartPole-v1"}
    assert len(found["a"].sessions) == 1
    assert found["a"].settings["agent.learning_rate"] == 1e-3
    groups = grouped([(tmp_path, run) for run in found.values()], "agent.learning_rate")
    assert len(groups) == 2
    trainer(gymnasium.make("CartPole-v1"), tmp_path / "c", 9).train()
    assert len(read_run(tmp_path / "c").sessions) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env": "CartPole-v1"}, r"such as gymnasium\.make\('CartPole-v1'\), not 'CartPole-v1'$"),
        ({"env": CartPoleEnv}, r"such as CartPoleEnv\(\), not CartPoleEnv$"),
        ({"env": 3}, r"such as gymnasium\.make\(.CartPole-v1.\), not 3$"),
        ({"agent": DQNConfig(state_dim=4, action_dim=2)}, r"not a DQNConfig; use DQNAgent\(config\)$"),
        ({"config": {"max_episodes": 3}}, r"not a dict; use TrainingConfig\(\*\*settings\)$"),
        ({"callbacks": object()}, r"must be a list, as in callbacks=\[...\]; got a object$"),
        ({"eval_env": gymnasium.make("Acrobot-v1")}, r"observations \(6,\) float32 and 3 actions, the train"),
    ],
)
def test_other_arguments_are_rejected_in_one_line(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    agent = DQNAgent(DQNConfig(state_dim=4, action_dim=2))
    given = {"agent": agent, "env": gymnasium.make("CartPole-v1"), "config": TrainingConfig(), **arguments}
    with pytest.raises(UserError, match=message):
        Trainer(**given, output_dir=tmp_path)


@pytest.mark.parametrize("of", [lambda env: env, lambda env: env.unwrapped], ids=["same", "unwrapped"])
def test_the_training_environment_cannot_be_that_of_evaluations(of: Any, tmp_path: Path) -> None:
    env = gymnasium.make("CartPole-v1")
    agent = DQNAgent(DQNConfig(state_dim=4, action_dim=2))
    with pytest.raises(UserError, match="eval_env is the training environment, whose episodes"):
        Trainer(agent, env, TrainingConfig(), output_dir=tmp_path, eval_env=of(env))


def test_an_output_directory_that_is_a_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file is not a directory; choose another one for the run$"):
        trainer(gymnasium.make("CartPole-v1"), tmp_path / "file").train()


class Moving(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Changes the working directory, as some simulators do, in the method `where`."""

    def __init__(self, env: Any, where: str, to: str) -> None:
        super().__init__(env)
        self.where, self.to = where, to

    def reset(self, **options: Any) -> Any:
        if self.where == "reset":
            os.chdir(self.to)
        return self.env.reset(**options)

    def step(self, action: Any) -> Any:
        if self.where == "step":
            os.chdir(self.to)
        return self.env.step(action)


@pytest.mark.parametrize("where", ["reset", "step"])
def test_the_output_directory_stays_if_the_working_directory_changes(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    env = Moving(gymnasium.make("CartPole-v1"), where, str(tmp_path / "elsewhere"))
    trainer(env, Path("run")).train()
    assert (tmp_path / "run" / "checkpoints" / "latest.pt").exists()
    assert not any((tmp_path / "elsewhere").iterdir())


class Meanwhile:
    """A callback that trains another run, in another thread or in this one."""

    def __init__(self, other: Trainer, thread: bool) -> None:
        self.other, self.thread = other, thread
        self.error: BaseException | None = None

    def on_evaluation(self, run: Any, evaluation: Any) -> None:
        if not self.thread:
            self.other.train()
            return
        thread = threading.Thread(target=self._train)
        thread.start()
        thread.join()

    def _train(self) -> None:
        try:
            self.other.train()
        except UserError as error:
            self.error = error


@pytest.mark.parametrize("thread", [True, False])
def test_a_second_thread_cannot_train_at_the_same_time(thread: bool, tmp_path: Path) -> None:
    env = gymnasium.make("CartPole-v1")
    callback = Meanwhile(trainer(env, tmp_path / "other"), thread)
    agent = DQNAgent(DQNConfig(state_dim=4, action_dim=2, learning_starts=20, batch_size=8))
    config = TrainingConfig(max_episodes=3, eval_frequency=3, eval_episodes=1)
    Trainer(agent, CartPoleEnv(), config, tmp_path / "run", callbacks=[callback]).train()
    assert (tmp_path / "other" / "checkpoints" / "latest.pt").exists() != thread
    if thread:
        assert "another thread of this process trains a run" in str(callback.error)
        assert callback.other.train().episodes == 6, "it can train afterwards"


def test_use_wandb_adds_the_logger(tmp_path: Path) -> None:
    made = trainer(gymnasium.make("CartPole-v1"), tmp_path, use_wandb=True)
    assert "wandb" in made.directory.loggers._parts


@pytest.mark.parametrize("where", ["reset", "step", "close"])
def test_env_that_hangs_in_this_process_is_reported(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[str] = []

    def end(_: Any, place: str, _stack: str) -> None:
        places.append(place)
        Stuck.free = True

    monkeypatch.setattr(Watchdog, "_end_process", end)
    monkeypatch.setattr(Stuck, "where", where)
    monkeypatch.setattr(Stuck, "free", False)
    made = trainer(Stuck(gymnasium.make("CartPole-v1")), tmp_path, episodes=1, env_timeout=0.2)
    made.train()
    assert len(places) == 1
    assert places[0].endswith("in _hang")


def test_next_session_notices_a_close_that_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_close: list[str | None] = []
    monkeypatch.setattr(CartPoleEnv, "close", lambda _: at_close.append(Session(tmp_path).unfinished()))
    trainer(gymnasium.make("CartPole-v1"), tmp_path, episodes=1).train()
    assert len(at_close) >= 2
    assert all(notice is not None for notice in at_close[-2:])
    assert Session(tmp_path).unfinished() is None
    assert (tmp_path / "checkpoints" / "latest.pt").exists()
