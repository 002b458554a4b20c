"""What a function of the user suggests for a trial, and the values with which a trial was enqueued."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import optuna
from omegaconf import DictConfig
from optuna.trial import FrozenTrial

from dqn_runner.config.hydra_internals import locate
from dqn_runner.core.exceptions import UserError

CUSTOM = "hydra.sweeper.custom_search_space"
ENQUEUED = "fixed_params"
"""The attribute in which Optuna stores the values of `Study.enqueue_trial`."""


def enqueued_values(trial: FrozenTrial) -> Mapping[str, Any]:
    """The values with which `Study.enqueue_trial` stored a trial, by parameter."""
    values: Any = trial.system_attrs.get(ENQUEUED)
    return cast("Mapping[str, Any]", values) if isinstance(values, Mapping) else {}


class _EnqueuedError(ValueError):
    """A trial was enqueued with a value that its parameter cannot have."""


class _RecordedTrial:
    """A trial as a custom function sees it; remembers what is suggested.

    The study may hold other parameters of the trial, which must not become settings.
    """

    def __init__(self, trial: optuna.Trial | FrozenTrial, enqueued: Mapping[str, Any]) -> None:
        self.suggested: set[str] = set()
        self._trial = trial
        self._enqueued = enqueued

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._trial, name)
        if not name.startswith("suggest_"):
            return attribute

        def suggest(*arguments: Any, **keywords: Any) -> Any:
            name = arguments[0] if arguments else keywords["name"]
            self.suggested.add(name)
            try:
                return attribute(*arguments, **keywords)
            except ValueError as error:
                if name not in self._enqueued:
                    raise
                value = self._enqueued[name]
                raise _EnqueuedError(f"{name}={value} is not in the search space") from error

        return suggest


def suggested_names(
    path: str, trial: optuna.Trial | FrozenTrial, config: DictConfig, enqueued: Mapping[str, Any]
) -> set[str]:
    """The names that a custom function suggests for a trial with these `enqueued_values`."""
    recorded = _RecordedTrial(trial, enqueued)
    try:
        custom_function(path)(config, recorded)
    except (UserError, _EnqueuedError):
        raise
    except Exception as error:  # the user's function can raise anything
        if isinstance(trial, FrozenTrial) and isinstance(error, ValueError):
            raise  # the trial lacks a value
        raise UserError(f"{CUSTOM}={path} raised {type(error).__name__}: {error}") from error
    return recorded.suggested


def custom_function(path: str) -> Callable[[DictConfig, Any], object]:
    """The function at an import path; raises UserError if it cannot be imported."""
    try:
        return locate(path)
    except Exception as error:  # importing the user's module can raise anything
        raise UserError(f"{CUSTOM}={path} cannot be imported: {error}") from error
