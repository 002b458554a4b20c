"""A replay with demonstrations: transitions that are kept, and have a fixed share of each batch."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import RowSnapshot, State
from dqn_runner.core.types import Array, Batch, IntArray, Transition
from dqn_runner.replay.buffer import Replay


class MakeReplay(Protocol):
    """Makes a replay of one environment, for a known number of transitions."""

    def __call__(self, capacity: int, num_frames: int) -> Replay:
        """`num_frames` is the number of different frames, if observations are stacks of them."""
        ...


def reserved(share: float, batch_size: int) -> int:
    """How many transitions of a batch are demonstrations."""
    return round(share * batch_size)


class ReplayWithDemonstrations:
    """The replay of a run, and beside it one of demonstrations that nothing overwrites.

    The share of the demonstrations in a batch is fixed, as in R2D3 (Paine et al. 2020) and RLPD (Ball et al.
    2023). Each of the two has its own priorities, and importance weights relative to its own part of a batch.
    """

    def __init__(self, own: Replay, make_demonstrations: MakeReplay, share: float) -> None:
        """`own` takes the steps of the run; `share` of each batch, from 0 to 1, are demonstrations."""
        self.own = own
        self._make = make_demonstrations
        self._share = share
        self.demonstrations = make_demonstrations(1, 1)

    def reserve(self, transitions: int, num_frames: int) -> Replay:
        """A replay for all demonstrations, to be filled before the first batch is drawn."""
        self.demonstrations = self._make(transitions, num_frames)
        return self.demonstrations

    def __len__(self) -> int:
        """Number of transitions that can be drawn."""
        return len(self.own) + len(self.demonstrations)

    def add(
        self,
        env: int,
        obs: Array,
        action: int,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_obs: Array,
        *masks: Array,
    ) -> None:
        """Store one step of the run."""
        self.own.add(env, obs, action, reward, terminated, truncated, next_obs, *masks)

    def truncate(self, env: int, next_obs: Array, *next_mask: Array) -> None:
        """Truncate the episode of environment `env` of the run."""
        self.own.truncate(env, next_obs, *next_mask)

    def sample(self, batch_size: int, step: int) -> Batch:
        """A batch: transitions of the run first, then demonstrations."""
        own = self._of_own(batch_size)
        parts = [(self.own, own), (self.demonstrations, batch_size - own)]
        drawn = [replay.sample(count, step) for replay, count in parts if count]
        if len(drawn) == 1:
            return drawn[0]
        columns = zip(*(batch.transition.columns() for batch in drawn), strict=True)
        return Batch(
            Transition(*map(torch.cat, columns)),
            np.concatenate([batch.indices for batch in drawn]),
            torch.cat([batch.weight * (len(batch.indices) / batch_size) for batch in drawn]),
        )

    def update(self, indices: IntArray, priority: torch.Tensor) -> None:
        """Set the priorities [batch] of the last batch, drawn at `indices`."""
        own = self._of_own(len(indices))
        if own:
            self.own.update(indices[:own], priority[:own])
        if own < len(indices):
            self.demonstrations.update(indices[own:], priority[own:])

    def state_dict(self) -> State:
        """Both replays."""
        return {**self.own.state_dict(), "demonstrations": self.demonstrations.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore both; raises a UserError if the state was saved with other settings."""
        self.own.load_state_dict({key: value for key, value in state.items() if key != "demonstrations"})
        stored = state["demonstrations"]
        frames: RowSnapshot | None = stored.get("frames")
        num_frames = stored.get("num_frames", 1) if frames is None else frames.stop - frames.start
        try:
            replay = self._make(stored["capacity"], num_frames)
        except MemoryError as error:
            raise DamagedError("the stored demonstrations do not fit into memory") from error
        replay.load_state_dict(stored)
        self.demonstrations = replay

    def _of_own(self, batch_size: int) -> int:
        """How many transitions of a batch are of the run; none before its first one."""
        return batch_size - reserved(self._share, batch_size) if len(self.own) else 0
