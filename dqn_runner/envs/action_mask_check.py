"""Checks that an action mask says of each action whether it is allowed, and allows at least one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import BoolArray

KEY = "action_mask"
"""The key of `info` under which environments of gymnasium return their mask."""


class ActionMaskCheck:
    """Returns the mask in an `info` as an array [actions] of bools, which does not share its memory."""

    def __init__(self, env: str, source: str, num_actions: int) -> None:
        """`env` is the name of the environment in messages, `source` the setting `env.action_mask`."""
        self._env, self._source = env, source
        self._shape = (num_actions,)
        self.all_allowed = np.ones(num_actions, bool)
        """The mask of terminal states, which learning does not use."""

    def check(self, info: Mapping[str, Any], method: str) -> BoolArray:
        """The mask of a state that is not terminal, returned by `method`.

        Raises UserError if there is none, if it is not one 0 or 1 for each action, or if all are 0.
        """
        if KEY not in info:
            raise UserError(f"{self._env}: {method}() returned no action mask in {self._place(info)}")
        try:
            mask = np.asarray(info[KEY])
        except Exception:  # such as a list of arrays of different shapes
            raise self._error(method, f"a {type(info[KEY]).__name__}") from None
        if mask.dtype.kind not in "biuf":
            raise self._error(method, f"a {type(info[KEY]).__name__}")
        if mask.shape != self._shape:
            raise self._error(method, f"an array of shape {mask.shape}")
        allowed = mask != 0
        if mask.dtype.kind != "b" and not np.array_equal(allowed, mask):
            wrong = int(np.argmax(allowed != mask))
            raise self._error(method, f"{mask[wrong]} for action {wrong}")
        if not allowed.any():
            raise UserError(
                f"{self._env}: {method}() returned an action mask that allows no action; only a state "
                "returned with terminated=True can have none"
            )
        return allowed

    def _place(self, info: Mapping[str, Any]) -> str:
        if self._source != "info":
            return f"the entry {self._source} of its observation, which env.action_mask names"
        keys = ", ".join(map(str, info)) or "nothing"
        return f"info['{KEY}'], which env.action_mask=info needs; info has {keys}"

    def _error(self, method: str, found: str) -> UserError:
        return UserError(
            f"{self._env}: {method}() returned {found} as action mask; it must be {self._shape[0]} numbers "
            "0 or 1, one for each action"
        )
