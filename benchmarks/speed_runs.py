"""One run of each library on a workload of speed.py."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from machine import cpu_seconds
from speed_tables import COMPILED, EAGER, SB3, Run
from speed_workloads import WORKLOADS, Workload, make_env, vector_part


class Reading(NamedTuple):
    """Seconds on three clocks, and the number of finished episodes."""

    episode: int
    wall: float
    process: float
    """CPU time of this process."""
    machine: float
    """CPU time of everything on the machine."""


@dataclass
class Stopwatch:
    """Reads the clocks when training passes `start` and `stop`."""

    start: int
    stop: int
    readings: dict[int, Reading] = field(default_factory=dict[int, Reading])

    def at(self, step: int, episode: int) -> None:
        if step == self.start or step == self.stop:
            times = time.perf_counter(), time.process_time(), cpu_seconds()
            self.readings[step] = Reading(episode, *times)

    def result(self, library: str, seed: int) -> Run:
        start, stop = self.readings[self.start], self.readings[self.stop]
        steps, wall, process = self.stop - self.start, stop.wall - start.wall, stop.process - start.process
        others = max(0.0, stop.machine - start.machine - process)
        return Run(
            library=library,
            seed=seed,
            seconds=round(wall, 4),
            steps_per_second=round(steps / wall, 1),
            steps_per_cpu_second=round(steps / process, 1),
            episodes=stop.episode - start.episode,
            core_share=round(process / wall, 3),
            others_cores=round(others / wall, 3),
        )


class StopwatchLogger:
    """A logger of dqn_runner, and its configuration, that passes the steps of log lines to a stopwatch."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch

    def open(self, run_dir: Path, info: Any, state: Any) -> StopwatchLogger:
        return self

    def write(self, record: Any) -> None:
        if record.kind == "train":
            self._stopwatch.at(record.step, record.episode)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def close(self, failed: bool) -> None:
        """Nothing is open."""


def train_ours(
    workload: Workload,
    seed: int,
    stopwatch: Stopwatch,
    compiled: bool,
    device: str = "cpu",
    num_envs: int = 1,
) -> None:
    """Train with the loggers that dqn_runner has by default: console, text log and JSON lines.

    Several environments are those of Pong, each in a process of its own.
    """
    from dqn_runner import DQNAgent, Trainer, TrainingConfig
    from dqn_runner.loggers.logger_group import default_loggers
    from dqn_runner.training.config import FrequencyUnit

    training = TrainingConfig(
        frequency_unit=FrequencyUnit.steps,
        max_episodes=None,
        # one step more: the log line at `steps` comes before the end and its evaluation
        max_steps=workload.steps + num_envs,
        max_steps_per_episode=None,
        eval_frequency=10**9,
        eval_episodes=1,
        checkpoint_frequency=10**9,
        log_frequency=workload.log_every,
    )
    env = make_env(workload)
    agent = DQNAgent(dataclasses.replace(our_config(workload, seed, env, compiled), device=device))
    loggers = {**default_loggers(), "stopwatch": StopwatchLogger(stopwatch)}
    # The run is evaluated once, at its end, which is not measured.
    several = num_envs > 1
    trained = vector_part(workload, num_envs) if several else env
    evaluated = None if several else make_env(workload)
    with tempfile.TemporaryDirectory() as directory:
        run_dir = Path(directory) / "run"
        Trainer(agent, trained, training, run_dir, eval_env=evaluated, loggers=loggers).train()


