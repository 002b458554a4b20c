"""An environment that does what nobody wants; the processes that run it import little with it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from dqn_runner.envs.base import Vectorization
from dqn_runner.envs.gym import GymEnv


class NoPickleError(Exception):
    """An error that cannot be sent as it is."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class Fragile(gymnasium.Env[Any, Any]):
    """Random observations and ends. Where the file `asks` exists it does once, in `where`, what it says."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, asks: str = "", where: str = "step", always: bool = False) -> None:
        self.asks, self.where, self.always = Path(asks) if asks else None, where, always

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._obey("reset")
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self._obey("step")
        random = self.np_random.random()
        return self._see(), float(action) + random, random < 0.1, random > 0.9, {"life_lost": random < 0.3}

    def close(self) -> None:
        self._obey("close")

    def _see(self) -> Any:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def _obey(self, where: str) -> None:
        if self.asks is None or where != self.where or not self.asks.exists():
            return
        what = self.asks.read_text()
        if not self.always:
            self.asks.unlink()
        if what == "raise":
            raise RuntimeError("the sensor is lost")
        if what == "raise what cannot be sent":
            raise NoPickleError("the sensor", "is lost")
        if what == "leave a child":  # which keeps every pipe open that this process has
            child = self.asks.with_name("child")
            if pid := os.fork():
                child.write_text(str(pid))
                os._exit(3)
            time.sleep(60)
            child.unlink()
            os._exit(0)
        if what == "exit":
            os._exit(3)
        if what == "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "hang":
            self.asks.with_name("hanging").touch()
            time.sleep(1000)


def part(vectorization: str = "async", num_envs: int = 2, **kwargs: Any) -> GymEnv:
    return GymEnv(
        id=f"{__name__}:Fragile", kwargs=kwargs, num_envs=num_envs, vectorization=Vectorization[vectorization]
    )
