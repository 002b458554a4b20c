"""Measures the env steps that pruning saves, and whether it loses the best trial.

    python benchmarks/sweep_pruning.py --out results/pruning

All sweeps sample the same random points, with and without a pruner. Each is a command
`python -m dqn_runner -m hydra/sweeper=optuna ...`, so that an interrupted benchmark can be resumed. Further
arguments are overrides for all sweeps.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

SPACE = (
    "agent.learning_rate=tag(log,interval(1e-5,1e-1))",
    "agent.gamma=choice(0.9,0.95,0.98,0.99,0.995)",
    "agent.batch_size=choice(16,32,64,128)",
    "agent.target_update_every=choice(1,100,500,2000)",
    "agent.n_step=range(1,5)",
)
SWEEP = (
    "-m",
    "hydra/sweeper=optuna",
    "hydra.sweeper.sampler=random",
    "trainer.max_steps=20000",
    "trainer.eval_frequency=1000",
    "agent.exploration.schedule.steps=5000",
    "logging=[file,jsonl]",
)


def sweep(pruner: str, seed: int, out: Path, overrides: list[str]) -> Any:
    """The results of a sweep, which is run unless it has finished already."""
    directory = out / f"{pruner}-{seed}"
    results = directory / "optimization_results.yaml"
    command = [sys.executable, "-m", "dqn_runner", *SWEEP, *SPACE, *overrides]
    overrides_of_sweep = [f"hydra.sweep.dir={directory}", f"hydra.sweeper.pruner={pruner}", f"seed={seed}"]
    subprocess.run([*command, *overrides_of_sweep], check=True, stdout=subprocess.DEVNULL)
    return OmegaConf.load(results)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pruners", nargs="+", default=["median", "hyperband"])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/pruning"))
    options, overrides = parser.parse_known_args()
    overrides += [f"hydra.sweeper.n_trials={options.trials}", f"hydra.sweeper.n_jobs={options.jobs}"]
    print("| repetition | pruner | env steps | saved | best return | pruned |")
    print("|---|---|---|---|---|---|")
    saved: dict[str, list[float]] = {pruner: [] for pruner in options.pruners}
    for seed in range(options.repetitions):
        whole = sweep("none", seed, options.out, overrides)
        for pruner in ("none", *options.pruners):
            found = whole if pruner == "none" else sweep(pruner, seed, options.out, overrides)
            share = 1 - found.env_steps / whole.env_steps
            if pruner != "none":
                saved[pruner].append(share)
            cells = (seed, pruner, f"{found.env_steps:,}", f"{share:.0%}", f"{found.best_value:.1f}")
            print(f"| {' | '.join(map(str, cells))} | {found.trials.pruned} |", flush=True)
    for pruner, shares in saved.items():
        print(f"\n{pruner} saves {statistics.median(shares):.0%} (median)", flush=True)


if __name__ == "__main__":
    main()
