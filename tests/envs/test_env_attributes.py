"""Attributes that callbacks set: they are set again before each reset, and nothing shares them."""

from __future__ import annotations

from typing import Any

import gymnasium

from dqn_runner.envs.env_attributes import EnvAttributes


class Drifting(gymnasium.Env[Any, Any]):
    """An environment that changes its own attributes."""

    def __init__(self) -> None:
        self.level = 1
        self.sizes = [1]


def test_an_attribute_that_the_environment_changed_is_set_again() -> None:
    env = Drifting()
    attributes = EnvAttributes(env)
    for _ in range(2):
        attributes.set({"level": 5})
        assert env.level == 5
        env.level += 1
    attributes.set({})
    assert env.level == 1


def test_the_environment_shares_no_list_with_what_is_stored() -> None:
    env, stored = Drifting(), {"sizes": [2]}
    attributes = EnvAttributes(env)
    attributes.set(stored)
    env.sizes.append(3)
    assert stored == {"sizes": [2]}
    attributes.set({})
    assert env.sizes == [1]
