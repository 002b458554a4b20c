"""`env.wrappers` and ids of environments: each mistake is one line that says what to write."""

from __future__ import annotations

from typing import Any

import gymnasium
import pytest

from dqn_runner.core.exceptions import UserError
from dqn_runner.envs import env_ids
from dqn_runner.envs.gym import GymEnv
from dqn_runner.envs.wrappers import observations
from dqn_runner.envs.wrapping import stateful_wrappers

TIME_LIMIT = "gymnasium.wrappers.TimeLimit"


def test_wrapper_gets_its_arguments() -> None:
    env = GymEnv(wrappers=[{"_target_": TIME_LIMIT, "max_episode_steps": 2}]).make()
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(2)] == [False, True]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (TIME_LIMIT, r"missing a required argument: 'max_episode_steps'; .* max_episode_steps: \.\.\.\}\]"),
        ({"_target_": TIME_LIMIT, "steps": 2}, "unexpected keyword argument 'steps'; its arguments are max_"),
        ({"_target_": TIME_LIMIT, "max_episode_steps": -1}, "TimeLimit raised ValueError"),
        ({"max_episode_steps": 2}, r"takes import paths, or mappings with _target_ and arguments"),
        (3, "takes import paths"),
        ("gymnasium.wrappers.Nothing", "cannot be imported"),
        ("math.pi", "math.pi is a float, not a wrapper"),
        ("os.getcwd", "does not take an environment"),
        ("builtins.str", "returned a str, not an environment"),
        ("gymnasium.envs.classic_control.CartPoleEnv", "is an environment, not a wrapper"),
        ("gymnasium.wrappers.vector.NormalizeReward", r"gymnasium\.wrappers\.NormalizeReward wraps a single"),
    ],
)
def test_wrapper_that_cannot_be_used_is_rejected(entry: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GymEnv(wrappers=[entry]).make()


def test_wrappers_with_statistics_are_found() -> None:
    env = gymnasium.wrappers.NormalizeReward(gymnasium.wrappers.NormalizeObservation(GymEnv().make()))
    assert stateful_wrappers(env) == ["NormalizeReward", "NormalizeObservation"]
    assert stateful_wrappers(GymEnv(frame_stack=2).make()) == []


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("CartPol", r"did you mean CartPole-v1\?"),
        ("cartpole-v1", r"did you mean CartPole-v1\?"),
        ("CartPole-v9", r"did you mean CartPole-v1\?"),
        ("Xyzzy", "one of your own is env.id=my_pkg.my_envs:MyEnv"),
        ("ALE/Pong-v5", r"env=atari env\.game=Pong, which needs 'dqn_runner\[atari\]'"),
        ("MinAtar/SpaceInvaders-v1", r"env=minatar env\.game=space_invaders"),
    ],
)
def test_unknown_id_is_answered_with_what_to_write(
    env_id: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {k: v for k, v in gymnasium.registry.items() if "/" not in k}
    monkeypatch.setattr(gymnasium.envs.registration, "registry", known)
    monkeypatch.setattr(gymnasium, "registry", known)
    with pytest.raises(UserError, match=message):
        GymEnv(id=env_id).make()


def test_id_without_a_version_is_that_of_the_newest() -> None:
    assert env_ids.resolve("CartPole") == "CartPole-v1"
    assert env_ids.resolve("CartPole-v0") == "CartPole-v0"
    assert env_ids.resolve("Nothing") == "Nothing"


class MissionSpace(gymnasium.spaces.Space[str]):
    """A space that another package defines, as in MiniGrid."""


def test_entries_that_cannot_be_flattened_are_named_with_those_that_can() -> None:
    env: Any = gymnasium.Wrapper(GymEnv().make())
    box, mission = env.observation_space, MissionSpace()
    env.observation_space = gymnasium.spaces.Dict({"image": box, "mission": mission})
    for change in (observations.flatten, lambda e: observations.select_entries(e, ["image", "mission"])):
        with pytest.raises(UserError, match=r"mission \(MissionSpace\) .*; use env.*=\[image\]"):
            change(env)
