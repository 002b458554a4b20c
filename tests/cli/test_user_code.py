"""Environments and configuration files of a user, outside of this package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqn_runner.io.json_io import read_json
from tests.conftest import BUDGET, Outcome, run_cli

pytestmark = pytest.mark.slow


class TestUserEnvironment:
    """MyEnv of tests/conftest.py, with 60 features and 7 actions, in a package of the working directory."""

    @pytest.mark.parametrize(
        "name",
        [
            "env.id=my_pkg.envs:MyEnv-v0",
            "env.id=my_pkg.envs:MyEnv",
            "env.id=my_pkg.envs.MyEnv",
            "env.id=my_pkg.envs:make",
            "env._target_=my_pkg.envs.MyEnv",
        ],
    )
    @pytest.mark.usefixtures("my_env")
    def test_a_user_env_can_be_given_by_any_kind_of_name_and_with_arguments(
        self, program: Callable[..., Outcome], tmp_path: Path, name: str
    ) -> None:
        done = program(name, "env.kwargs.gain=-2.5", *BUDGET, "trainer.max_steps=600", "hydra.run.dir=run")
        assert done.status == 0, done.err
        config = read_json(tmp_path / "run" / "run.json")["config"]
        assert config["env"]["id"] == name.partition("=")[2]
        assert config["env"]["kwargs"] == {"gain": -2.5}
        episodes = read_json(tmp_path / "run" / "metrics.json")["episodes"]
        assert set(episodes["length"]) == {20}
        assert {value % 2.5 for value in episodes["return"]} == {0.0}
        assert min(episodes["return"]) < 0

    def test_a_user_env_in_the_working_directory_is_found_by_a_new_process(
        self, my_env: str, run_cli_here: Callable[..., Outcome], tmp_path: Path
    ) -> None:
        done = run_cli_here(f"env.id={my_env}", *BUDGET, "trainer.max_steps=600", "hydra.run.dir=run")
        assert done.status == 0, done.err
        assert (tmp_path / "run" / "metrics.json").exists()

    def test_a_user_env_is_not_stopped_by_the_reward_threshold_of_cartpole(
        self, my_env: str, program: Callable[..., Outcome], tmp_path: Path
    ) -> None:
        done = program(f"env.id={my_env}", "env.kwargs.gain=1000", *BUDGET, "hydra.run.dir=run")
        assert done.status == 0, done.err
        metrics = read_json(tmp_path / "run" / "metrics.json")
        assert max(metrics["evaluations"]["return_mean"]) > 475, (
            "returns must exceed the threshold of CartPole"
        )
        assert metrics["finished"] == "trainer.max_steps=1200 reached"


class TestUserConfiguration:
    """The directory `mine`, given with --config-dir: a primary configuration `lab` and a recipe `tiny`."""

    @pytest.fixture(autouse=True)
    def config_dir(self, tmp_path: Path) -> None:
        (tmp_path / "mine" / "experiment").mkdir(parents=True)
        budget: dict[str, Any] = {}
        for override in BUDGET:
            *path, last = override.partition("=")[0].split(".")
            node = budget
            for name in path:
                node = node.setdefault(name, {})
            node[last] = int(override.partition("=")[2])
        budget["agent"]["learning_rate"] = 0.0005
        (tmp_path / "mine" / "lab.yaml").write_text(json.dumps({"defaults": ["config", "_self_"], **budget}))
        recipe = json.dumps({"defaults": [{"override /agent": "double_dqn"}], **budget})
        (tmp_path / "mine" / "experiment" / "tiny.yaml").write_text("# @package _global_\n" + recipe)

    def test_a_resumed_run_keeps_the_values_of_a_user_configuration_that_changed_since(
        self, program: Callable[..., Outcome], tmp_path: Path
    ) -> None:
        done = program("--config-dir", "mine", "--config-name", "lab", "hydra.run.dir=run")
        assert done.status == 0, done.err
        config = read_json(tmp_path / "run" / "run.json")["config"]
        assert (config["agent"]["learning_rate"], config["trainer"]["max_steps"]) == (0.0005, 1200)
        assert config["agent"]["batch_size"] == 128

        (tmp_path / "mine" / "lab.yaml").write_text("{defaults: [config, _self_], agent: {learning_rate: 9}}")
        assert "--config-dir=" in program("resume=run", "trainer.max_steps=1300").error
        done = program("resume=run", "trainer.max_steps=1300", "trust=true")
        assert done.status == 0, done.err
        assert done.out.startswith("changed for this session:\ntrainer.max_steps: 1200 -> 1300\nbest")
        assert read_json(tmp_path / "run" / "run.json")["config"]["agent"]["learning_rate"] == 0.0005

    @pytest.mark.parametrize("override", ["experiment=tiny", "+experiment=tiny"])
    def test_a_user_recipe_is_chosen_with_or_without_a_plus_sign(
        self, program: Callable[..., Outcome], tmp_path: Path, override: str
    ) -> None:
        done = program("--config-dir=mine", override, "agent.batch_size=32", "hydra.run.dir=run")
        assert done.status == 0, done.err
        agent = read_json(tmp_path / "run" / "run.json")["config"]["agent"]
        assert (agent["learning_rate"], agent["batch_size"]) == (0.0005, 32)
        assert agent["loss"]["target"]["_target_"] == "agent/loss/target=double"

    def test_a_misspelt_user_recipe_is_answered_with_the_nearest(
        self, program: Callable[..., Outcome]
    ) -> None:
        assert "did you mean experiment=tiny?" in program("--config-dir=mine", "experiment=tinny").error


HANGING = """
from pathlib import Path

