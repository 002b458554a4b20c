"""Where transitions lie: with their observations, or with the numbers of frames that are kept once."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from dqn_runner.checkpointing import segments
from dqn_runner.core.state import State
from dqn_runner.core.types import Array, EnvSpec, IntArray
from dqn_runner.replay import frame_store
from dqn_runner.replay.frame_store import FrameStore
from dqn_runner.replay.n_step import NStepTransition
from dqn_runner.replay.ring_buffer import Layout, RingBuffer, row_bytes


class Storage(Protocol):
    """Keeps the newest transitions."""

    ring: RingBuffer
    """Which rows are alive, and in which slots they stand."""

    def encode(self, env: int, obs: Array) -> Array:
        """What windows and `append` take in the place of an observation of environment `env`."""
        ...

    def append(self, window: NStepTransition) -> None:
        """A new transition, of encoded observations; arrays are copied."""
        ...

    def take(self, slots: IntArray) -> dict[str, Array]:
        """Copies of the transitions in `slots`, by column."""
        ...

    def state_dict(self) -> State:
        """Everything that is kept."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`."""
        ...


def make_storage(capacity: int, spec: EnvSpec, num_envs: int, n_step: int) -> Storage:
    """An empty storage for transitions of `spec`."""
    if spec.frame_stack == 1:
        return TransitionStorage(capacity, spec)
    return FrameStackStorage(capacity, spec, num_envs, n_step)


class Saved(NamedTuple):
    """Bytes that a full replay takes on the disk."""

    shared: int
    """In segments, which checkpoints share."""
    own: int
    """In each checkpoint, at most: what changes everywhere, and the rows that fill no segment yet."""


def num_bytes(capacity: int, spec: EnvSpec) -> int:
    """Memory that a full storage takes, for one environment and single steps."""
    return saved(capacity, spec).shared


def saved(capacity: int, spec: EnvSpec) -> Saved:
    """What a full storage takes on the disk, for one environment and single steps."""
    rings = [(capacity, row_bytes(_layout(spec.obs_shape, spec.obs_dtype)))]
    if spec.frame_stack > 1:
        num_frames = _num_frames(capacity, _reach(spec, 1, 1))
        rings = [
            (capacity, row_bytes(_numbered_layout(spec))),
            (num_frames, row_bytes(frame_store.layout(spec))),
        ]
    return Saved(
        sum(rows * size for rows, size in rings),
        sum(min(rows, segments.rows_per_segment(size)) * size for rows, size in rings),
    )


class TransitionStorage:
    """Each transition with both of its observations."""

    def __init__(self, capacity: int, spec: EnvSpec) -> None:
        """Nothing is kept yet."""
        self.ring = RingBuffer(capacity, _layout(spec.obs_shape, spec.obs_dtype))

    def encode(self, env: int, obs: Array) -> Array:
        """The observation itself."""
        return obs

    def append(self, window: NStepTransition) -> None:
        """A new transition; arrays are copied."""
        self.ring.append(*window)

    def take(self, slots: IntArray) -> dict[str, Array]:
        """Copies of the transitions in `slots`, by column."""
        return self.ring.take(slots)

    def state_dict(self) -> State:
        """The transitions."""
        return {"rows": self.ring.rows()}

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`."""
        self.ring.load(state["rows"])


class FrameStackStorage:
    """Each frame once, and transitions that name the frames of their observations.

    A transition is forgotten before a frame that it may show is overwritten. Where episodes are so short
    that there are many more frames than transitions, fewer than `capacity` are therefore remembered.
    """

    def __init__(self, capacity: int, spec: EnvSpec, num_envs: int, n_step: int) -> None:
        """Nothing is kept yet."""
        self.ring = RingBuffer(capacity, _numbered_layout(spec))
        self._reach = _reach(spec, num_envs, n_step)
        self._frames = FrameStore(_num_frames(capacity, self._reach), spec, num_envs)

    def encode(self, env: int, obs: Array) -> Array:
        """The numbers [k] of the frames of an observation; the frames that are new are kept."""
        numbers = self._frames.encode(env, obs)
        self._forget()
        return numbers

    def append(self, window: NStepTransition) -> None:
        """A new transition between frame numbers.

        It is forgotten at once if it is older than any window gets while environments take turns: its
        frames may be gone.
        """
        newest = self._frames.ring.stop
        if min(window.obs.min(), window.next_obs.min()) >= newest - self._reach:
            self.ring.append(*window, newest)

    def take(self, slots: IntArray) -> dict[str, Array]:
        """Copies of the transitions in `slots`, by column, with their observations."""
        columns = self.ring.take(slots)
        del columns["num_frames"]
        for name in ("obs", "next_obs"):
            columns[name] = self._frames.decode(columns[name])
        return columns

    def state_dict(self) -> State:
        """The transitions, and the frames once."""
        return {"rows": self.ring.rows(), **self._frames.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`."""
        self.ring.load(state["rows"])
        self._frames.load_state_dict(state)

    def _forget(self) -> None:
        """Give up the transitions that may show a frame that was overwritten."""
        ring, limit = self.ring, self._frames.ring.start + self._reach
        num_frames = ring.columns["num_frames"]
        while ring.start < ring.stop and num_frames[ring.start % ring.capacity] < limit:
            ring.start += 1


def _layout(obs_shape: tuple[int, ...], obs_dtype: str) -> Layout:
    """The columns of transitions."""
    return {
        "obs": (obs_shape, obs_dtype),
        "action": ((), "int64"),
        "reward": ((), "float32"),
        "discount": ((), "float32"),
        "next_obs": (obs_shape, obs_dtype),
    }


def _numbered_layout(spec: EnvSpec) -> Layout:
    """TransitionStorage between frame numbers, and how many frames had been seen when each was written."""
    return {**_layout((spec.frame_stack,), "int64"), "num_frames": ((), "int64")}


def _reach(spec: EnvSpec, num_envs: int, n_step: int) -> int:
    """How many frames before the newest a transition may begin when it is written.

    An observation may lean on one step's frames of all environments, and its window then stays open for
    `n_step` turns; a step shows two stacks.
    """
    return 2 * spec.frame_stack * num_envs * (n_step + 1)


def _num_frames(capacity: int, reach: int) -> int:
    """Room for a frame per transition, and a few percent for those of resets and of open windows."""
    return capacity + max(capacity // 32, 2 * reach)
