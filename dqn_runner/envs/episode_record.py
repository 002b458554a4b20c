"""What is remembered of an episode, to restore its environment and to verify that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from dqn_runner.core.state import State
from dqn_runner.core.types import Array, BoolArray, EnvSpec
from dqn_runner.envs.generators import Used


class Replayed(NamedTuple):
    """An episode that was repeated from its seed and actions."""

    obs: Array
    """[*obs_shape]: its last observation."""
    mask: BoolArray | None
    """[actions]: the action mask of it; None without masks."""
    rewards: list[float]
    """The rewards of the steps that could be repeated."""
    checksums: list[int]
    """Checksums of the first observation and of those after each step, with their action masks."""
    ended: bool
    """Whether the episode ended in the last of these steps."""
    moved: tuple[str, ...]
    """Global generators that it used without having an own state of them."""


class TruncatedEpisode(NamedTuple):
    """An open episode of a checkpoint that could not be restored and was truncated instead."""

    env: int
    """Index of the environment."""
    obs: Array
    """[*obs_shape]: its last observation, from the checkpoint."""
    mask: BoolArray | None
    """[actions]: the action mask of it; None without masks."""
    reason: str
    """Why it could not be restored."""


@dataclass
class EpisodeRecord:
    """The actions of an episode, and what the environment answered."""

    number: int
    """Episodes of this environment before it."""
    used: Used = None
    """Global generators of which the episode has an own state; None: of all."""
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    """Attributes that were set before its reset."""
    actions: list[int] = field(default_factory=list[int])
    rewards: list[float] = field(default_factory=list[float])
    checksums: list[int] = field(default_factory=list[int])
    """CRC32 of the first observation and of those after each step, with their action masks; started with 1 if
    a life was lost."""

    @classmethod
    def from_state(cls, state: State) -> EpisodeRecord:
        """The episode that `state_dict` described."""
        used = state["generators"]
        columns: list[Any] = [
            np.asarray(state[name]).tolist() for name in ("actions", "rewards", "checksums")
        ]
        return cls(
            state["number"], None if used is None else tuple(used), dict(state["attributes"]), *columns
        )

    def state_dict(self) -> State:
        """All of it, as plain values and arrays."""
        return {
            "number": self.number,
            "generators": None if self.used is None else list(self.used),
            "attributes": dict(self.attributes),
            "actions": np.array(self.actions, np.int64),
            "rewards": np.array(self.rewards, np.float64),
            "checksums": np.array(self.checksums, np.int64),
        }

    def add(self, action: int, reward: float, checksum: int) -> None:
        """Add a step."""
        self.actions.append(action)
        self.rewards.append(reward)
        self.checksums.append(checksum)

    def difference(self, now: Replayed, obs: Array | None, ends: bool | None) -> str | None:
        """The first difference between this episode and its repetition.

        `obs` is its last observation, `ends` whether the environment ended it in its last step; or None.
        """
        total = len(self.actions)
        for step, (one, two) in enumerate(zip(now.checksums, self.checksums, strict=False)):
            if step and now.rewards[step - 1] != self.rewards[step - 1]:
                return (
                    f"the reward of step {step} is {now.rewards[step - 1]}, it was {self.rewards[step - 1]}"
                )
            if one != two:
                where = f"after step {step}" if step else "of the reset"
                detail = _first_difference(now.obs, obs) if obs is not None and step == total else ""
                what = "observation" if now.mask is None else "observation or its action mask"
                return f"the {what} {where} differs{detail}"
        if now.ended and (ends is False or len(now.rewards) < total):
            return f"it ended in step {len(now.rewards)}"
        return f"it did not end in step {total}" if ends and not now.ended else None


def checked_part(spec: EnvSpec, row: Array) -> Any:
    """The part of an observation [*obs_shape] that its checksum covers: of a frame stack, the newest frame.

    The older frames were the newest ones of earlier steps.
    """
    return row[-1:] if spec.frame_stack > 1 else row


def _first_difference(now: Array, saved: Array) -> str:
    if np.array_equal(now, saved):
        return ""  # of the rest of the step, such as a lost life or the action mask
    where = np.unravel_index(int(np.argmax(now != saved)), now.shape)
    return f": element {tuple(int(i) for i in where)} is {now[where]}, it was {saved[where]}"
