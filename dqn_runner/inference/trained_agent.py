"""A trained agent: chooses actions for observations, without its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.exploration import masked_values
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.observation_layout import ObservationLayout
from dqn_runner.core.rng import stream
from dqn_runner.core.types import Array, BoolArray, FloatArray
from dqn_runner.envs.mixed_observations import batch_size, pack
from dqn_runner.envs.stored_spaces import StoredSpaces

if TYPE_CHECKING:
    from torch import nn


class TrainedAgent:
    """An agent from a checkpoint (`load_agent`).

    Observations are those that the environment of the run returned, with its wrappers: one of shape
    `obs_shape`, or a batch [n, *obs_shape]. Normalisation is part of the agent. An action mask has a 0 or 1
    for each action, [actions] or [n, actions] for a batch.

    Where the environment returned a Dict, `obs_shape` and `obs_dtype` have the entries by name, and an
    observation is a dictionary, of single entries or of batches, nested as that of the environment or by
    these names; keys that the agent does not use are ignored.
    """

    def __init__(
        self, agent: DQNAgent, spaces: StoredSpaces, provenance: Mapping[str, Any], seed: int = 0
    ) -> None:
        """`provenance` says where the agent comes from; `seed` determines the random actions of `predict`."""
        self.provenance = dict(provenance)
        """Run, checkpoint, env step, hash of the configuration, and the best evaluation of the run."""
        self.step: int = self.provenance["step"]
        """Env steps of the run when the checkpoint was written."""
        self.layout = layout = spaces.layout
        """The entries of Dict observations; None for arrays."""
        self.obs_shape = spaces.obs_shape if layout is None else layout.entry_shapes
        self.obs_dtype = spaces.obs_dtype if layout is None else layout.entry_dtypes
        self.num_actions = spaces.actions.num_actions
        self.has_action_mask = spaces.has_action_mask
        """Whether the environment of the run had action masks; `predict` then needs them."""
        self._agent = agent
        self._packed_dtype = spaces.obs_dtype
        self._actions = spaces.actions
        self._to_env = spaces.actions.converter()
        self._rng = stream(seed, "predict")

    def predict(self, obs: Any, deterministic: bool = True, *, action_mask: Any = None) -> Any:
        """The action for an observation, as the environment takes it; an array of actions for a batch.

        With `deterministic=False`, the exploration of the run at env step `step` chooses. Only actions that
        `action_mask` allows are chosen. Raises UserError for observations that the environment cannot have
        returned, and for a missing or impossible mask.
        """
        batch, is_single = self._as_batch(obs)
        if action_mask is None and self.has_action_mask:
            raise UserError(
                "this agent was trained with action masks; give predict(obs, action_mask=...) that of the "
                "observation"
            )
        mask = self._as_masks(action_mask, len(batch), is_single)
        if deterministic:
            numbers = self._agent.greedy(batch, mask)
        else:
            numbers = self._agent.explore(batch, self.step, self._rng, mask)
        actions = [self._to_env(int(number)) for number in numbers]
        return actions[0] if is_single else np.array(actions)

    def q_values(self, obs: Any, *, action_mask: Any = None) -> FloatArray:
        """The values of the actions for an observation [actions], or for a batch [n, actions].

        The columns are in the order of the action space, from its first action. With `action_mask`, the
        values of actions that it does not allow are -inf.
        """
        batch, is_single = self._as_batch(obs)
        values = masked_values(
            self._agent.q_values(batch), self._as_masks(action_mask, len(batch), is_single)
        )
        return values[0] if is_single else values

    def to_module(self) -> nn.Module:
        """A torch module from observations [n, *obs_shape] to action values [n, actions].

        Of Dict observations, it takes a dictionary of the entries by name. It has ordinary parameters, copies
        of those of the agent, and scales or normalises the observations.
        """
        from dqn_runner.inference.module import make_module

        return make_module(self._agent, self._packed_dtype)

    def describe_actions(self) -> dict[str, Any]:
        """How the columns of the values are actions of the environment (`envs.actions.ActionSpace`)."""
        return asdict(self._actions)

    def _as_masks(self, given: Any, n: int, is_single: bool) -> BoolArray | None:
        """Action masks [n, actions]; None if none is given."""
        if given is None:
            return None
        shape = (self.num_actions,) if is_single else (n, self.num_actions)
        try:
            mask = np.asarray(given)
        except Exception:
            mask = np.asarray(None)
        if mask.shape != shape or mask.dtype.kind not in "biuf" or not np.array_equal(mask != 0, mask):
            raise UserError(
                f"action_mask must have the shape {shape} for this observation, and a 0 or 1 for each action"
            )
        if not (mask != 0).any(-1).all():
            raise UserError("action_mask allows no action")
        return (mask != 0).reshape(n, self.num_actions)

    def _as_batch(self, obs: Any) -> tuple[Array, bool]:
        """Observations [n, *obs_shape] in the dtype of the run, and whether `obs` was a single one."""
        if self.layout is not None:
            return _packed_batch(self.layout, obs)
        try:
            given = np.asarray(obs)
        except Exception:
            given = np.asarray(None)
        if given.dtype.kind not in "fiub":
            raise UserError(f"an observation must be an array of numbers, got {type(obs).__name__}")
        is_single = given.shape == self.obs_shape
        if not is_single and given.shape[1:] != self.obs_shape:
            raise UserError(
                f"this agent takes observations of shape {self.obs_shape}, or a batch of them with one more "
                f"axis in front; got {given.shape}"
            )
        if not is_single and not len(given):
            raise UserError("the batch of observations is empty")
        with np.errstate(all="ignore"):
            batch = (given[None] if is_single else given).astype(self._packed_dtype)
        fits = np.isfinite(batch) if batch.dtype.kind == "f" else batch == given
        if not np.all(fits):
            wrong = "numbers that are not finite" if batch.dtype.kind == "f" else "other numbers"
            raise UserError(
                f"this agent takes observations of dtype {self.obs_dtype}; got {wrong} ({given.dtype})"
            )
        return batch, is_single


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
