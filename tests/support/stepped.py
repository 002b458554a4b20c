"""The result of a step of several environments, by column."""

from __future__ import annotations

from typing import NamedTuple

from dqn_runner.core.types import Array, BoolArray
from dqn_runner.envs.vector_env import VectorEnv


class Stepped(NamedTuple):
    """One step of `n` environments; the arrays are those of the environments, which reuse them."""

    obs: Array
    next_obs: Array
    reward: list[float]
    terminated: list[bool]
    truncated: list[bool]
    life_lost: list[bool]
    next_masks: BoolArray | None


def stepped(envs: VectorEnv, actions: list[int]) -> Stepped:
    """Step all environments."""
    steps = envs.step(actions)
    return Stepped(
        envs.obs,
        envs.buffers.next_obs,
        [step.reward for step in steps],
        [step.terminated for step in steps],
        [step.truncated for step in steps],
        [step.life_lost for step in steps],
        envs.buffers.next_masks,
    )
