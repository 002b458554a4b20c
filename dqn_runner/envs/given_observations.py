"""Observations and action masks that a user gives to an agent: checked, and in the form of its replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.observation_layout import ObservationLayout
from dqn_runner.core.types import Array, BoolArray, EnvSpec
from dqn_runner.envs.mixed_observations import batch_size, pack
from dqn_runner.envs.stored_spaces import StoredSpaces


def as_batch(spec: EnvSpec | StoredSpaces, obs: Any) -> tuple[Array, bool]:
    """Observations [n, *obs_shape] in the dtype of `spec`, and whether `obs` was a single one.

    Raises UserError for observations that the environment of `spec` cannot have returned.
    """
    if spec.layout is not None:
        return _packed_batch(spec.layout, obs)
    try:
        given = np.asarray(obs)
    except Exception:
        given = np.asarray(None)
    if given.dtype.kind not in "fiub":
        raise UserError(f"an observation must be an array of numbers, got {_kind_of(obs)}")
    is_single = given.shape == spec.obs_shape
    if not is_single and given.shape[1:] != spec.obs_shape:
        raise UserError(
            f"this agent takes observations of shape {spec.obs_shape}, or a batch of them with one more "
            f"axis in front; got {given.shape}"
        )
    if not is_single and not len(given):
        raise UserError("the batch of observations is empty")
    with np.errstate(all="ignore"):
        batch = (given[None] if is_single else given).astype(spec.obs_dtype)
    fits = np.isfinite(batch) if batch.dtype.kind == "f" else batch == given
    if not np.all(fits):
        wrong = "numbers that are not finite" if batch.dtype.kind == "f" else "other numbers"
        raise UserError(
            f"this agent takes observations of dtype {spec.obs_dtype}; got {wrong} ({given.dtype})"
        )
    return batch, is_single


def as_masks(num_actions: int, given: Any, n: int, is_single: bool) -> BoolArray | None:
    """Action masks [n, actions] for n observations; None if none is given.

    Raises UserError for another shape, other numbers than 0 and 1, and a mask that allows no action.
    """
    if given is None:
        return None
    shape = (num_actions,) if is_single else (n, num_actions)
    try:
        mask = np.asarray(given)
    except Exception:
        mask = np.asarray(None)
    if mask.shape != shape or mask.dtype.kind not in "biuf" or not np.array_equal(mask != 0, mask):
        raise UserError(
            f"action_mask must have the shape {shape} for this observation, and a 0 or 1 for each action"
        )
    if not (mask != 0).any(-1).all():
        raise UserError("action_mask allows no action; it must allow at least one at each observation")
    return (mask != 0).reshape(n, num_actions)


def _kind_of(obs: Any) -> str:
    """The type of an observation, with what is wrong with it where that is known."""
    dtype = getattr(obs, "dtype", None)
    kind = type(obs).__name__ if dtype is None else f"{type(obs).__name__} of dtype {dtype}"
    return f"a {kind} that requires a gradient; detach it" if getattr(obs, "requires_grad", False) else kind


def _packed_batch(layout: ObservationLayout, obs: Any) -> tuple[Array, bool]:
    """Packed observations [n, *obs_shape], and whether `obs` was a single one."""
    if isinstance(obs, Mapping) and all(name in obs for name in layout.entry_shapes):
        layout = layout.by_name()
    try:
        size = batch_size(layout, obs)
        if size == 0:
            raise UserError("the batch of observations is empty")
        if size is None:
            return pack(layout, obs)[None], True
        return pack(layout, obs, (size,)), False
    except ValueError as error:
        raise UserError(
            f"this agent takes the entries {', '.join(layout.entry_shapes)}; got an observation {error}"
        ) from None
