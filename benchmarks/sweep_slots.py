"""Measures the share of time that the slots of a sweep are idle if the jobs have different lengths.

    python benchmarks/sweep_slots.py --out results/slots

The environment of the jobs sleeps, so that the result depends on the sweeper and not on the number of cores.
For comparison, the script prints the idle share of the same jobs in batches that wait for the slowest job.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import optuna

from dqn_runner.sweep.storages.factory import open_storage

SLEEPY = '''
import time

import gymnasium
import numpy as np


class Sleepy(gymnasium.Env):
    """Each step takes a hundredth of a second."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        time.sleep(0.01)
        return np.zeros(2, np.float32), 0.0, False, False, {}
'''
RUN = (
    "env._target_=sleepy.Sleepy",
    "trainer.max_steps_per_episode=100",
    "trainer.eval_frequency=100000",
    "trainer.eval_episodes=1",
    "agent.learning_starts=100",
    "agent.exploration.schedule.steps=200",
    "logging=[file,jsonl]",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("results/slots"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "sleepy.py").write_text(SLEEPY)
    settings = ("sampler=random", f"n_trials={options.trials}", f"n_jobs={options.jobs}")
    sweep = [f"hydra.sweeper.{setting}" for setting in settings]
    command = ["-m", "hydra/sweeper=optuna", "hydra.sweep.dir=sweep", *sweep, *RUN]
    lengths = "trainer.max_steps=int(interval(500,4000))"
    subprocess.run([sys.executable, "-m", "dqn_runner", *command, lengths], cwd=options.out, check=True)
    storage = open_storage(str(options.out / "sweep" / "study.journal"))
    trials = optuna.load_study(study_name="sweep", storage=storage).trials
    seconds = [trial.duration.total_seconds() for trial in trials if trial.duration]
    start = min(trial.datetime_start for trial in trials if trial.datetime_start)
    end = max(trial.datetime_complete for trial in trials if trial.datetime_complete)
    took = (end - start).total_seconds()
    batches = [seconds[i : i + options.jobs] for i in range(0, len(seconds), options.jobs)]
    barrier = sum(max(batch) for batch in batches)
    lengths = f"{min(seconds):.0f} to {max(seconds):.0f} s"
    print(f"{len(seconds)} jobs of {lengths} in {options.jobs} slots: {took:.0f} s")
    print(f"idle: {1 - sum(seconds) / (options.jobs * took):.1%} of the slots' time")
    print(f"in batches: {barrier:.0f} s, idle {1 - sum(seconds) / (options.jobs * barrier):.1%}")


if __name__ == "__main__":
    main()
