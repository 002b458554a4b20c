"""A trained agent: chooses actions for observations, without its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.exploration import masked_values
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.rng import as_seed, stream
from dqn_runner.core.types import FloatArray
from dqn_runner.envs.given_observations import as_batch, as_masks
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
        self._spaces = spaces
        self._actions = spaces.actions
        self._to_env = spaces.actions.converter()
        self._rng = stream(as_seed(seed), "predict")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the agent with its random generator, so that another process can use it."""
        return TrainedAgent, (self._agent, self._spaces, self.provenance), {"_rng": self._rng}

    def predict(self, obs: Any, *, deterministic: bool = True, action_mask: Any = None) -> Any:
        """The action for an observation, as the environment takes it; an array of actions for a batch.

        With `deterministic=False`, the exploration of the run at env step `step` chooses. Only actions that
        `action_mask` allows are chosen. Raises UserError for observations that the environment cannot have
        returned, and for a missing or impossible mask.
        """
        batch, is_single = as_batch(self._spaces, obs)
        if action_mask is None and self.has_action_mask:
            raise UserError(
                "this agent was trained with action masks; give predict(obs, action_mask=...) that of the "
                "observation"
            )
        mask = as_masks(self.num_actions, action_mask, len(batch), is_single)
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
        batch, is_single = as_batch(self._spaces, obs)
        mask = as_masks(self.num_actions, action_mask, len(batch), is_single)
        values = masked_values(self._agent.q_values(batch), mask)
        return values[0] if is_single else values

    def to_module(self) -> nn.Module:
        """A torch module from observations [n, *obs_shape] to action values [n, actions].

        Of Dict observations, it takes a dictionary of the entries by name. It has ordinary parameters, copies
        of those of the agent, and scales or normalises the observations.
        """
        from dqn_runner.inference.module import make_module

        return make_module(self._agent, self._spaces.obs_dtype)

    def describe_actions(self) -> dict[str, Any]:
        """How the columns of the values are actions of the environment (`envs.actions.ActionSpace`)."""
        return asdict(self._actions)
