"""Copies of environment objects: independent of the original, and with its present attributes."""

from __future__ import annotations

import threading
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils import EzPickle

from dqn_runner.core.exceptions import UserError
from dqn_runner.envs.env_copy import copy_env
from dqn_runner.envs.minatar import MinAtar
from dqn_runner.envs.user_env import UserEnv, describe


class Gain(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper of a user, which does not record its arguments."""

    def __init__(self, env: Any, gain: float) -> None:
        super().__init__(env)
        self.gain = gain


class Physics:
    speed = 1.0


class Simulator(gymnasium.Env[Any, Any], EzPickle):
    """An environment with a simulator that is known by its number; a copy constructs it again."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    started = 0

    def __init__(self, gravity: float = 9.8) -> None:
        EzPickle.__init__(self, gravity)
        Simulator.started += 1
        self.number, self.gravity, self.lock = Simulator.started, gravity, threading.Lock()
        self.physics = Physics()
        self.physics.speed = 1.0


def play(env: Any, seed: int, steps: int = 20) -> list[Any]:
    found = [env.reset(seed=seed)[0].tolist()]
    for step in range(steps):
        obs, reward, terminated, *_ = env.step(step % 2)
        found.append([obs.tolist(), reward])
        if terminated:
            break
    return found


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1", "LunarLander-v3"])
@pytest.mark.parametrize("used", [False, True])
def test_copy_plays_as_the_original_and_leaves_it_alone(env_id: str, used: bool) -> None:
    env = Gain(gymnasium.make(env_id), 2.0)
    if used:
        play(env, 1)
    made = copy_env(env)
    expected = play(gymnasium.make(env_id), 3)
    env.reset(seed=3)
    assert play(made, 3) == expected
    assert made.gain == 2.0
    again = [env.step(step % 2)[0].tolist() for step in range(5)]
    assert again == [step[0] for step in expected[1:6]]


@pytest.mark.parametrize(("env_id", "name"), [("CartPole-v1", "force_mag"), ("LunarLander-v3", "gravity")])
def test_copy_has_attributes_that_were_changed(env_id: str, name: str) -> None:
    env = gymnasium.make(env_id)
    setattr(env.unwrapped, name, -1.0)
    assert getattr(copy_env(env).unwrapped, name) == -1.0


def test_copy_of_an_env_that_is_constructed_again_has_its_own_handle_and_the_changed_settings() -> None:
    env = Simulator()
    env.gravity, env.physics.speed = 1.6, 3.0
    made = copy_env(env)
    assert (made.gravity, made.physics.speed) == (1.6, 3.0)
    assert made.number != env.number


def _with_a_lock(env: Any) -> Any:
    env.unwrapped.lock = threading.Lock()
    return env


def _with_a_patched_step(env: Any) -> Any:
    step = env.unwrapped.step
    env.unwrapped.step = lambda action: step(action)
    return env


@pytest.mark.parametrize("change", [_with_a_lock, _with_a_patched_step])
def test_env_that_cannot_be_copied_independently_needs_an_eval_env(change: Any) -> None:
    env = change(gymnasium.make("CartPole-v1"))
    with pytest.raises(UserError, match=r"cannot be copied \(.*\); pass Trainer\(\.\.\., eval_env=\.\.\.\)"):
        UserEnv(env=env)
    assert UserEnv(env=env, eval_env=gymnasium.make("CartPole-v1")).make(training=False) is not env


def test_minatar_whose_reset_was_replaced_is_not_shared() -> None:
    with pytest.raises(UserError, match="would share a BaseEnv"):
        copy_env(MinAtar().make())


def test_describe_gives_the_id_arguments_and_recorded_wrappers() -> None:
    env = gymnasium.wrappers.ClipReward(gymnasium.make("CartPole-v1", max_episode_steps=9), 0.0, 0.5)
    found = describe(UserEnv(env=env))
    assert (found["id"], found["kwargs"]["max_episode_steps"]) == ("CartPole-v1", 9)
    (wrapper,) = found["wrappers"]
    assert wrapper["_target_"].endswith(":ClipReward")
    assert wrapper["max_reward"] == 0.5
    assert describe(UserEnv(env=Gain(env, 1.0))) is None
