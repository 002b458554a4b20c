"""What a sweep and its jobs store in a study beside Optuna's own fields.

This is the only file that knows the names of these attributes, of trials and of studies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.io.schema import problem_with
from dqn_runner.sweep.config import Session

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial, TrialState

LONGEST_TRACEBACK = 10_000
"""Characters of a traceback that are stored, counted from its end."""

_WORKER = "worker"
_OVERRIDES = "overrides"
_DIRECTORY = "directory"
_METRICS = "metrics"
_TRACEBACK = "traceback"
_RUN = "run_"
_DEFINITION = "definition"
_PRUNER = "pruner"
_SESSION = "session"
_VALIDATION = "validation_"
_PROCESS = "worker:"


class RunState(Enum):
    """How a run ended. Its trial ends in the same state as soon as one of its runs did not finish."""

    FINISHED = "finished"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    FAILED = "failed"

    @property
    def trial_state(self) -> TrialState:
        """Optuna's state for a trial that ends like this."""
        from optuna.trial import TrialState  # late: a run without a sweep does not import Optuna

        match self:
            case RunState.FINISHED:
                return TrialState.COMPLETE
            case RunState.PRUNED | RunState.DIVERGED:
                return TrialState.PRUNED
            case RunState.FAILED:
                return TrialState.FAIL


_REASONS = {RunState.PRUNED: "pruned", RunState.DIVERGED: "diverged", RunState.FAILED: "error"}
"""Attributes of a trial that say why it ended in this state."""


