"""An environment that fails on command. It imports little, because each worker process imports it."""

from __future__ import annotations

import multiprocessing
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
    """An error that cannot be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class Fragile(gymnasium.Env[Any, Any]):
    """Random observations, rewards and ends of episodes, with a failure that a test can trigger.

    If the file `command_file` exists, the method `where` (reset, step or close) deletes it, unless `always`,
    and does what the file says.
    """

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, command_file: str = "", where: str = "step", always: bool = False) -> None:
        self.command_file = Path(command_file) if command_file else None
        self.where, self.always = where, always

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._run_command("reset")
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self._run_command("step")
        random = self.np_random.random()
        info = {"life_lost": random < 0.3}
        return self._observation(), float(action) + random, random < 0.1, random > 0.9, info

    def close(self) -> None:
        self._run_command("close")

    def _observation(self) -> Any:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def _run_command(self, where: str) -> None:
        if self.command_file is None or where != self.where or not self.command_file.exists():
            return
        command = self.command_file.read_text()
        if not self.always:
            self.command_file.unlink()
        if command == "raise":
            raise RuntimeError("the sensor is lost")
        if command == "raise an unpicklable error":
            raise NoPickleError("the sensor", "is lost")
        if command == "exit and leave a child":  # the child keeps every pipe of this process open
            child = self.command_file.with_name("child")
            if pid := os.fork():
                child.write_text(str(pid))
                os._exit(3)
            time.sleep(60)
            child.unlink()
            os._exit(0)
        if command == "call sys.exit":
            raise SystemExit(0)
        if command == "start a process":
            process = multiprocessing.get_context("fork").Process(target=os.getpid)
            process.start()
            process.join()
            self.command_file.unlink(missing_ok=True)
        if command == "exit":
            os._exit(3)
        if command == "kill itself":
            os.kill(os.getpid(), signal.SIGKILL)
        if command == "hang":
            self.command_file.with_name("hanging").touch()
            time.sleep(1000)


def fragile_part(vectorization: str = "async", num_envs: int = 2, **kwargs: Any) -> GymEnv:
    """An environment part of Fragile; `kwargs` are its arguments."""
    return GymEnv(
        id=f"{__name__}:Fragile", kwargs=kwargs, num_envs=num_envs, vectorization=Vectorization[vectorization]
    )
