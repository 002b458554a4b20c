"""A replay of a user that is written from its interface: lists instead of the program's storage."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dqn_runner.core.types import Batch, Transition
from dqn_runner.replay.settings import ReplaySettings
from dqn_runner.replay.storage import DiskUsage


@dataclass(kw_only=True)
class ListReplay(ReplaySettings):
    """Settings of a `Lists`."""

    keeps: str = "all"
    """What its state is: all of it, nothing, a deque (at first, or later), or a list that contains itself."""

    def num_bytes(self, spec: Any) -> int:
        return 1000

    def disk_usage(self, spec: Any) -> DiskUsage:
        return DiskUsage(1000, 1000)

    def build(self, spec: Any, num_envs: int, gamma: float, n_step: int, rng: Any, *frames: int) -> Any:
        return Lists(self.capacity, gamma, rng, self.keeps)


class Lists:
    """Uniform replay of 1-step transitions, with numbers of every kind in its state."""

    def __init__(self, capacity: int, gamma: float, rng: np.random.Generator, keeps: str) -> None:
        self.rows: deque[Any] = deque(maxlen=capacity)
        self.gamma, self.rng, self.keeps = gamma, rng, keeps
        self.last, self.ages = -1, np.zeros(3, np.int64)

    def add(
        self, env: int, obs: Any, action: int, reward: float, terminated: bool, truncated: bool, next_obs: Any
    ) -> None:
        discount = 0.0 if terminated else self.gamma
        self.rows.append([obs.copy(), action, reward, discount, next_obs.copy()])
        self.last -= 1

    def sample(self, batch_size: int, step: int) -> Batch:
        assert isinstance(self.ages, np.ndarray)
        slots = self.rng.integers(len(self.rows), size=batch_size)
        obs, action, reward, discount, next_obs = zip(*(self.rows[slot] for slot in slots), strict=True)
        columns = [torch.from_numpy(np.array(c, np.float32)) for c in (obs, reward, discount, next_obs)]
        transition = Transition(columns[0], torch.tensor(action), *columns[1:])
        return Batch(transition, slots, torch.full((batch_size,), 1 / batch_size))

    def update(self, indices: Any, priority: torch.Tensor) -> None:
        self.ages = self.ages + 1

    def truncate(self, env: int, next_obs: Any) -> None:
        pass

    def __len__(self) -> int:
        return len(self.rows)

    def state_dict(self) -> Any:
        if self.keeps == "nothing":
            return None
        if self.keeps == "deque" or (self.keeps == "deque later" and self.rows):
            return {"rows": self.rows}
        if self.keeps == "itself":
            rows: list[Any] = []
            return {"rows": [rows, rows.append(rows)]}
        generator = self.rng.bit_generator.state
        return {"steps": list(self.rows), "generator": generator, "last": self.last, "ages": self.ages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.keeps == "other":
            raise KeyError("gone")
        self.rows.extend(state["steps"])
        self.rng.bit_generator.state = state["generator"]
        self.last, self.ages = state["last"], state["ages"]
