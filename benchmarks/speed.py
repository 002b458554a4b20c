"""Env steps per second of training: dqn_runner, with and without compiled updates, and stable-baselines3.

    python benchmarks/speed.py --all --repeats 5 --json speed.json
    python benchmarks/speed.py --workloads W1 W2 --at-once 2

All train on the same environment with the same settings, on the CPU with one thread. The runs alternate, each
in a separate process. The time is measured between two env steps of a run: it includes learning, exploration
and logging, but not imports, construction, warm-up and the end. README.md in this folder explains what is
measured and how to read the table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import machine
from speed_runs import TRAINERS, run_here
from speed_tables import COMPILED, HEADER, LIBRARIES, Run, footer, row, summarise
from speed_workloads import WORKLOADS, feasible

PACKAGES = ("dqn_runner", "stable_baselines3", "torch", "numpy", "gymnasium")
INSTALL = "stable-baselines3 is not installed: pip install -c constraints.txt -e '.[all,benchmark]'"


def run_fresh(library: str, name: str, seed: int) -> Run:
    """One run in a new process; its last line on standard output is the result."""
    command = [sys.executable, __file__, "--workloads", name, "--only", library, "--seed", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if child.returncode != 0:
        sys.exit(f"{child.stderr}\nthe run of {library} failed, see above")
    return Run(**json.loads(child.stdout.splitlines()[-1]))


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Make all runs of a workload, alternating, and print a line of the table for each seed."""
    print(f"\n{name}\n{HEADER}")
    runs: list[Run] = []
    for seed in range(repeats):
        found = {library: run_fresh(library, name, seed) for library in LIBRARIES}
        print(row(seed, found), flush=True)
        runs += found.values()
    summary = summarise(runs)
    print(footer(summary), flush=True)
    return {
        "settings": asdict(WORKLOADS[name]),
        "runs": [asdict(run) for run in runs],
        "summary": summary,
    }


def measure_at_once(name: str, count: int, repeats: int) -> float:
    """Alternate one compiled run with `count` at once; returns the median ratio of their steps per second."""
    ratios: list[float] = []
    for seed in range(repeats):
        alone = run_fresh(COMPILED, name, seed).steps_per_second
        with ThreadPoolExecutor(count) as pool:
            runs = list(pool.map(lambda each: run_fresh(COMPILED, name, each), range(seed, seed + count)))
        together = sum(run.steps_per_second for run in runs)
        busy = max(0.0, max(run.others_cores for run in runs) - (count - 1))
        ratios.append(together / alone)
        print(
            f"{name} seed {seed}: one process {alone:,.0f}, {count} processes {together:,.0f} steps/s, "
            f"{ratios[-1]:.2f} times; other programs used {busy:.1f} cores",
            flush=True,
        )
    return statistics.median(ratios)


def versions() -> dict[str, str]:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **found, "commit": commit or "unknown"}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=["W1"])
    chosen.add_argument("--all", dest="workloads", action="store_const", const=feasible())
    parser.add_argument("--repeats", type=int, default=5, help="runs of each library on each workload")
    parser.add_argument("--json", type=Path, help="write settings, versions and every run to this file")
    parser.add_argument("--at-once", type=int, help="only compare this many processes at once with one")
    parser.add_argument("--only", choices=TRAINERS, help="one run in this process, for a profiler")
    parser.add_argument("--seed", type=int, default=0, help="of that run")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    if arguments.only:
        print(json.dumps(asdict(run_here(arguments.only, arguments.workloads[0], arguments.seed))))
        return
    if arguments.at_once:
        for name in arguments.workloads:
            ratio = measure_at_once(name, arguments.at_once, arguments.repeats)
            print(f"{name}: {arguments.at_once} processes at once are {ratio:.2f} times as fast as one")
        return
    if importlib.util.find_spec("stable_baselines3") is None:
        sys.exit(INSTALL)
    result: dict[str, Any] = {"machine": machine(), "versions": versions(), "workloads": {}}
    print(", ".join(f"{key} {value}" for key, value in {**machine(), **versions()}.items()))
    for name in arguments.workloads:
        result["workloads"][name] = measure(name, arguments.repeats)
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
