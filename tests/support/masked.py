"""Environments with action masks; an action that the mask does not allow raises."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from tests.support.probes import GAMMA, Probe, Values

ACTION_SPACES: dict[str, Any] = {
    "discrete": lambda: spaces.Discrete(5),
    "shifted": lambda: spaces.Discrete(5, start=-2),
    "joint": lambda: spaces.MultiDiscrete([2, 3]),
    "bits": lambda: spaces.MultiBinary(3),
}
NUM_ACTIONS = {"discrete": 5, "shifted": 5, "joint": 6, "bits": 8}


class Guarded(gymnasium.Env[Any, Any]):
    """Random observations and masks, rewards that depend on the action, and both ends of episodes.

    With `form=info` the mask is in `info`, with `form=key` it is the entry `legal` of the observation. All
    masks are one buffer that each step overwrites. Terminal states have no mask.
    """

    def __init__(
        self, form: str = "info", actions: str = "discrete", dtype: str = "int8", image: bool = False
    ) -> None:
        self.form, self.image = form, image
        self.action_space = ACTION_SPACES[actions]()
        self.num_actions = NUM_ACTIONS[actions]
        self.mask = np.ones(self.num_actions, dtype)
        shape, kind = ((6, 6), np.uint8) if image else ((3,), np.float32)
        box = spaces.Box(0, 255, shape, kind)
        keyed = {"sensor": box, "legal": spaces.MultiBinary(self.num_actions)}
        self.observation_space = spaces.Dict(keyed) if form == "key" else box

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self._answer(False)

    def step(self, action: Any) -> Any:
        number = self.number(action)
        if not self.mask[number]:
            raise RuntimeError(f"action {number} is not allowed: {self.mask}")
        end = self.np_random.random()
        terminated = bool(end < 0.1)
        obs, info = self._answer(terminated)
        return obs, number / self.num_actions, terminated, bool(end > 0.9), info

    def number(self, action: Any) -> int:
        """The number of an action, from zero."""
        space: Any = self.action_space
        if isinstance(space, spaces.Discrete):
            return int(action) - int(space.start)
        sizes = tuple(space.nvec) if isinstance(space, spaces.MultiDiscrete) else (2,) * len(action)
        return int(np.ravel_multi_index(tuple(int(part) for part in action), sizes))

    def _answer(self, terminated: bool) -> Any:
        obs: Any = self.np_random.integers(0, 256, (6, 6)) if self.image else self.np_random.random(3)
        obs = obs.astype(np.uint8 if self.image else np.float32)
        if terminated:
            self.mask[:] = 0
            return ({"sensor": obs}, {}) if self.form == "key" else (obs, {})
        self.mask[:] = self.np_random.random(self.num_actions) < 0.4
        self.mask[self.np_random.integers(self.num_actions)] = 1
        if self.form == "key":
            return {"sensor": obs, "legal": self.mask}, {}
        return obs, {"action_mask": self.mask, "other": 0}


class Reporting(gymnasium.Env[Any, Any]):
    """A Dict of an image, a vector and a mask; metrics of its own, and an attribute that callbacks set."""

    action_space = spaces.Discrete(4)

    def __init__(self) -> None:
        self.difficulty = 0
        self.observation_space = spaces.Dict(
            {
                "picture": spaces.Box(0, 255, (5, 5), np.uint8),
                "speed": spaces.Box(-9, 9, (2,), np.float32),
                "legal": spaces.MultiBinary(4),
            }
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        if not self.mask[action]:
            raise RuntimeError(f"action {action} is not allowed")
        end = self.np_random.random()
        info = {"metrics": {"choices": int(self.mask.sum())}, "risk": float(end) + self.difficulty}
        reward = float(action) - self.difficulty
        return self._observe(), reward, bool(end < 0.1), bool(end > 0.9), info

    def _observe(self) -> Any:
        draw = self.np_random
        self.mask = (draw.random(4) < 0.5).astype(np.int8)
        self.mask[draw.integers(4)] = 1
        picture = draw.integers(0, 256, (5, 5)).astype(np.uint8)
        return {"picture": picture, "speed": draw.normal(size=2).astype(np.float32), "legal": self.mask}


class Harder:
    """A callback with a state, which makes `Reporting` harder from time to time."""

    def __init__(self) -> None:
        self.episodes = 0

    def on_episode_end(self, run: Any, _: Any) -> None:
        self.episodes += 1
        if self.episodes % 7 == 0:
            run.set_env_attribute("difficulty", self.episodes // 7)

    def state_dict(self) -> Any:
        return {"episodes": self.episodes}

    def load_state_dict(self, state: Any) -> None:
        self.episodes = state["episodes"]


class AllAllowed(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Masks that allow everything."""

    def reset(self, **kwargs: Any) -> Any:
        obs, info = self.env.reset(**kwargs)
        return obs, {**info, "action_mask": np.ones(2, np.int8)}

    def step(self, action: Any) -> Any:
        *rest, info = self.env.step(action)
        return (*rest, {**info, "action_mask": np.ones(2, np.int8)})


class ForbiddenValue(Probe):
    """The second state looks the same after both starts, but another action is allowed there.

    So its forbidden action has a value that is learned, and a target that does not mask it is wrong.
    """

    VALUES: ClassVar[Values] = {-1.0: [-GAMMA, -GAMMA], 0.0: [-1.0, 1.0], 1.0: [GAMMA, GAMMA]}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        obs, _ = super().reset(seed=seed)
        self.mask = np.ones(2, np.int8)
        return obs, {"action_mask": self.mask}

    def step(self, action: Any) -> Any:
        if not self.mask[action]:
            raise RuntimeError(f"action {action} is not allowed")
        if self.state == 0.0:
            return super().step(action)
        self.mask = np.array([0, 1] if self.state == 1.0 else [1, 0], np.int8)
        self.state = 0.0
        return np.zeros(1, np.float32), 0.0, False, False, {"action_mask": self.mask}