import gymnasium
import numpy as np


class Hanging(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        hangs = Path("hang").exists()
        while hangs:
            pass
        self.left = 5
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(2, np.float32), 1.0, self.left == 0, False, {}

    def close(self):
        hangs = Path("played" if hasattr(self, "left") else "new").exists()
        while hangs:
            pass
"""


def test_an_env_that_hangs_in_its_first_reset_or_an_evaluation_ends_the_program(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    train = ("env=gym", "env.id=hanging:Hanging", *BUDGET, "trainer.env_timeout=1", "hydra.run.dir=run")
    evaluate = ("mode=eval", "checkpoint=run", "trust=true", "trainer.env_timeout=1", "hydra.run.dir=eval")
    for command, advice in ((train, "the same command starts again"), (evaluate, "repeat the command")):
        (tmp_path / "hang").touch()
        done = run_cli(*command, cwd=tmp_path)
        assert done.status == 1, done
        assert "did not finish a step, reset or close within trainer.env_timeout, at " in done.err
        assert "in reset" in done.err
        assert advice in done.err
        (tmp_path / "hang").unlink()
        done = run_cli(*command, cwd=tmp_path)
        assert done.status == 0, done.err


def test_an_env_that_hangs_in_close_ends_the_program_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    train = ("env=gym", "env.id=hanging:Hanging", *BUDGET, "trainer.env_timeout=1", "hydra.run.dir=run")
    (tmp_path / "new").touch()  # one is closed before the first step
    done = run_cli(*train, cwd=tmp_path)
    assert (done.status, "in close" in done.err) == (1, True), done
    (tmp_path / "new").unlink()
    assert run_cli(*train, cwd=tmp_path).status == 0
    (tmp_path / "played").touch()
    stored = ("checkpoint=run", "trust=true", "trainer.env_timeout=1")
    for mode, advice, file in (
        ("eval", "the evaluation itself is complete", "eval.json"),
        ("publish", "the evaluation itself is complete", "published/README.md"),
        ("record", "the episodes are written", "transitions.npz"),
    ):
        done = run_cli(f"mode={mode}", *stored, f"hydra.run.dir={mode}", cwd=tmp_path)
        assert (done.status, f"in close; {advice}" in done.err) == (1, True), done
        assert (tmp_path / mode / file).exists()
