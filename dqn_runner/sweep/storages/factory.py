"""Opens the storage of a study by its URL: a journal file or a database."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from dqn_runner.core.exceptions import DamagedError, UserError
from dqn_runner.core.secrets import redact
from dqn_runner.sweep.storages.journal import Journal
from dqn_runner.sweep.storages.rdb import CREATING_TABLES, RetryingStorage, retry

FORMS = (
    "give hydra.sweeper.storage the path of a journal, sqlite:///FILE, "
    "postgresql://USER:PASSWORD@HOST/NAME or mysql://USER:PASSWORD@HOST/NAME"
)

DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
"""The driver for a URL that names none."""

CONNECT_ARGS: dict[str, dict[str, Any]] = {
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
"""Arguments of the drivers, which detect a lost server within about a minute; TCP alone takes hours."""


def open_storage(url: str, retry_seconds: float = 3.0) -> BaseStorage:
    """The storage at `url`: the path of a journal file, `journal:///PATH`, or the URL of a database.

    A database that cannot be reached is tried for `retry_seconds` here, and for ten minutes by later calls.
    Raises UserError with what to install or to check, and without the password.
    """
    kind, separator, path = url.partition("://")
    if not separator:
        return _open_journal(Path(url))
    if kind == "journal":
        return _open_journal(Path(path))
    return _open_database(_parse(url), retry_seconds)


def without_password(url: str) -> str:
    """The URL with `***` as the password, for messages."""
    return _parse(url).render_as_string() if "://" in url else url


def _open_journal(path: Path) -> BaseStorage:
    try:
        backend = Journal(path)
    except OSError as error:
        raise UserError(f"the journal {path} cannot be opened: {error.strerror}; {FORMS}") from error
    try:
        try:
            return JournalStorage(backend)
        except DamagedError:
            backend.repair()
            return JournalStorage(backend)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise UserError(
            f"{path} is not a journal of a sweep, or is damaged ({error}); choose another "
            "hydra.sweeper.storage"
        ) from error


def _parse(url: str) -> URL:
    parsed: URL | None = None
    with suppress(ArgumentError, ValueError):  # their messages may contain the password
        parsed = make_url(url)
    if parsed is None or "@" in (parsed.host or ""):  # the end of a password that has an @
        raise UserError(
            "hydra.sweeper.storage is not a URL (special characters of a password are percent-encoded: "
            f"{'%40'} for @); {FORMS}"
        )
    return parsed


def _open_database(url: URL, retry_seconds: float) -> BaseStorage:
    server = url.get_backend_name()
    if server not in CONNECT_ARGS:
        raise UserError(f"hydra.sweeper.storage: unknown storage {url.drivername}://; {FORMS}")
    if server == "sqlite" and url.database and not Path(url.database).absolute().parent.is_dir():
        raise UserError(
            f"hydra.sweeper.storage: the directory {Path(url.database).parent} is missing for the file of "
            "the study; create it"
        )
    if server == "sqlite" and url.database and Path(url.database).is_dir():
        raise UserError(
            f"hydra.sweeper.storage: {url.database} is a directory, not the file of a study; give "
            f"sqlite:///{Path(url.database) / 'study.db'}"
        )
    if server == "sqlite" and url.database in (None, "", ":memory:"):
        raise UserError("hydra.sweeper.storage: jobs cannot share a database in memory; give sqlite:///FILE")
    full = url.set(drivername=DRIVERS.get(url.drivername, url.drivername)).render_as_string(False)
    options = {
        "connect_args": CONNECT_ARGS[server],
        "pool_pre_ping": True,
        "pool_size": 1,  # idle connections that a process keeps; servers allow about a hundred in all
        "max_overflow": -1,
    }
    try:
        database = retry(partial(RDBStorage, full, options), retry_seconds, CREATING_TABLES)
    except UserError as error:
        raise UserError(f"{url.render_as_string()}: {error}") from error
    except ImportError as error:
        ours = url.drivername in (server, DRIVERS.get(server))
        hint = f"; pip install 'dqn_runner[{server}]'" if ours else ""
        hint = hint or f"; install it, or write {server}:// in hydra.sweeper.storage"
        raise UserError(f"the driver of {url.drivername}:// is not installed{hint}") from error
    except NoSuchModuleError as error:
        raise UserError(f"hydra.sweeper.storage: unknown driver {url.drivername}") from error
    except ArgumentError as error:  # such as a user in the URL of a file
        text = " ".join(redact(str(error)).split())
        raise UserError(f"hydra.sweeper.storage: {text}; {FORMS}") from None
    except RuntimeError as error:  # the tables were created by another version of Optuna
        raise UserError(f"{url.render_as_string()}: {str(error).strip()}") from error
    return RetryingStorage(get_storage(database))  # pyright: ignore[reportAbstractUsage], generated methods
