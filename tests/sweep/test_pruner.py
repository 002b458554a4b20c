"""A pruner that cannot decide is found before the first trial."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf

from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.pruner import make_pruner

OPTUNA = "optuna.pruners."
MEDIAN = {"_target_": f"{OPTUNA}MedianPruner"}


class Own(optuna.pruners.BasePruner):
    """A pruner that needs a parameter of the trials of a sweep."""

    def prune(self, study: Any, trial: Any) -> bool:
        return trial.params["agent.gamma"] > 0.5


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            {"_target_": f"{OPTUNA}PatientPruner", "patience": 1, "wrapped_pruner": "median"},
            "is not a pruner; write",
        ),
        ({"_target_": f"{OPTUNA}HyperbandPruner", "min_resource": "a"}, "cannot decide about a trial: "),
        ({"_target_": f"{OPTUNA}HyperbandPruner", "max_resource": 0}, "cannot decide about a trial: "),
        ({"_target_": f"{OPTUNA}HyperbandPruner", "max_resource": -5}, "cannot decide about a trial: "),
        ({"_target_": f"{OPTUNA}PercentilePruner", "percentile": 150}, "cannot be built: "),
        (
            {
                "_target_": f"{OPTUNA}PatientPruner",
                "patience": 0,
                "wrapped_pruner": {"_target_": f"{OPTUNA}HyperbandPruner", "max_resource": 0},
            },
            "cannot decide about a trial: ",
        ),
    ],
    ids=lambda value: str(value)[16:50],
)
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_pruner_that_could_not_decide_is_rejected(
    config: dict[str, Any], reason: str, direction: str
) -> None:
    with pytest.raises(UserError, match=rf"^hydra\.sweeper\.pruner.*{reason}"):
        make_pruner(config, direction)


@pytest.mark.parametrize(
    "config",
    [
        {"_target_": f"{OPTUNA}NopPruner"},
        MEDIAN,
        {"_target_": f"{OPTUNA}PatientPruner", "patience": 3, "wrapped_pruner": MEDIAN},
        {"_target_": f"{OPTUNA}PatientPruner", "patience": 3, "wrapped_pruner": None},
        {"_target_": f"{OPTUNA}ThresholdPruner", "lower": 3.0},
        {"_target_": f"{OPTUNA}SuccessiveHalvingPruner"},
        {"_target_": f"{OPTUNA}HyperbandPruner", "max_resource": 100},
        {"_target_": f"{OPTUNA}WilcoxonPruner"},
        {"_target_": f"{__name__}.Own"},
    ],
    ids=lambda config: config["_target_"].rpartition(".")[2],
)
def test_a_pruner_that_can_decide_is_made(config: dict[str, Any]) -> None:
    made: Any = make_pruner(OmegaConf.create(config), "maximize")  # pyright: ignore[reportArgumentType]
    assert type(made).__name__ == config["_target_"].rpartition(".")[2]