@dataclass(frozen=True)
class RunOutcome:
    """The end of a run: one seed of a trial, or one seed of the validation of a trial."""

    state: RunState
    reason: str
    """Why the run ended, for the user."""
    seed: int
    metrics: Mapping[str, float]
    """The objectives by name (sweep/objectives.py); empty for a run that diverged or failed."""
    directory: str
    """Absolute path of the run directory."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they are stored in the study."""
        return {
            "seed": self.seed,
            "state": self.state.value,
            "reason": self.reason,
            "metrics": dict(self.metrics),
            "directory": self.directory,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> RunOutcome:
        """The inverse of `to_json`."""
        fields: dict[str, Any] = {**stored, "state": RunState(stored["state"])}
        return cls(**fields)


class TrialRecord:
    """Reads the attributes of a trial."""

    def __init__(self, trial: FrozenTrial | Trial) -> None:
        """A `Trial` is read from the storage once, here.

        Raises DamagedError for attributes that no sweep has stored.
        """
        self._attributes: Mapping[str, Any] = trial.user_attrs
        self._where = f"trial {trial.number} of the study"
        _check(self._attributes, _TrialAttributes, self._where)

    @property
    def worker(self) -> str | None:
        """Identifier of the process that runs the trial; None until one has claimed it."""
        return self._attributes.get(_WORKER)

    @property
    def has_overrides(self) -> bool:
        """Whether the trial has got its overrides; one whose record was damaged has none."""
        return bool(self._attributes.get(_OVERRIDES))

    @property
    def has_run(self) -> bool:
        """Whether a sweep ran the trial; `Study.add_trial` adds others, from which samplers learn."""
        return _OVERRIDES in self._attributes

    @property
    def overrides(self) -> list[str]:
        """The overrides of the trial, the values of its parameters."""
        return self._attributes[_OVERRIDES]

    @property
    def directory(self) -> str | None:
        """Absolute path of the directory of the trial's runs; None until the trial is started."""
        return self._attributes.get(_DIRECTORY)

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics of a completed trial, aggregated over its seeds; empty before that."""
        return self._attributes.get(_METRICS, {})

    @property
    def traceback(self) -> str | None:
        """The traceback of the run that failed."""
        return self._attributes.get(_TRACEBACK)

    @property
    def runs(self) -> list[RunOutcome]:
        """The runs that have ended, by seed; those of a validation are stored in the study."""
        stored = (value for name, value in self._attributes.items() if name.startswith(_RUN))
        return sorted((_outcome(value, self._where) for value in stored), key=lambda run: run.seed)

    def run(self, seed_index: int) -> RunOutcome | None:
        """The run of this seed, if it has ended."""
        return _outcome_or_none(self._attributes.get(f"{_RUN}{seed_index}"), self._where)

    def reason(self, state: RunState) -> str | None:
        """Why the trial was pruned, diverged or failed; None if it did not end in this state."""
        return self._attributes.get(_REASONS[state])


def attributes_of_lost_trial() -> dict[str, Any]:
    """Attributes of a trial whose record in a journal is damaged."""
    reason = "its record in the journal of the sweep was damaged"
    return {_OVERRIDES: [], _REASONS[RunState.FAILED]: reason}


def store_claim(trial: Trial, worker: str) -> None:
    """Store which process runs the trial."""
    trial.set_user_attr(_WORKER, worker)


def store_overrides(trial: Trial, overrides: Sequence[str]) -> None:
    """Store the overrides of the trial."""
    trial.set_user_attr(_OVERRIDES, list(overrides))


def store_directory(trial: Trial, directory: Path) -> None:
    """Store the directory of the trial."""
    trial.set_user_attr(_DIRECTORY, str(directory.absolute()))


def store_metrics(trial: Trial, metrics: Mapping[str, float]) -> None:
    """Store the metrics of the trial, aggregated over its seeds."""
    trial.set_user_attr(_METRICS, dict(metrics))


def store_reason(trial: Trial, state: RunState, reason: str) -> None:
    """Store why the trial was pruned, diverged or failed."""
    trial.set_user_attr(_REASONS[state], reason)


def store_traceback(trial: Trial, traceback: str) -> None:
    """Store the end of the traceback of a run that failed."""
    trial.set_user_attr(_TRACEBACK, traceback[-LONGEST_TRACEBACK:])


def store_run(trial: Trial, seed_index: int, outcome: RunOutcome) -> None:
    """Store the outcome of the run of this seed."""
    trial.set_user_attr(f"{_RUN}{seed_index}", outcome.to_json())


def store_validation(study: Study, number: int, seed_index: int, outcome: RunOutcome) -> None:
    """Store the outcome of a validation run of a trial, which has finished and takes no more attributes."""
    study.set_user_attr(f"{_VALIDATION}{number}_{seed_index}", outcome.to_json())


def validation_of(study: Study, number: int, seed_index: int) -> RunOutcome | None:
    """The outcome of a validation run of a trial, if the run has ended."""
    stored = study.user_attrs.get(f"{_VALIDATION}{number}_{seed_index}")
    return _outcome_or_none(stored, f"the validation of trial {number}")


def store_definition(study: Study, definition: Mapping[str, Any]) -> None:
    """Store the definition of the sweep (see `Plan.definition`)."""
    study.set_user_attr(_DEFINITION, dict(definition))


def definition_of(study: Study) -> dict[str, Any] | None:
    """The definition of the sweep that created the study; None if none is stored yet."""
    _check(study.user_attrs, _StudyAttributes, "the study")
    return study.user_attrs.get(_DEFINITION)


def store_pruner(study: Study, config: Mapping[str, Any]) -> None:
    """Store the configuration of the pruner, which the jobs need; no write if it is stored already."""
    if study.user_attrs.get(_PRUNER) != config:
        study.set_user_attr(_PRUNER, dict(config))


def pruner_of(study: Study) -> dict[str, Any]:
    """The configuration of the pruner."""
    return study.user_attrs[_PRUNER]


def store_session(study: Study, facts: Mapping[str, Any]) -> None:
    """Store what only the last session decided, which reports need; no write if it is stored already."""
    if study.user_attrs.get(_SESSION) != facts:
        study.set_user_attr(_SESSION, dict(facts))


def session_of(study: Study) -> Session | None:
    """What the last session decided; None for a study of an earlier version."""
    _check(study.user_attrs, _StudyAttributes, "the study")
    return study.user_attrs.get(_SESSION)


def store_worker(study: Study, worker: str, entry: Mapping[str, Any]) -> None:
    """Store the latest sign of life of a process (see sweep/heartbeat.py)."""
    study.set_user_attr(_PROCESS + worker, dict(entry))


def workers_of(study: Study) -> dict[str, dict[str, Any]]:
    """The latest signs of life of all processes that have worked on the study, by their identifiers."""
    stored = study.user_attrs.items()
    found = {name.removeprefix(_PROCESS): entry for name, entry in stored if name.startswith(_PROCESS)}
    _check(found, dict[str, _Worker], "the study")
    return found


class _TrialAttributes(TypedDict, total=False):
    worker: str
    overrides: list[str]
    directory: str
    metrics: dict[str, float]
    traceback: str
    pruned: str
    diverged: str
    error: str


class _StudyAttributes(TypedDict, total=False):
    definition: dict[str, Any]
    pruner: dict[str, Any]
    session: Session


class _Worker(TypedDict):
    host: str
    pid: int
    started: str | None
    beats: int
    ended: bool


class _Run(TypedDict):
    seed: int
    state: Literal["finished", "pruned", "diverged", "failed"]
    reason: str
    metrics: dict[str, float]
    directory: str


def _check(stored: Any, schema: Any, where: str) -> None:
    if problem := problem_with(stored, schema):
        raise DamagedError(f"{where} has an attribute that no sweep has stored: {problem}")


def _outcome(stored: Any, where: str) -> RunOutcome:
    _check(stored, _Run, where)
    return RunOutcome.from_json(stored)


def _outcome_or_none(stored: Any, where: str) -> RunOutcome | None:
    return None if stored is None else _outcome(stored, where)
