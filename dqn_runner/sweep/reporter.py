"""A run's line to the study of the sweep that it is a job of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError

from dqn_runner.core.log import log
from dqn_runner.sweep.objectives import Aggregate, aggregate
from dqn_runner.sweep.study import DEFINITION, PRUNED, load_study, take_up, validation_key

LONGEST_TRACE = 10_000
"""Characters of a traceback that go into a study; the end says most."""


@dataclass(frozen=True)
class Place:
    """Which run of a sweep this is."""

    storage: str
    study: str
    trial: int
    run: int
    """The how manyth seed; beyond those of the trial it is a run that validates it."""


class Reporter:
    """Tells the study each evaluation and the outcome, and asks it whether to go on."""

    def __init__(self, place: Place, every: int, budget: int | None) -> None:
        """Of a run that evaluates `every` so many steps or episodes, up to `budget` of them."""
        self._place = place
        self._every = every
        self._study = load_study(place.storage, place.study)
        self._sweep: dict[str, Any] = self._study.user_attrs[DEFINITION]
        self._trial = take_up(self._study, place.trial)
        self._validates = place.run >= self._sweep["seeds"]
        pruner = str(self._study.user_attrs["pruner"]["_target_"])
        self._reports = len(self._sweep["objective"]) == 1 and not pruner.endswith(".WilcoxonPruner")
        self._offset = place.run * (budget // every + 1) if budget else 0

    def __call__(self, position: int, mean: float) -> str | None:
        """Report an evaluation's mean return at this point of the run; why to stop, if it should.

        A run that was killed and goes on evaluates again what it reported before. The pruner's answers of
        then hold: it judges a trial by its last report, and some pruners answer only once.
        """
        if self._validates or not self._reports:
            return None
        step = self._offset + position // self._every
        trial = self._study.get_trials(deepcopy=False)[self._trial.number]
        known = trial.intermediate_values
        if step not in known:
            together = aggregate([*self._finished(), mean], Aggregate(self._sweep["aggregate"]))
            self._trial.report(together, step)
        elif step < max(known):
            return None
        elif PRUNED in trial.user_attrs:
            return trial.user_attrs[PRUNED]
        if not self._trial.should_prune():
            return None
        why = f"pruned by the sweep's {type(self._study.pruner).__name__} after evaluation {step}"
        self._trial.set_user_attr(PRUNED, why)
        return why

    def finish(
        self, state: str, reason: str, seed: int, metrics: Mapping[str, float], directory: Path
    ) -> None:
        """Tell the outcome: `finished`, `pruned` or `diverged`, and why."""
        outcome = {
            "seed": seed,
            "state": state,
            "reason": reason,
            "metrics": dict(metrics),
            "directory": str(directory.absolute()),
        }
        try:
            if self._validates:
                self._study.set_user_attr(validation_key(self._place.trial, self._place.run), outcome)
            else:
                self._trial.set_user_attr(f"run_{self._place.run}", outcome)
        except UpdateFinishedTrialError:
            log.warning("trial %s was finished by somebody else in the meantime", self._place.trial)

    def failed(self, trace: str) -> None:
        """Leave the traceback of an error in the study; one that cannot be left there hides none."""
        try:
            self._trial.set_user_attr("traceback", trace[-LONGEST_TRACE:])
        except Exception:
            log.exception("the study could not be told of the error")

    def _finished(self) -> list[float]:
        """The objective of the seeds that ran before."""
        runs = (self._trial.user_attrs[f"run_{k}"] for k in range(self._place.run))
        return [run["metrics"][self._sweep["objective"][0]] for run in runs]
