"""The measurement of a run by speed.py, and the tables of several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

EAGER, COMPILED, SB3 = "eager", "compiled", "sb3"
LIBRARIES = (EAGER, COMPILED, SB3)


@dataclass(frozen=True)
class Run:
    """The measurement of one run."""

    library: str
    """`eager` and `compiled` are dqn_runner."""
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
        "steps_per_second": compare(runs, lambda run: run.steps_per_second),
        "steps_per_cpu_second": compare(runs, lambda run: run.steps_per_cpu_second),
    }


def compare(runs: list[Run], value: Callable[[Run], float]) -> dict[str, Any]:
    """The median of each library; the ratios of ours to SB3: of the medians, and the range per seed."""
    found = {name: [value(run) for run in runs if run.library == name] for name in LIBRARIES}
    result: dict[str, Any] = {"median": {name: median(values) for name, values in found.items()}}
    for name in (EAGER, COMPILED):
        ratios = [a / b for a, b in zip(found[name], found[SB3], strict=True)]
        result[name] = {
            "ratio_of_medians": round(median(found[name]) / median(found[SB3]), 3),
            "ratios": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    return result


HEADER = (
    f"{'':11} {'steps per second':^32} {'x sb3':^17} {'x sb3, CPU time':^17} "
    f"{'core share':^26} {'episodes':^20}\n"
    f"{'repeat':11}"
    + "".join(f" {name:>10}" for name in LIBRARIES)
    + f" {EAGER:>8} {COMPILED:>8}" * 2
    + "  ".join(f"{name:>8}" for name in LIBRARIES)
    + " "
    + " ".join(f"{name[:6]:>6}" for name in LIBRARIES)
)


def row(repeat: int, runs: dict[str, Run]) -> str:
    """A line of the table: one run of each library."""
    sb3 = runs[SB3]
    cells = [
        f"{repeat:<11}",
        *(f"{runs[name].steps_per_second:10,.0f}" for name in LIBRARIES),
        *(f"{runs[name].steps_per_second / sb3.steps_per_second:8.2f}" for name in (EAGER, COMPILED)),
        *(f"{runs[name].steps_per_cpu_second / sb3.steps_per_cpu_second:8.2f}" for name in (EAGER, COMPILED)),
        *(f"{runs[name].core_share:8.2f}" for name in LIBRARIES),
        *(f"{runs[name].episodes:6,}" for name in LIBRARIES),
    ]
    return " ".join(cells)


def footer(summary: dict[str, Any]) -> str:
    """The line of the medians, and the spread of the ratios."""
    wall, cpu = summary["steps_per_second"], summary["steps_per_cpu_second"]
    cells = [
        f"{'median':11}",
        *(f"{wall['median'][name]:10,.0f}" for name in LIBRARIES),
        *(f"{each[name]['ratio_of_medians']:8.2f}" for each in (wall, cpu) for name in (EAGER, COMPILED)),
    ]
    spread = "; ".join(f"{name} {ratios(cpu[name])}" for name in (EAGER, COMPILED))
    return f"{' '.join(cells)}\nratios of the pairs by CPU time: {spread}"


def ratios(figures: dict[str, Any]) -> str:
    return "{:.2f} to {:.2f}".format(*figures["ratios"])
