"""The database of a study: calls are repeated while the server cannot be reached."""

from __future__ import annotations

import abc
import inspect
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy.exc import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
    SQLAlchemyError,
)

from dqn_runner.core.exceptions import NoRoomError, UserError
from dqn_runner.core.log import log

RETRY_SECONDS = 600.0
"""How long a sweep and its jobs wait for a database that has answered before."""

UNREACHABLE = (OperationalError, InterfaceError, PendingRollbackError)
"""What drivers raise if the server is down, restarts, has no free connection, or holds a lock too long.

The last one is SQLAlchemy's: Optuna answers an OperationalError with a second query in the same transaction,
which fails because the connection is lost.
"""

CREATING_TABLES = (*UNREACHABLE, ProgrammingError, IntegrityError)
"""Also what they raise if another process creates the same tables at the same time."""

_T = TypeVar("_T")


def _forward_public_methods(cls: type[RetryingStorage]) -> type[RetryingStorage]:
    """Give `cls` every public method of Optuna's interface that it does not define itself."""
    for name, method in inspect.getmembers(BaseStorage, inspect.isfunction):
        if not name.startswith("_") and name not in vars(cls):
            setattr(cls, name, _forwarded(method))
    return abc.update_abstractmethods(cls)


def _forwarded(method: Callable[..., Any]) -> Callable[..., Any]:
    name = method.__name__

    @wraps(method, updated=())  # without the mark of an abstract method
    def call(self: RetryingStorage, *arguments: Any, **keywords: Any) -> Any:
        return retry(partial(getattr(self.storage, name), *arguments, **keywords), RETRY_SECONDS)

    return call


@_forward_public_methods
class RetryingStorage(BaseStorage):
    """Forwards every call to a storage in a database, and repeats it while the server cannot be reached.

    Optuna adds its cache only to an `RDBStorage`. `storage` is therefore the cached storage, not the
    `RDBStorage` in it: reading a finished trial costs no query, as without this class.

    A call is repeated as a whole, and writing the same twice has no effect. There is one exception: if the
    connection is lost between a commit and its answer, an additional trial may have been created. It has no
    worker, and is requeued (see TrialQueue).
    """

    def __init__(self, storage: BaseStorage) -> None:
        """Wrap `storage`, which is connected already."""
        self.storage = storage

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's; a trial that this call finished before the connection was lost is not an error."""
        calls = 0

        def call() -> bool:
            nonlocal calls
            calls += 1
            try:
                return self.storage.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if calls > 1 and self.storage.get_trial(trial_id).state is state:
                    return True
                raise

        return retry(call, RETRY_SECONDS)


def retry(
    call: Callable[[], _T], seconds: float, errors: tuple[type[SQLAlchemyError], ...] = UNREACHABLE
) -> _T:
    """The result of `call`, which is repeated while it raises one of `errors`.

    Raises UserError if it still does so `seconds` after the first error, or at once if the database is no
    database, or is damaged; NoRoomError at once if its disk is full.
    """
    end: float | None = None
    pause = 0.25
    while True:
        try:
            result = call()
        except (SQLAlchemyError, StorageInternalError) as error:
            cause = error if isinstance(error, SQLAlchemyError) else error.__cause__
            message = str(getattr(cause, "orig", cause)).strip().partition("\n")[0]
            if type(cause) is DatabaseError:  # SQLite has no class of its own for a damaged file
                raise UserError(
                    f"the database of the sweep cannot be read: {message}; restore a copy of it, or choose "
                    "another hydra.sweeper.storage"
                ) from error
            if not isinstance(cause, errors):
                raise
            if _disk_is_full(getattr(cause, "orig", None)):
                raise NoRoomError(
                    f"the database of the sweep cannot be written: {message}; free disk space, and repeat "
                    "the command to continue"
                ) from error
            if end is None:
                end = time.monotonic() + seconds
                log.warning("the database of the sweep does not answer; retrying: %s", message)
            if time.monotonic() + pause > end:
                raise UserError(
                    f"the database of the sweep did not answer for {seconds:g} seconds: {message}; "
                    f"{_what_to_check(getattr(cause, 'orig', None))}"
                ) from error
            time.sleep(pause)
            pause = min(2 * pause, 10.0)
        else:
            if end is not None:
                log.warning("the database of the sweep answers again")
            return result


def _what_to_check(error: BaseException | None) -> str:
    """What can be the reason that a database does not answer; `error` is that of its driver."""
    if isinstance(error, sqlite3.Error):
        return (
            "check that its file and directory can be read and written, and that no other program holds "
            "the file locked"
        )
    return "check that its server runs, and the host, name, user and password in hydra.sweeper.storage"


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether a driver reports that the disk of the database is full: SQLite, PostgreSQL, MySQL."""
    if (
        getattr(error, "sqlite_errorname", None) == "SQLITE_FULL"
        or getattr(error, "sqlstate", None) == "53100"
    ):
        return True
    return type(error).__module__.startswith("pymysql") and error is not None and error.args[:1] == (1021,)
