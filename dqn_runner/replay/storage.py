"""Storage of transitions: with complete observations, or with each frame of stacked observations once."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dqn_runner.checkpointing import segments
from dqn_runner.core.exceptions import DamagedError
from dqn_runner.core.state import State
from dqn_runner.core.types import Array, EnvSpec, IntArray
from dqn_runner.replay import frame_store, mask_columns
from dqn_runner.replay.frame_store import FrameStore
from dqn_runner.replay.n_step import NStepTransition
from dqn_runner.replay.ring_buffer import Layout, RingBuffer, row_bytes


class Storage(Protocol):
    """Stores the newest transitions."""

    ring: RingBuffer
    """One row for each transition; samplers draw its slots."""

    def encode(self, env: int, obs: Array) -> Array:
        """The form in which an observation of environment `env` is kept in windows and transitions."""
        ...

    def append(self, transition: NStepTransition) -> None:
        """Add a transition between encoded observations; arrays are copied."""
        ...

    def take(self, slots: IntArray) -> dict[str, Array]:
        """Copies of the transitions in `slots`, by column, with decoded observations."""
        ...

    def state_dict(self) -> State:
        """All stored data."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Restore the stored data; raises a UserError if observations have another shape or dtype."""
        ...


def make_storage(
    capacity: int, spec: EnvSpec, num_envs: int, n_step: int, num_frames: int | None = None
) -> Storage:
    """Create an empty storage for transitions of `spec`, of known number if `num_frames` is given."""
    if spec.frame_stack == 1:
        return TransitionStorage(capacity, spec)
    return FrameStackStorage(capacity, spec, num_envs, n_step, num_frames)


class DiskUsage(NamedTuple):
    """Size of a full replay in checkpoints, in bytes."""

    shared: int
    """Size of the segments, which all checkpoints share."""
    per_checkpoint: int
    """Largest size of what every checkpoint contains itself: mutable data, and rows that do not yet fill a
    segment."""


def num_bytes(capacity: int, spec: EnvSpec) -> int:
    """Memory of a full storage in bytes, for one environment and 1-step transitions."""
    return disk_usage(capacity, spec).shared


def disk_usage(capacity: int, spec: EnvSpec) -> DiskUsage:
    """Size of a full storage in checkpoints, for one environment and 1-step transitions."""
    rings = [(capacity, row_bytes(_observation_layout(spec)))]
    if spec.frame_stack > 1:
        num_frames = _num_frames(capacity, _max_frame_age(spec, 1, 1))
        rings = [
            (capacity, row_bytes(_frame_number_layout(spec))),
            (num_frames, row_bytes(frame_store.layout(spec))),
        ]
    return DiskUsage(
        shared=sum(rows * size for rows, size in rings),
        per_checkpoint=sum(min(rows, segments.rows_per_segment(size)) * size for rows, size in rings),
    )


class TransitionStorage:
    """Stores every transition with both of its observations."""

    def __init__(self, capacity: int, spec: EnvSpec) -> None:
        """Create an empty storage for `capacity` transitions."""
        self.ring = RingBuffer(capacity, _observation_layout(spec))
        self._num_actions = spec.num_actions

    def encode(self, env: int, obs: Array) -> Array:
        """The observation itself."""
        return obs

    def append(self, transition: NStepTransition) -> None:
        """Add a transition; arrays are copied."""
        obs, action, reward, discount, next_obs, masks = transition
        packed = mask_columns.pack(masks) if masks else ()
        self.ring.append(obs, action, reward, discount, next_obs, *packed)

    def take(self, slots: IntArray) -> dict[str, Array]:
        """Copies of the transitions in `slots`, by column."""
        columns = self.ring.take(slots)
        mask_columns.unpack(columns, self._num_actions)
        return columns

    def state_dict(self) -> State:
        """The transitions."""
        return {"rows": self.ring.snapshot()}

    def load_state_dict(self, state: State) -> None:
        """Restore the transitions; raises DamagedError if they cannot be those of such an environment."""
        self.ring.load(state["rows"])
        _check_rows(self.ring, self._num_actions)


