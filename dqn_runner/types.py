"""The vocabulary that every layer shares: data passed between the parts, and the state protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dqn_runner.lazy import torch

Array = NDArray[Any]
FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
State = dict[str, Any]
"""What `state_dict` returns: nested dicts and lists of plain values, numpy arrays, tensors and Rows."""


class UserError(Exception):
    """Something the user can put right; the message says what was wrong and what to do."""


class DamagedError(UserError):
    """A stored file is not what was written; an older one may do."""


class NoRoomError(UserError):
    """The disk does not take what a run has to keep; once there is room, the same command goes on."""


class DivergedError(Exception):
    """Learning gave infinite or undefined numbers; the message is a diagnosis."""


class PrunedError(Exception):
    """A sweep stopped the run, which ended in good order; the message says where and by what."""


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

    def __call__(self, obs: torch.Tensor, fractions: torch.Tensor | None = None) -> torch.Tensor:
        """Observations [batch, *obs_shape] to outputs [batch, actions * width].

        `fractions` [batch, n] are those at which a network of quantiles is asked; it then gives
        [batch, actions * n].
        """
        ...

    def fractions(self, count: int) -> torch.Tensor:
        """New random numbers, uniform between 0 and 1, [batch, count]."""
        ...


@dataclass(frozen=True)
class Rows:
    """Numbered rows that never change once they are written: how a growing memory is part of a state.

    Whoever keeps states can then keep each row once, however many states hold it.
    """

    start: int
    """Number of the oldest row still held."""
    stop: int
    """Number that the next row will get."""
    row_bytes: int
    read: Callable[[int, int], dict[str, Array]]
    """Columns of the rows [start, stop), copied."""

    def all(self) -> dict[str, Array]:
        """Columns of all rows, oldest first."""
        return self.read(self.start, self.stop)


@dataclass(frozen=True)
class Record:
    """One line of the run's history, handed to every logger."""

    kind: str
    """`episode`, `train` or `eval`."""
    step: int
    episode: int
    values: Mapping[str, float]
    """Metric keys are `train/…`, `eval/…` or `time/…`; only `time/` may differ between equal runs."""


@dataclass(frozen=True)
class RunInfo:
    """What a logger may want to know about the run that opens it."""

    name: str
    config: Mapping[str, Any]
    unit: str
    """`episodes` or `steps`: what `total` counts."""
    total: int | None
    group: str | None = None
    """Runs of one sweep share it."""


class Stateful(Protocol):
    """Whoever mutates can hand out its state and take it back."""

    def state_dict(self) -> State:
        """Everything needed to go on from here."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`; raises if it does not fit."""
        ...


def crossed(previous: int, now: int, every: int) -> bool:
    """Whether counting from `previous` to `now` passed a multiple of `every`."""
    return now // every > previous // every
