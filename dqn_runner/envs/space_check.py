"""The check of observations that a wrapper converts, before the check of the environment sees them."""

from __future__ import annotations

from typing import Any

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.observation_layout import Entry
from dqn_runner.envs.mixed_observations import entry_of, find, leaves_of


class SpaceCheck:
    """Raises UserError for an observation that is not one of a space.

    The functions of gymnasium that flatten and stack observations cast them to the dtype of the space:
    fractions become 0, 300 becomes 44, and the category -1 the last one. Floats may be outside of their
    bounds, as everywhere.
    """

    def __init__(self, env: str, space: Any) -> None:
        """`env` is the name of the environment in messages."""
        self._env = env
        self._leaves = [(path, leaf, entry_of(path, leaf)) for path, leaf in leaves_of(space, ())]

    def __call__(self, obs: Any) -> Any:
        """Return the observation itself."""
        try:
            for path, space, entry in self._leaves:
                value = find(path, obs)
                try:
                    _check_value(space, entry, value)
                except ValueError as error:
                    where = f"whose entry {'.'.join(map(str, path))!r} has" if path else "with"
                    raise ValueError(f"{where} {error}") from None
        except ValueError as error:
            raise UserError(
                f"{self._env} returned an observation {error}; it must fit observation_space"
            ) from None
        return obs


def _check_value(space: Any, entry: Entry | None, value: Any) -> None:
    """Raise ValueError, which says what is wrong, for a value that is not one of the space."""
    if entry is None:  # a text, for example
        if not _contains(space, value):
            raise ValueError(f"{value!r:.40}, which is not in {space}")
        return
    entry.stored(value, ())
    if not entry.sizes and np.dtype(space.dtype).kind in "iu":
        array = np.asarray(value)
        with np.errstate(all="ignore"):
            wrong = array.astype(space.dtype) != array
        if np.any(wrong):
            raise ValueError(f"{array[wrong].flat[0]}, which {space.dtype} cannot hold")


def _contains(space: Any, value: Any) -> bool:
    try:
        return bool(space.contains(value))
    except Exception:  # spaces expect values of some type
        return False