class FrameStackStorage:
    """Stores every frame once, and transitions that refer to the frames of their observations by number.

    A transition is dropped before one of its frames is overwritten. If episodes are so short that there are
    many more frames than transitions, the storage therefore keeps fewer than `capacity` transitions.
    """

    def __init__(
        self, capacity: int, spec: EnvSpec, num_envs: int, n_step: int, num_frames: int | None = None
    ) -> None:
        """Create an empty storage for `capacity` transitions.

        `num_frames` is the number of different frames that all transitions together have, if it is known:
        no frame is overwritten then, and no transition is dropped.
        """
        self.ring = RingBuffer(capacity, _frame_number_layout(spec))
        self._num_actions = spec.num_actions
        self._max_frame_age = _max_frame_age(spec, num_envs, n_step)
        self._keeps_all = num_frames is not None
        frames = _num_frames(capacity, self._max_frame_age) if num_frames is None else num_frames
        self._frames = FrameStore(frames, spec, num_envs)

    def encode(self, env: int, obs: Array) -> Array:
        """The numbers [k] of the frames of an observation [k, ...]; new frames are stored."""
        numbers = self._frames.encode(env, obs)
        if not self._keeps_all:
            self._drop_transitions_without_frames()
        return numbers

    def append(self, transition: NStepTransition) -> None:
        """Add a transition between frame numbers.

        It is ignored if its frames are older than those of any window while environments take turns: they
        may have been overwritten.
        """
        num_frames = self._frames.ring.stop
        if min(transition.obs.min(), transition.next_obs.min()) >= num_frames - self._max_frame_age:
            self.ring.append(*transition[:-1], num_frames, *mask_columns.pack(transition.masks))

    def take(self, slots: IntArray) -> dict[str, Array]:
        """Copies of the transitions in `slots`, by column, with decoded observations."""
        columns = self.ring.take(slots)
        del columns["num_frames"]
        mask_columns.unpack(columns, self._num_actions)
        for name in ("obs", "next_obs"):
            columns[name] = self._frames.decode(columns[name])
        return columns

    def state_dict(self) -> State:
        """The transitions and the frames."""
        return {"rows": self.ring.snapshot(), **self._frames.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Restore the transitions and the frames; raises DamagedError if they do not belong together."""
        self.ring.load(state["rows"])
        _check_rows(self.ring, self._num_actions)
        self._frames.load_state_dict(state)
        _check_frame_numbers(self.ring, self._frames.ring)

    def _drop_transitions_without_frames(self) -> None:
        """Drop the oldest transitions if one of their frames may have been overwritten."""
        ring, limit = self.ring, self._frames.ring.start + self._max_frame_age
        num_frames = ring.columns["num_frames"]
        while ring.start < ring.stop and num_frames[ring.start % ring.capacity] < limit:
            ring.start += 1


def _check_rows(ring: RingBuffer, num_actions: int) -> None:
    for part in ring.slices(ring.start, ring.stop):
        action, discount = ring.columns["action"][part], ring.columns["discount"][part]
        if action.min() < 0 or action.max() >= num_actions:
            raise DamagedError(f"the stored replay has an action that is not one of the {num_actions}")
        if not (discount.min() >= 0 and discount.max() <= 1):
            raise DamagedError("the stored replay has a discount that is not between 0 and 1")
        mask_columns.check(ring, part, num_actions)


def _check_frame_numbers(ring: RingBuffer, frames: RingBuffer) -> None:
    for part in ring.slices(ring.start, ring.stop):
        for numbers in (ring.columns["obs"][part], ring.columns["next_obs"][part]):
            if numbers.min() < frames.start or numbers.max() >= frames.stop:
                raise DamagedError("the stored replay refers to frames that it does not hold")


def _layout(obs_shape: tuple[int, ...], obs_dtype: str) -> Layout:
    """The columns of transitions."""
    return {
        "obs": (obs_shape, obs_dtype),
        "action": ((), "int64"),
        "reward": ((), "float32"),
        "discount": ((), "float32"),
        "next_obs": (obs_shape, obs_dtype),
    }


def _observation_layout(spec: EnvSpec) -> Layout:
    """The columns of transitions between whole observations."""
    return {**_layout(spec.obs_shape, spec.obs_dtype), **mask_columns.layout(spec)}


def _frame_number_layout(spec: EnvSpec) -> Layout:
    """The columns of transitions between frame numbers, and how many frames existed when each was added."""
    columns = _layout((spec.frame_stack,), "int64")
    return {**columns, "num_frames": ((), "int64"), **mask_columns.layout(spec)}


def _max_frame_age(spec: EnvSpec, num_envs: int, n_step: int) -> int:
    """The age of the oldest frame that a new transition may use, in frames, while environments take turns.

    A step adds up to two stacks of frames. A stack may reuse frames that are one turn of all environments
    old, and its window then stays open for `n_step` turns.
    """
    return 2 * spec.frame_stack * num_envs * (n_step + 1)


def _num_frames(capacity: int, max_frame_age: int) -> int:
    """Capacity for frames: one per transition, and a few percent for resets and unfinished windows."""
    return capacity + max(capacity // 32, 2 * max_frame_age)
