"""The vocabulary that every layer shares: data passed between the parts, and the state protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dqn_runner.core.lazy_imports import torch

Array = NDArray[Any]
FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class EnvSpec:
    """What networks and replay need to know about an environment."""

    obs_shape: tuple[int, ...]
    num_actions: int
    obs_dtype: str = "float32"
    """`float32`, `uint8` (networks divide it by 255) or `bool`."""
    frame_stack: int = 1
    """How many frames an observation shows along its first axis; successive ones share all but the newest,
    so that a replay can keep each frame once. 1 where observations are not stacks."""


class StepResult(NamedTuple):
    """One step of `n` environments; no row is ever a step that a reset swallowed."""

    obs: Array
    """[n, *obs_shape]: what to act on next; the first observation of a new episode after an end."""
    next_obs: Array
    """[n, *obs_shape]: the true successor, taken before any reset."""
    reward: list[float]
    terminated: list[bool]
    truncated: list[bool]
    life_lost: list[bool]
    """Learning counts what follows as worth nothing, though the episode goes on (Mnih et al. 2015)."""


class Transition(NamedTuple):
    """A batch of (n-step) transitions.

    `discount` is gamma**k * (1 - terminated) for a window of k rewards, and replaces any `done` flag:
    a truncated episode still bootstraps from its last observation.
    """

    obs: torch.Tensor
    """[*runs, batch, *obs_shape]"""
    action: torch.Tensor
    """[*runs, batch] int64"""
    reward: torch.Tensor
    """[*runs, batch]: sum of gamma**i * r_i over the window"""
    discount: torch.Tensor
    """[*runs, batch]"""
    next_obs: torch.Tensor
    """[*runs, batch, *obs_shape]"""


class Batch(NamedTuple):
    """Transitions drawn from replay, where they stand, and the share of each in the loss.

    `weight` [*runs, batch] is the importance weight divided by the batch size: the loss is their dot product.
    """

    transition: Transition
    indices: IntArray
    weight: torch.Tensor


class LossOutput(NamedTuple):
    """Per-sample results of a loss, each [batch]; importance weights are applied by the learner."""

    loss: torch.Tensor
    priority: torch.Tensor
    q: torch.Tensor
    """Value of the action taken, for the logs."""


class QFunction(Protocol):
    """A network with its weights. Where its layers are noisy, each call has noise of its own."""

    def __call__(self, obs: torch.Tensor, taus: torch.Tensor | None = None) -> torch.Tensor:
        """Observations [batch, *obs_shape] to outputs [batch, actions * outputs_per_action].

        `taus` [batch, n] are those at which a network of quantiles is asked; it then gives
        [batch, actions * n].
        """
        ...

    def sample_taus(self, count: int) -> torch.Tensor:
        """New random numbers, uniform between 0 and 1, [batch, count]."""
        ...
