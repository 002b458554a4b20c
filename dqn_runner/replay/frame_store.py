"""Stores every frame of stacked observations once; an observation becomes the numbers of its frames."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.core.state import State
from dqn_runner.core.types import Array, EnvSpec, IntArray
from dqn_runner.replay.ring_buffer import Layout, RingBuffer


class FrameStore:
    """The frames of stacked observations in a ring buffer, numbered in the order of their first appearance.

    A frame is recognised by its content, compared with the previous stack of the same environment. Frame
    numbers therefore decode to exactly the observation that was encoded, with any wrappers and resets, and
    a stack contains frames of two episodes only if the environment's observation does.
    """

    def __init__(self, capacity: int, spec: EnvSpec, num_envs: int) -> None:
        """Create an empty store for `capacity` frames."""
        self.ring = RingBuffer(capacity, layout(spec))
        self.max_reuse_age = 2 * spec.frame_stack * num_envs
        """Only this many of the newest frames are recognised, so that no observation needs older ones."""
        self._last_stacks: list[dict[bytes, int]] = [{} for _ in range(num_envs)]
        """For each environment the frame numbers of its last stack, by content."""

    def encode(self, env: int, stack: Array) -> IntArray:
        """The numbers [k] of the frames [k, ...] of an observation of `env`; new frames are copied."""
        oldest = self._oldest_reusable()
        last, current = self._last_stacks[env], dict[bytes, int]()
        numbers = np.empty(len(stack), np.int64)
        for place, frame in enumerate(stack):
            content = frame.tobytes()
            number = current.get(content, last.get(content, -1))
            if number < oldest:
                number = self.ring.stop
                self.ring.append(frame)
            numbers[place] = current[content] = number
        self._last_stacks[env] = current
        return numbers

    def decode(self, numbers: IntArray) -> Array:
        """The observations [n, k, ...] with the frame numbers [n, k]."""
        return self.ring.columns["frame"].take(numbers % self.ring.capacity, axis=0)

    def state_dict(self) -> State:
        """The frames, and the frame numbers of each environment's last stack."""
        oldest = self._oldest_reusable()
        last = [[number for number in stack.values() if number >= oldest] for stack in self._last_stacks]
        return {"frames": self.ring.snapshot(), "last_stacks": last}

    def load_state_dict(self, state: State) -> None:
        """Restore the frames; raises a UserError if frames have another shape or dtype."""
        self.ring.load(state["frames"])
        stacks = state["last_stacks"]
        if len(stacks) != len(self._last_stacks) or any(
            not self.ring.start <= number < self.ring.stop for numbers in stacks for number in numbers
        ):
            raise DamagedError("the stored replay refers to frames that it does not hold")
        capacity, frames = self.ring.capacity, self.ring.columns["frame"]
        self._last_stacks = [
            {frames[n % capacity].tobytes(): n for n in numbers} for numbers in state["last_stacks"]
        ]

    def _oldest_reusable(self) -> int:
        return max(0, self.ring.stop - self.max_reuse_age)


def count_frames(stacks: Iterable[Array], spec: EnvSpec) -> int:
    """How many frames a store keeps of these observations of one environment."""
    store = FrameStore(4 * spec.frame_stack, spec, 1)
    for stack in stacks:
        store.encode(0, stack)
    return store.ring.stop


def layout(spec: EnvSpec) -> Layout:
    """The column of a ring buffer of single frames."""
    return {"frame": (spec.obs_shape[1:], spec.obs_dtype)}
