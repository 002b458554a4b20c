"""Env steps per second of training: dqn_runner against stable-baselines3's DQN.

    python benchmarks/speed_vs_sb3.py --workload W1 --repeats 5 --json w1.json

Both train on the same environment with the same settings, on the CPU with one thread. The runs alternate
(dqn_runner, sb3, dqn_runner, ...), each in a separate process. The time is measured between two env steps of
a run: it includes learning, exploration and logging, but not imports, construction, warm-up and the end.
README.md in this folder explains what is measured and how to read the table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from machine import cpu_seconds, machine
from speed_tables import HEADER, OURS, SB3, Run, footer, row, summarise

PACKAGES = ("dqn_runner", "stable_baselines3", "torch", "numpy", "gymnasium")
INSTALL = "stable-baselines3 is not installed: pip install -c constraints.txt -e '.[benchmark]'"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Settings of a run, the same for both libraries; every period is in env steps."""

    env: str
    state_dim: int
    action_dim: int
    hidden: list[int]
    batch_size: int
    train_every: int
    gradient_steps: int = 1
    capacity: int = 10_000
    learning_rate: float = 2.5e-4
    gamma: float = 0.99
    max_grad_norm: float = 10.0
    target_update_every: int = 500
    learning_starts: int = 1_000
    epsilon_end: float = 0.05
    epsilon_steps: int
    steps: int
    """Env step at which the measurement ends."""
    steady_from: int
    """Env step at which the measurement starts; learning is on."""
    log_every: int = 1_000
    """Steps between log lines of dqn_runner, which read the clock; divides `steady_from` and `steps`."""


WORKLOADS = {
    "W1": Workload(
        env="CartPole-v1",
        state_dim=4,
        action_dim=2,
        hidden=[120, 84],
        batch_size=128,
        train_every=10,
        epsilon_steps=30_000,
        steps=60_000,
        steady_from=2_000,
    ),
    "W2": Workload(
        env="LunarLander-v3",
        state_dim=8,
        action_dim=4,
        hidden=[256, 256],
        batch_size=128,
        train_every=4,
        gradient_steps=4,
        capacity=50_000,
        learning_rate=6.3e-4,
        target_update_every=250,
        learning_starts=200,
        epsilon_end=0.1,
        epsilon_steps=1_000,
        steps=8_000,
        steady_from=1_500,
        log_every=500,
    ),
    "W3": Workload(
        env="CartPole-v1",
        state_dim=4,
        action_dim=2,
        hidden=[64, 64],
        batch_size=64,
        train_every=1,
        epsilon_steps=1_500,
        steps=20_000,
        steady_from=2_000,
    ),
}


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


def make_env(workload: Workload) -> Any:
    """The environment for both libraries, without gymnasium's checker."""
    import gymnasium

    return gymnasium.make(workload.env, disable_env_checker=True)


def train_ours(workload: Workload, seed: int, stopwatch: Stopwatch) -> None:
    """Train with the loggers that dqn_runner has by default: console, text log and JSON lines."""
    from dqn_runner import DQNAgent, Trainer, TrainingConfig
    from dqn_runner.loggers.logger_group import default_loggers
    from dqn_runner.training.config import FrequencyUnit

    training = TrainingConfig(
        frequency_unit=FrequencyUnit.steps,
        max_episodes=None,
        max_steps=workload.steps + 1,  # the log line at `steps` comes before the end and its evaluation
        eval_frequency=10**9,
        eval_episodes=1,
        checkpoint_frequency=10**9,
        log_frequency=workload.log_every,
    )
    agent = DQNAgent(our_config(workload, seed))
    loggers = {**default_loggers(), "stopwatch": StopwatchLogger(stopwatch)}
    with tempfile.TemporaryDirectory() as directory:
        run_dir = Path(directory) / "run"
        Trainer(agent, make_env(workload), training, run_dir, loggers=loggers).train()


def our_config(workload: Workload, seed: int) -> Any:
    from dqn_runner import DQNConfig
    from dqn_runner.agent.exploration import EpsilonGreedy
    from dqn_runner.agent.networks.architectures import Mlp
    from dqn_runner.agent.schedules import Linear
    from dqn_runner.replay.uniform import UniformReplay

    schedule = Linear(start=1.0, end=workload.epsilon_end, steps=workload.epsilon_steps)
    return DQNConfig(
        state_dim=workload.state_dim,
        action_dim=workload.action_dim,
        seed=seed,
        gamma=workload.gamma,
        learning_rate=workload.learning_rate,
        batch_size=workload.batch_size,
        learning_starts=workload.learning_starts,
        train_every=workload.train_every,
        gradient_steps=workload.gradient_steps,
        target_update_every=workload.target_update_every,
        max_grad_norm=workload.max_grad_norm,
        network=Mlp(hidden=workload.hidden),
        exploration=EpsilonGreedy(schedule=schedule),
        replay=UniformReplay(capacity=workload.capacity),
    )


def train_sb3(workload: Workload, seed: int, stopwatch: Stopwatch) -> None:
    """Train with SB3's defaults, Huber loss and Adam, and without loggers."""
    from stable_baselines3 import DQN

    model = DQN(
        "MlpPolicy",
        make_env(workload),
        policy_kwargs={"net_arch": workload.hidden},
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
        device="cpu",
        verbose=0,
    )

    def on_step(*_: Any) -> bool:
        stopwatch.at(model.num_timesteps, model._episode_num)
        return True

    model.learn(workload.steps, callback=on_step)


TRAINERS: dict[str, Callable[[Workload, int, Stopwatch], None]] = {OURS: train_ours, SB3: train_sb3}


def run_here(library: str, name: str, seed: int) -> Run:
    """One run in this process."""
    import torch

    torch.set_num_threads(1)
    workload = WORKLOADS[name]
    stopwatch = Stopwatch(workload.steady_from, workload.steps)
    TRAINERS[library](workload, seed, stopwatch)
    return stopwatch.result(library, seed)


def run_fresh(library: str, name: str, seed: int) -> Run:
    """One run in a new process; its last line on standard output is the result."""
    command = [sys.executable, __file__, "--workload", name, "--only", library, "--seed", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if child.returncode != 0:
        sys.exit(f"{child.stderr}\nthe run of {library} failed, see above")
    return Run(**json.loads(child.stdout.splitlines()[-1]))


def compare(name: str, repeats: int) -> dict[str, Any]:
    """Make all runs, alternating, and print a line of the table after each pair."""
    print(HEADER)
    runs: list[Run] = []
    for seed in range(repeats):
        pair = [run_fresh(library, name, seed) for library in (OURS, SB3)]
        print(row(seed, *pair), flush=True)
        runs += pair
    return {
        "workload": name,
        "settings": asdict(WORKLOADS[name]),
        "machine": machine(),
        "versions": versions(),
        "runs": [asdict(run) for run in runs],
        "summary": summarise(runs),
    }


def versions() -> dict[str, str]:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found, "commit": commit or "unknown"}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workload", choices=WORKLOADS, default="W1")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each library")
    parser.add_argument("--json", type=Path, help="write settings, versions and every run to this file")
    parser.add_argument("--only", choices=TRAINERS, help="one run in this process, for a profiler")
    parser.add_argument("--seed", type=int, default=0, help="of that run")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if arguments.only:
        print(json.dumps(asdict(run_here(arguments.only, arguments.workload, arguments.seed))))
        return
    if importlib.util.find_spec("stable_baselines3") is None:
        sys.exit(INSTALL)
    result = compare(arguments.workload, arguments.repeats)
    print(footer(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
