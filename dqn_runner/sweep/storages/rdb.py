"""The database of a study: a connection that is lost is made again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.log import log

PATIENCE = 600.0
"""Seconds that a sweep and its jobs wait for a database that has answered before."""

AWAY = (OperationalError, InterfaceError)
"""What drivers raise where the server is away, restarts, is full of connections, or holds a lock too long."""

BEING_MADE = (*AWAY, ProgrammingError, IntegrityError)
"""Also what they raise where another process makes the same tables at the same moment."""

_T = TypeVar("_T")


class RetryingRDBStorage(RDBStorage):
    """Optuna's storage in a database, each of whose calls waits while the server is away.

    A call is repeated as a whole, and writing the same twice does no harm. Only where a connection is lost
    in the instant between a commit and its answer, a trial may have been created that nobody runs.
    """

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's; a trial that this call finished before its answer was lost is no error."""
        calls = 0

        def call() -> bool:
            nonlocal calls
            calls += 1
            try:
                return super(RetryingRDBStorage, self).set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if calls > 1 and self.get_trial(trial_id).state is state:
                    return True
                raise

        return retry(call, PATIENCE)


def retry(call: Callable[[], _T], seconds: float, errors: tuple[type[DBAPIError], ...] = AWAY) -> _T:
    """The result of `call`, which is repeated while it raises one of `errors`.

    Raises UserError when that has lasted so many seconds.
    """
    end: float | None = None
    pause = 0.25
    while True:
        try:
            result = call()
        except (DBAPIError, StorageInternalError) as error:
            cause = error if isinstance(error, DBAPIError) else error.__cause__
            if not isinstance(cause, errors):
                raise
            said = str(cause.orig).strip().partition("\n")[0]
            if end is None:
                end = time.monotonic() + seconds
                log.warning("the database of the sweep does not answer, and is waited for: %s", said)
            if time.monotonic() + pause > end:
                raise UserError(
                    f"the database of the sweep did not answer for {seconds:g} seconds: {said}; check that "
                    "its server runs, and the host, name, user and password in hydra.sweeper.storage"
                ) from error
            time.sleep(pause)
            pause = min(2 * pause, 10.0)
        else:
            if end is not None:
                log.warning("the database of the sweep answers again")
            return result


def _patient(method: Callable[..., _T]) -> Callable[..., _T]:
    @wraps(method)
    def call(*arguments: Any, **keywords: Any) -> _T:
        return retry(partial(method, *arguments, **keywords), PATIENCE)

    return call


for _name in (
    "create_new_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_directions",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_all_studies",
    "_create_new_trial",
    "_set_trial_param",
    "set_trial_param",
    "_get_trials",
    "_get_best_trial_id",
    "get_best_trial",
    "get_trial",
    "get_trial_id_from_study_id_trial_number",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
):  # what Optuna's cache before a database calls of it, in one version or another
    if hasattr(RDBStorage, _name):
        setattr(RetryingRDBStorage, _name, _patient(getattr(RDBStorage, _name)))
