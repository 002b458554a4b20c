"""Records episodes as an agent sees them, for `read_npz`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.observation_layout import ObservationLayout
from dqn_runner.core.types import Array, BoolArray
from dqn_runner.envs.actions import action_space
from dqn_runner.envs.base import Env, env_name, spec_of
from dqn_runner.replay.offline.npz_file import MASKS, STEPS, write_npz


class EpisodeRecorder:
    """Collects the steps of whole episodes; a witness of the evaluator."""

    def __init__(self, env: Env) -> None:
        """Observations, actions and masks are those of `env`."""
        self._spec = spec_of(env)
        self.num_actions = self._spec.num_actions
        self._to_env = action_space(env.action_space, env_name(env)).converter()
        self._steps: list[tuple[Any, ...]] = []
        self._begin: list[tuple[Array, BoolArray | None]] = []
        """Observations and masks at which the steps begin."""
        self._final: list[tuple[Array, BoolArray | None]] = []
        """Those after the last step of each episode."""
        self._last: tuple[Array, BoolArray | None] | None = None

    def begin(self, obs: Array, mask: BoolArray | None) -> None:
        """An episode begins at `obs`."""
        self._last = (self._copy(obs), mask)

    def step(
        self,
        action: int,
        reward: float,
        terminated: bool,
        truncated: bool,
        obs: Array,
        mask: BoolArray | None,
    ) -> None:
        """A step, numbered from zero, ended at `obs`."""
        assert self._last is not None
        self._begin.append(self._last)
        self._steps.append((self._to_env(action), reward, terminated, truncated))
        self._last = (self._copy(obs), mask)
        if terminated or truncated:
            self._final.append(self._last)

    def write(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Write the steps so far; `provenance` is stored as JSON."""
        steps: dict[str, Array] = dict(zip(STEPS, map(np.array, zip(*self._steps, strict=True)), strict=True))
        observations, final = (self._entries(seen) for seen in (self._begin, self._final))
        if self._spec.has_action_mask:
            steps[MASKS], final[MASKS] = (_masks(seen) for seen in (self._begin, self._final))
        write_npz(path, steps, observations, final, provenance)

    def _copy(self, obs: Array) -> Array:
        return np.array(obs, self._spec.obs_dtype)

    def _entries(self, seen: list[tuple[Array, BoolArray | None]]) -> dict[str, Array]:
        """Observations [n, ...] by the names of their entries; under "" if they are arrays."""
        stacked = np.stack([obs for obs, _ in seen])
        return {"": stacked} if self._spec.layout is None else _unpacked(self._spec.layout, stacked)


def _unpacked(layout: ObservationLayout, rows: Array) -> dict[str, Array]:
    """The entries as the environment returned them: categories are not counted from zero."""
    stored = layout.unpack(torch.from_numpy(rows))
    return {
        entry.name: stored[entry.name].numpy() + np.reshape(entry.start, entry.shape)
        if entry.sizes
        else stored[entry.name].numpy()
        for entry in layout.entries
    }


def _masks(seen: list[tuple[Array, BoolArray | None]]) -> Array:
    return np.stack([mask for _, mask in seen if mask is not None])
