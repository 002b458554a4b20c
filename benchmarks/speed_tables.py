"""The measurement of a run by speed_vs_sb3.py, and the table of several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

OURS, SB3 = "dqn_runner", "sb3"


@dataclass(frozen=True)
class Run:
    """The measurement of one run."""

    library: str
    seed: int
    seconds: float
    steps_per_second: float
    steps_per_cpu_second: float
    """Per second of CPU time of the run; other processes do not affect it."""
    episodes: int
    """Finished during the measurement; without learning they are short, and each one needs a reset."""
    core_share: float
    """CPU time of the run per second of wall time; clearly below 1 if other processes used its core."""
    others_cores: float
    """Cores that other processes used during the measurement."""


def summarise(runs: list[Run]) -> dict[str, Any]:
    return {
        "steps_per_second": contrast(runs, lambda run: run.steps_per_second),
        "steps_per_cpu_second": contrast(runs, lambda run: run.steps_per_cpu_second),
    }


def contrast(runs: list[Run], value: Callable[[Run], float]) -> dict[str, Any]:
    """Medians, their ratio, and the smallest and largest ratio of a pair."""
    ours = [value(run) for run in runs if run.library == OURS]
    theirs = [value(run) for run in runs if run.library == SB3]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "median": {OURS: median(ours), SB3: median(theirs)},
        "ratio_of_medians": round(median(ours) / median(theirs), 3),
        "pairwise_ratios": [round(min(ratios), 3), round(max(ratios), 3)],
    }


HEADER = (
    f"{'':11} {'steps per second':^28} {'CPU time':>8}"
    f" {'core share':^13} {'others: cores':^13} {'episodes':^13}\n"
    f"{'repeat':11} {OURS:>10} {SB3:>10} {'ratio':>6} {'ratio':>8}" + f" {'ours':>6} {SB3:>6}" * 3
)


def row(repeat: int, ours: Run, theirs: Run) -> str:
    pair = (ours, theirs)
    cells = [
        f"{repeat:<11} {ours.steps_per_second:10,.0f} {theirs.steps_per_second:10,.0f}",
        f"{ours.steps_per_second / theirs.steps_per_second:6.2f}",
        f"{ours.steps_per_cpu_second / theirs.steps_per_cpu_second:8.2f}",
        *(f"{run.core_share:6.2f}" for run in pair),
        *(f"{run.others_cores:6.2f}" for run in pair),
        *(f"{run.episodes:6,}" for run in pair),
    ]
    return " ".join(cells)


def footer(result: dict[str, Any]) -> str:
    versions, machine = result["versions"], result["machine"]
    wall, cpu = result["summary"]["steps_per_second"], result["summary"]["steps_per_cpu_second"]
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{'median':11} {wall['median'][OURS]:10,.0f} {wall['median'][SB3]:10,.0f} "
        f"{wall['ratio_of_medians']:6.2f} {cpu['ratio_of_medians']:8.2f}\n"
        f"ratio of the pairs: {spread(wall)}; by CPU time: {spread(cpu)}\n"
        f"{names}\n{machine['cpu']}, {machine['cores']} cores"
    )


def spread(figures: dict[str, Any]) -> str:
    return "{:.2f} to {:.2f}".format(*figures["pairwise_ratios"])
