"""The objectives of a sweep: numbers of a run, and their aggregate over several seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum

import numpy as np

from dqn_runner.config.error_messages import nearest
from dqn_runner.core.exceptions import UserError
from dqn_runner.statistics.aggregates import iqm
from dqn_runner.training.stats import TrainingStats

OBJECTIVES: Mapping[str, str] = {
    "return": "mean return of the best evaluation; of the last training episodes if there was none",
    "final_return": "mean return of the last evaluation",
    "mean_return": "mean over all evaluations, which rewards learning fast; for runs of equal length",
    "env_steps": "env steps until the run ended",
    "seconds": "training time until the run ended",
    "parameters": "number of weights of the network",
}
"""The numbers that a sweep can optimise or constrain, by name."""

DIRECTIONS = ("maximize", "minimize")


class Aggregate(Enum):
    """How the numbers of several seeds are combined."""

    mean = "mean"
    iqm = "iqm"


def run_metrics(stats: TrainingStats, parameters: int) -> dict[str, float]:
    """The objectives of a run whose network has `parameters` weights; NaN if there was no evaluation."""
    returns: Sequence[float] = stats.history["evaluations"]["return_mean"]
    return {
        "return": stats.objective,
        "final_return": returns[-1] if returns else math.nan,
        "mean_return": _mean(returns) if returns else math.nan,
        "env_steps": float(stats.steps),
        "seconds": stats.training_time,
        "parameters": float(parameters),
    }


def aggregate(values: Sequence[float], how: Aggregate) -> float:
    """Combine the values of at least one seed; NaN if one of them is NaN."""
    if any(math.isnan(value) for value in values):
        return math.nan
    return _mean(values) if how is Aggregate.mean else float(iqm([np.asarray(values, float)]))


def check_objectives(names: Sequence[str], directions: Sequence[str]) -> None:
    """Raise UserError for an unknown objective or direction, or if their numbers differ."""
    for name in map(str, names):
        if name not in OBJECTIVES:
            hint = nearest(name, OBJECTIVES)
            guess = f"; did you mean {hint}?" if hint else ""
            raise UserError(f"unknown objective '{name}'{guess} (available: {', '.join(OBJECTIVES)})")
        if list(names).count(name) > 1:
            raise UserError(f"the objective {name} is given twice")
    if directions and not names:
        raise UserError(f"hydra.sweeper.objective is empty (available: {', '.join(OBJECTIVES)})")
    for direction in directions:
        if direction not in DIRECTIONS:
            raise UserError(f"a direction must be {' or '.join(DIRECTIONS)}, got '{direction}'")
    if len(names) != len(directions):
        raise UserError(
            f"{len(names)} objective(s) ({', '.join(names)}) need as many directions, got "
            f"{len(directions)}; set hydra.sweeper.direction=[{','.join(['maximize'] * len(names))}], each "
            "maximize or minimize"
        )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
