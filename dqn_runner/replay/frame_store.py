"""Frames kept once: observations that are stacks of frames, as the numbers of their frames."""

from __future__ import annotations

import numpy as np

from dqn_runner.core.state import State
from dqn_runner.core.types import Array, EnvSpec, IntArray
from dqn_runner.replay.ring_buffer import Layout, RingBuffer


class FrameStore:
    """The frames of stacked observations in a ring, numbered in the order in which they were first seen.

    A frame is recognised by its content among those of the last stack of the same environment. So the
    numbers stand for exactly what was observed, whatever wrappers and resets do, and no stack reaches
    across an episode's edge unless the environment shows it.
    """

    def __init__(self, capacity: int, spec: EnvSpec, num_envs: int) -> None:
        """No frame is held yet."""
        self.ring = RingBuffer(capacity, layout(spec))
        self.memory = 2 * spec.frame_stack * num_envs
        """A frame is recognised only among so many of the newest: no observation leans on older ones."""
        self._last: list[dict[bytes, int]] = [{} for _ in range(num_envs)]
        """The frames of each environment's last stack, by content."""

    def encode(self, env: int, stack: Array) -> IntArray:
        """The numbers [k] of the frames [k, ...] that environment `env` shows; new frames are copied."""
        oldest = self._oldest_recognised()
        last, found = self._last[env], dict[bytes, int]()
        numbers = np.empty(len(stack), np.int64)
        for place, frame in enumerate(stack):
            content = frame.tobytes()
            number = found.get(content, last.get(content, -1))
            if number < oldest:
                number = self.ring.stop
                self.ring.append(frame)
            numbers[place] = found[content] = number
        self._last[env] = found
        return numbers

    def decode(self, numbers: IntArray) -> Array:
        """The observations [n, k, ...] of frame numbers [n, k]."""
        return self.ring.columns["frame"].take(numbers % self.ring.capacity, axis=0)

    def state_dict(self) -> State:
        """The frames, and which of them each environment showed last."""
        oldest = self._oldest_recognised()
        last = [[number for number in known.values() if number >= oldest] for known in self._last]
        return {"frames": self.ring.rows(), "stacks": last}

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`."""
        self.ring.load(state["frames"])
        capacity, frames = self.ring.capacity, self.ring.columns["frame"]
        self._last = [{frames[n % capacity].tobytes(): n for n in numbers} for numbers in state["stacks"]]

    def _oldest_recognised(self) -> int:
        return max(0, self.ring.stop - self.memory)


def layout(spec: EnvSpec) -> Layout:
    """The columns of a ring of single frames."""
    return {"frame": (spec.obs_shape[1:], spec.obs_dtype)}
