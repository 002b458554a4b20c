"""Attributes that callbacks set: they are set again before each reset, and nothing shares them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium

from dqn_runner.envs.env_attributes import EnvAttributes
from dqn_runner.envs.vector_env import VectorEnv


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


def test_a_number_of_another_type_is_another_value() -> None:
    """6 and 6.0 are equal, but an environment may count with one and not with the other."""
    passed: list[Any] = []
    worker = SimpleNamespace(set_attributes=lambda attributes: lambda: passed.append(attributes))
    envs: Any = VectorEnv.__new__(VectorEnv)
    envs.workers, envs._attributes = [worker], {"level": 6}
    for value in (6, 6.0, 6.0, True):
        envs._pass_attributes({"level": value})
    assert [repr(each["level"]) for each in passed] == ["6.0", "True"]
