"""The arrays of several environments that every step fills again."""

from __future__ import annotations

from zlib import crc32

import numpy as np

from dqn_runner.core.types import Array, BoolArray, EnvSpec
from dqn_runner.envs.episode_record import checked_part
from dqn_runner.envs.worker import EnvStep


class StepBuffers:
    """Observations of `n` environments before and after a step, and their action masks if they have any.

    What a step was chosen from is valid until the next step: two arrays take turns.
    """

    def __init__(self, num_envs: int, spec: EnvSpec) -> None:
        """Allocate the arrays."""
        self._spec = spec
        shape, dtype = (num_envs, *spec.obs_shape), spec.obs_dtype
        self.obs: Array = np.zeros(shape, dtype)
        """[n, *obs_shape]: the observations to act on; after the end of an episode that of the reset."""
        self._spare: Array = np.zeros(shape, dtype)
        self.next_obs: Array = np.zeros(shape, dtype)
        """[n, *obs_shape]: the observations after the step, before any reset."""
        self._checked_parts = [checked_part(spec, row) for row in self.next_obs]
        self.masks = _masks(num_envs, spec)
        """[n, actions]: the masks of `obs`; None without masks."""
        self._spare_masks = _masks(num_envs, spec)
        self.next_masks = _masks(num_envs, spec)
        """[n, actions]: the masks of `next_obs`; None without masks."""

    def restore(self, index: int, obs: Array, mask: BoolArray | None) -> None:
        """Let this be the observation of environment `index` to act on."""
        self.obs[index] = obs
        if self.masks is not None:
            self.masks[index] = mask

    def checksum(self, index: int) -> int:
        """The checksum of the observation of environment `index` to act on, with its mask."""
        found = crc32(checked_part(self._spec, self.obs[index]))
        return found if self.masks is None else crc32(self.masks[index], found)

    def put(self, index: int, step: EnvStep) -> int:
        """Keep the result of a step of environment `index` until `advance`; returns its checksum."""
        next_obs, first_obs = step.next_obs, step.first_obs
        self.next_obs[index] = next_obs
        self._spare[index] = next_obs if first_obs is None else first_obs
        checksum = crc32(self._checked_parts[index], step.life_lost)
        if self.next_masks is None or self._spare_masks is None:
            return checksum
        self.next_masks[index] = step.next_mask
        self._spare_masks[index] = step.next_mask if step.first_mask is None else step.first_mask
        return crc32(self.next_masks[index], checksum)

    def advance(self) -> None:
        """Let the results of a step of all environments be those to act on."""
        self.obs, self._spare = self._spare, self.obs
        self.masks, self._spare_masks = self._spare_masks, self.masks


def _masks(num_envs: int, spec: EnvSpec) -> BoolArray | None:
    return np.ones((num_envs, spec.num_actions), bool) if spec.has_action_mask else None
