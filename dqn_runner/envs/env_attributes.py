"""Attributes of an environment that callbacks set between episodes, such as its difficulty."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from dqn_runner.core.exceptions import UserError
from dqn_runner.envs.base import Env, env_name
from dqn_runner.envs.env_copy import layers


class EnvAttributes:
    """Sets attributes of an environment or of one of its wrappers, the outermost that has it."""

    def __init__(self, env: Env) -> None:
        """Nothing is set yet."""
        self._env = env
        self._original: dict[str, Any] = {}

    def check(self, attributes: Mapping[str, Any]) -> None:
        """Raise UserError unless the environment has all of them."""
        for name in attributes:
            self._owner(name)

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Set these, and give all others that were set before the values that they had at first.

        The environment gets copies, because it may change an attribute while an episode runs.
        """
        if not attributes and not self._original:
            return
        for name in attributes:
            self._original.setdefault(name, deepcopy(getattr(self._owner(name), name)))
        for name, value in {**self._original, **attributes}.items():
            setattr(self._owner(name), name, deepcopy(value))

    def _owner(self, name: str) -> Any:
        for layer in layers(self._env):
            if hasattr(layer, name):
                return layer
        raise UserError(f"{env_name(self._env)} has no attribute {name!r} to set; set it in its __init__")