def our_config(workload: Workload, seed: int, env: Any, compiled: bool) -> Any:
    from dqn_runner import DQNConfig
    from dqn_runner.agent.exploration import EpsilonGreedy
    from dqn_runner.agent.networks.architectures import MinatarCnn, Mlp, NatureCnn
    from dqn_runner.agent.schedules import Linear
    from dqn_runner.replay.uniform import UniformReplay

    networks: dict[str, Callable[[], Any]] = {
        "mlp": lambda: Mlp(hidden=workload.hidden),
        "minatar_cnn": MinatarCnn,
        "nature_cnn": NatureCnn,
    }
    schedule = Linear(start=1.0, end=workload.epsilon_end, steps=workload.epsilon_steps)
    return DQNConfig(
        state_dim=env.observation_space.shape,
        action_dim=int(env.action_space.n),
        seed=seed,
        gamma=workload.gamma,
        learning_rate=workload.learning_rate,
        batch_size=workload.batch_size,
        learning_starts=workload.learning_starts,
        train_every=workload.train_every,
        gradient_steps=workload.gradient_steps,
        target_update_every=workload.target_update_every,
        max_grad_norm=workload.max_grad_norm,
        precision=workload.precision,
        network=networks[workload.network](),
        exploration=EpsilonGreedy(schedule=schedule),
        replay=UniformReplay(capacity=workload.capacity),
        compile=compiled,
    )


def train_sb3(workload: Workload, seed: int, stopwatch: Stopwatch, device: str = "cpu") -> None:
    """Train with SB3's defaults, Huber loss and Adam, and without loggers."""
    from stable_baselines3 import DQN

    policy, policy_kwargs = sb3_policy(workload)
    model = DQN(
        policy,
        sb3_env(workload),
        policy_kwargs=policy_kwargs,
        learning_rate=workload.learning_rate,
        buffer_size=workload.capacity,
        learning_starts=workload.learning_starts,
        batch_size=workload.batch_size,
        gamma=workload.gamma,
        train_freq=workload.train_every,
        gradient_steps=workload.gradient_steps,
        target_update_interval=workload.target_update_every,
        exploration_fraction=workload.epsilon_steps / workload.steps,
        exploration_initial_eps=1.0,
        exploration_final_eps=workload.epsilon_end,
        max_grad_norm=workload.max_grad_norm,
        seed=seed,
        device=device,
        verbose=0,
    )

    def on_step(*_: Any) -> bool:
        stopwatch.at(model.num_timesteps, model._episode_num)
        return True

    model.learn(workload.steps, callback=on_step)


def sb3_env(workload: Workload) -> Any:
    """The environment; MinAtar's bool images become float32 [channels, height, width], as its authors do."""
    import gymnasium
    import numpy as np

    env = make_env(workload)
    if workload.env != "minatar":
        return env
    height, width, channels = env.observation_space.shape
    space = gymnasium.spaces.Box(0, 1, (channels, height, width), np.float32)
    return gymnasium.wrappers.TransformObservation(
        env, lambda image: image.transpose(2, 0, 1).astype(np.float32), space
    )


def sb3_policy(workload: Workload) -> tuple[str, dict[str, Any]]:
    """The policy of SB3 with the network of the workload."""
    if workload.network == "mlp":
        return "MlpPolicy", {"net_arch": workload.hidden}
    if workload.network == "nature_cnn":
        return "CnnPolicy", {}
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from torch import nn

    class Convolution(BaseFeaturesExtractor):
        """One 3x3 convolution of 16 channels (Young & Tian 2019)."""

        def __init__(self, space: Any) -> None:
            channels, height, width = space.shape
            super().__init__(space, 16 * (height - 2) * (width - 2))
            self.layers = nn.Sequential(nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten())

        def forward(self, obs: Any) -> Any:
            return self.layers(obs)

    return "MlpPolicy", {"net_arch": [128], "features_extractor_class": Convolution}


def train_eager(workload: Workload, seed: int, stopwatch: Stopwatch) -> None:
    train_ours(workload, seed, stopwatch, compiled=False)


def train_compiled(workload: Workload, seed: int, stopwatch: Stopwatch) -> None:
    train_ours(workload, seed, stopwatch, compiled=True)


TRAINERS: dict[str, Callable[[Workload, int, Stopwatch], None]] = {
    EAGER: train_eager,
    COMPILED: train_compiled,
    SB3: train_sb3,
}


def run_here(library: str, name: str, seed: int) -> Run:
    """One run in this process."""
    import torch

    torch.set_num_threads(1)
    workload = WORKLOADS[name]
    stopwatch = Stopwatch(workload.steady_from, workload.steps)
    TRAINERS[library](workload, seed, stopwatch)
    return stopwatch.result(library, seed)
