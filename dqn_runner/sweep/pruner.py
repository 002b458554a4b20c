"""Tries the pruner of a sweep before its first trial: most arguments are read only when a pruner decides."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection

from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.optuna_parts import make_part, naming_arguments, pruner_imports

_WRAPPED = "wrapped_pruner"
_TRIALS, _EVALUATIONS = 8, 12


def make_pruner(config: Mapping[str, Any], direction: str) -> BasePruner:
    """The pruner of a configuration; raises UserError if it cannot be built, or cannot decide.

    Only classes of Optuna are tried: one of the user's own may need what the trials of the sweep have.
    """
    wrapped = config.get(_WRAPPED)
    if wrapped is not None and not isinstance(wrapped, Mapping):
        raise UserError(
            f"hydra.sweeper.pruner.{_WRAPPED}={wrapped} is not a pruner; write "
            f"'hydra.sweeper.pruner.{_WRAPPED}={{_target_: optuna.pruners.MedianPruner}}', or null for none"
        )
    pruner: BasePruner = make_part("pruner", config)
    if not isinstance(pruner, NopPruner) and not pruner_imports(config):
        _try(make_part("pruner", config), direction)
    return pruner


def _try(pruner: BasePruner, direction: str) -> None:
    """Let a pruner decide about trials of a study in memory, whose values rise and fall."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction=StudyDirection[direction.upper()], pruner=pruner, sampler=RandomSampler(seed=0)
    )
    with naming_arguments("pruner", "decide about a trial"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(_TRIALS):
            trial = study.ask()
            for step in range(1, _EVALUATIONS + 1):
                trial.report(float(step if number % 2 else -step), step)
                trial.should_prune()
            study.tell(trial, float(number))
