"""Where a study is kept: a journal file, or a database, by URL."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.storages.journal import Journal
from dqn_runner.sweep.storages.rdb import BEING_MADE, RetryingRDBStorage, retry

FORMS = (
    "give hydra.sweeper.storage the path of a journal, sqlite:///FILE, "
    "postgresql://USER:PASSWORD@HOST/NAME or mysql://USER:PASSWORD@HOST/NAME"
)

DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
"""What speaks to a database whose URL does not say it."""

OPTIONS: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 60},
    "postgresql": {
        "connect_timeout": 10,
        "client_encoding": "utf8",
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    },
    "mysql": {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60},
}
"""So that a server that vanished is noticed within a minute or so, where TCP alone would take hours."""


def open_storage(url: str, patience: float = 3.0) -> BaseStorage:
    """The storage at `url`: the path of a journal file, `journal:///PATH`, or a database's URL.

    A database that does not answer is waited for so many seconds here, and ten minutes afterwards. Raises
    UserError with what to install or to check, and no password in it.
    """
    kind, separator, path = url.partition("://")
    if not separator:
        return _journal(Path(url))
    if kind == "journal":
        return _journal(Path(path))
    return _database(_parsed(url), patience)


def without_password(url: str) -> str:
    """A storage as one may print it."""
    return _parsed(url).render_as_string() if "://" in url else url


def _journal(path: Path) -> BaseStorage:
    try:
        backend = Journal(path)
    except OSError as error:
        raise UserError(f"the journal {path} cannot be opened: {error.strerror}; {FORMS}") from error
    try:
        return JournalStorage(backend)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is no journal of a sweep, or is damaged ({error}); choose another hydra.sweeper.storage"
        ) from error


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):  # their messages may hold the password
        raise UserError(
            "hydra.sweeper.storage is no URL (a password's special characters are written as in "
            f"{'%40'} for @); {FORMS}"
        ) from None


def _database(url: URL, patience: float) -> BaseStorage:
    server = url.get_backend_name()
    if server not in OPTIONS:
        raise UserError(f"hydra.sweeper.storage: there is no storage {url.drivername}://; {FORMS}")
    if server == "sqlite" and url.database in (None, "", ":memory:"):
        raise UserError("hydra.sweeper.storage: jobs cannot share a database in memory; give sqlite:///FILE")
    full = url.set(drivername=DRIVERS.get(url.drivername, url.drivername)).render_as_string(False)
    options = {
        "connect_args": OPTIONS[server],
        "pool_pre_ping": True,
        "pool_size": 1,  # a connection that a process keeps; servers have a hundred or so
        "max_overflow": -1,
    }
    try:
        return retry(partial(RetryingRDBStorage, full, options), patience, BEING_MADE)
    except UserError as error:
        raise UserError(f"{url.render_as_string()}: {error}") from error
    except ImportError as error:
        hint = f"; pip install 'dqn_runner[{server}]'" if url.drivername in DRIVERS else ""
        raise UserError(f"the driver of {url.drivername}:// is not installed{hint}") from error
    except NoSuchModuleError as error:
        raise UserError(f"hydra.sweeper.storage: there is no driver {url.drivername}") from error
    except RuntimeError as error:  # the tables are those of another version of Optuna
        raise UserError(f"{url.render_as_string()}: {str(error).strip()}") from error
