"""An environment that records its steps, and trainers on it whose replay can be compared with the record.

Its observations are (copy, episode, time), so that each stored transition shows where it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.networks.architectures import Mlp
from dqn_runner.agent.schedules import Constant
from dqn_runner.core.types import FloatArray, IntArray
from dqn_runner.training.config import FrequencyUnit

GAMMA = 0.5
NEVER = 10**9


class StepRecord(NamedTuple):
    """One step of a Diary, or one transition in a replay."""

    obs: list[float]
    action: int
    reward: float
    discount: float
    next_obs: list[float]

    @property
    def episode(self) -> list[float]:
        """The copy of the environment and the episode in which it starts."""
        return self.obs[:2]

    @property
    def length(self) -> int:
        """Time steps from `obs` to `next_obs`."""
        return int(self.next_obs[2] - self.obs[2])


class Diary(gymnasium.Env[Any, Any]):
    """Observes (copy, episode, time); step t gives reward t+1; episodes last 3, 5, 4, 3, … steps."""

    observation_space = gymnasium.spaces.Box(0, 1e6, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    LENGTHS = (3, 5, 4)

    def __init__(self, copy: int, ends: tuple[str, ...]) -> None:
        """`ends` lists how successive episodes end: terminated, truncated, both or never."""
        self.copy = copy
        self.ends = ends
        self.episode = -1
        self.time = 0
        self.seeds: list[int | None] = []
        self.steps: list[StepRecord] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.episode, self.time = self.episode + 1, 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        obs = self._observation()
        self.time += 1
        end = self.ends[self.episode % len(self.ends)]
        over = self.time == self.LENGTHS[self.episode % len(self.LENGTHS)] and end != "never"
        terminated, truncated = (over and end in (name, "both") for name in ("terminated", "truncated"))
        discount = 0.0 if terminated else GAMMA
        next_obs = self._observation()
        record = StepRecord(obs.tolist(), int(action), float(self.time), discount, next_obs.tolist())
        self.steps.append(record)
        return next_obs, float(self.time), terminated, truncated, {}

    def _observation(self) -> FloatArray:
        return np.array([self.copy, self.episode, self.time], np.float32)


@dataclass
class Diaries:
    """An environment part that keeps the diaries it makes; the trainer makes the one for evaluation last."""

    num_envs: int = 1
    ends: tuple[str, ...] = ("terminated", "truncated")
    made: list[Diary] = field(default_factory=list[Diary])

    def learning_reward(self, reward: float) -> float:
        return reward

    def make(self, training: bool = True, render: bool = False) -> Diary:
        self.made.append(Diary(len(self.made), self.ends))
        return self.made[-1]

    @property
    def training(self) -> list[Diary]:
        return self.made[: self.num_envs]

    @property
    def evaluation(self) -> Diary:
        return self.made[self.num_envs]


class RecordingExploration(EpsilonGreedy):
    """Epsilon-greedy exploration that records the env steps at which it is called."""

    def __init__(self, epsilon: float = 0.5) -> None:
        super().__init__(schedule=Constant(value=epsilon))
        self.steps: list[int] = []

    def __call__(
        self, q_values: Any, shape: tuple[int, int], step: int, rng: np.random.Generator
    ) -> IntArray:
        self.steps.append(step)
        return super().__call__(q_values, shape, step, rng)


def make_trainer(run_dir: Path, envs: Diaries, max_steps: int, **settings: Any) -> Trainer:
    """A trainer without evaluations, logs and checkpoints unless set.

    Settings of TrainingConfig are passed to it, all others to the agent.
    """
    frequencies = {"eval_frequency": NEVER, "log_frequency": NEVER, "checkpoint_frequency": NEVER}
    names = [name for name in settings if hasattr(TrainingConfig, name)]
    training = frequencies | {name: settings.pop(name) for name in names}
    agent = {
        "gamma": GAMMA,
        "learning_starts": 8,
        "batch_size": 4,
        "network": Mlp(hidden=[8]),
        "exploration": RecordingExploration(),
        **settings,
    }
    config = TrainingConfig(
        frequency_unit=FrequencyUnit.steps, max_episodes=None, max_steps=max_steps, **training
    )
    return Trainer(DQNAgent(DQNConfig(state_dim=3, action_dim=2, **agent)), envs, config, run_dir, loggers={})


def train(run_dir: Path, envs: Diaries, max_steps: int, **settings: Any) -> Trainer:
    """Return the trainer of `make_trainer` after its training."""
    trainer = make_trainer(run_dir, envs, max_steps, **settings)
    trainer.train()
    return trainer


def stored_transitions(trainer: Trainer) -> list[StepRecord]:
    """The transitions in the replay, in the order of its rows."""
    columns = trainer.replay.state_dict()["rows"].all()
    names = StepRecord._fields
    return [StepRecord(*row) for row in zip(*(columns[name].tolist() for name in names), strict=True)]
