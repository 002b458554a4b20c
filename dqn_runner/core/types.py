"""Types of the data that is passed between the parts of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dqn_runner.core.lazy_imports import torch

if TYPE_CHECKING:
    from dqn_runner.core.observation_layout import ObservationLayout

Array = NDArray[Any]
FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Forward = Callable[[Array, FloatArray | None], FloatArray]
"""From observations [n, *obs_shape] and noise [noise_size] to outputs [n, actions * outputs_per_action]."""


@dataclass(frozen=True)
class EnvSpec:
    """Shapes and dtypes of an environment, for networks and replay."""

    obs_shape: tuple[int, ...]
    num_actions: int
    obs_dtype: str = "float32"
    """`float32`, `uint8` (networks divide it by 255) or `bool`."""
    frame_stack: int = 1
    """Number of frames that an observation stacks along its first axis. Successive observations share all
    frames but the newest, so that a replay can store each frame once. 1: observations are not stacks."""
    has_action_mask: bool = False
    """Whether every observation comes with an action mask: bool [num_actions], true for allowed actions."""
    layout: ObservationLayout | None = None
    """Of a Dict observation with several entries, which is packed into bytes: `obs_shape` and `obs_dtype` are
    then those of the bytes. None: observations are arrays."""


class Transition(NamedTuple):
    """A batch of n-step transitions.

    `discount` is gamma**k * (1 - terminated) for a window of k rewards and replaces the usual `done` flag:
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
    mask: torch.Tensor | None = None
    """[*runs, batch, actions] bool: the actions that are allowed at `obs`; None if the env has no masks."""
    next_mask: torch.Tensor | None = None
    """[*runs, batch, actions] bool: those allowed at `next_obs`; all of them in a terminal state."""

    def columns(self) -> list[torch.Tensor]:
        """The columns that there are, in order: all, or those without the masks."""
        return [column for column in self if column is not None]


class Batch(NamedTuple):
    """Transitions drawn from replay."""

    transition: Transition
    indices: IntArray
    """[batch]: slots of the transitions in the replay, for updates of their priorities."""
    weight: torch.Tensor
    """[*runs, batch]: importance weights divided by the batch size. The loss of a batch is the dot product of
    the weights and the per-sample losses."""


class LossOutput(NamedTuple):
    """Per-sample results of a loss, each [batch]; the learner applies the importance weights."""

    loss: torch.Tensor
    priority: torch.Tensor
    """Non-negative size of the error, without gradient, for prioritized replay."""
    q: torch.Tensor
    """Value of the action taken, without gradient, for the logs."""


class QFunction(Protocol):
    """A network with its parameters, as losses call it. With noisy layers, each call uses new noise."""

    def __call__(self, obs: torch.Tensor, taus: torch.Tensor | None = None) -> torch.Tensor:
        """Observations [batch, *obs_shape] to outputs [batch, actions * outputs_per_action].

        For an implicit quantile network, `taus` [batch, n] are the quantile fractions; the outputs are then
        quantiles [batch, actions * n].
        """
        ...

    def sample_taus(self, count: int) -> torch.Tensor:
        """Draw quantile fractions [batch, count], uniform between 0 and 1."""
        ...
