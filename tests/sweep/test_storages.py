"""Studies survive killed writers: incomplete lines of a journal, lost connections to a database."""

from __future__ import annotations

import inspect
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.exc import OperationalError, PendingRollbackError

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.secrets import redact
from dqn_runner.sweep.storages import factory, rdb
from dqn_runner.sweep.storages.factory import open_storage, without_password
from tests.support.fork_server import forked_python
from tests.support.servers import ENCODED, PASSWORD, Server, mysql, postgresql

__all__ = ["mysql", "postgresql"]

ROOT = Path(__file__).parents[2]
NAME = "a study"

WRITER = """
import optuna
from dqn_runner.sweep.storages.factory import open_storage
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(
    storage=open_storage(URL), study_name="a study", sampler=optuna.samplers.RandomSampler()
)
for _ in range(TRIALS):
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    for step in range(3):
        trial.report(step, step)
        print(trial.number, step, flush=True)
    study.tell(trial, trial.number)
    print(trial.number, "told", flush=True)
"""


class Writer:
    """A process that runs trials, and prints what has been stored."""

    def __init__(self, url: str, trials: int, before: str = "") -> None:
        """`before` is code that runs first."""
        command = [forked_python(), "-c", f"URL, TRIALS = {url!r}, {trials}\n{before}{WRITER}"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []

    def read(self, lines: int) -> None:
        """Wait for this number of further lines."""
        assert self.process.stdout is not None
        for _ in range(lines):
            line = self.process.stdout.readline()
            assert line.endswith("\n"), self.end()
            self.lines.append(line)

    def end(self) -> str:
        """Wait until it exits; returns what it wrote to standard error."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        with self.process.stdout as out, self.process.stderr as err:
            self.lines += out.readlines()
            self.process.wait()
            return err.read()

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.process.kill()
        self.end()

    def check(self, trials: list[optuna.trial.FrozenTrial]) -> None:
        """Check that everything it printed is stored."""
        assert self.lines
        for line in self.lines:
            if line.endswith("\n"):
                number, event = line.split()
                trial = trials[int(number)]
                assert trial.number == int(number)
                if event == "told":
                    assert trial.state is TrialState.COMPLETE
                    assert trial.value == float(number)
                else:
                    assert trial.intermediate_values[int(event)] == float(event)


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the connections; in production the operating system does, here the drivers would warn."""
    opened: list[RDBStorage] = []

    class Recorded(RDBStorage):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            opened.append(self)

    monkeypatch.setattr(factory, "RDBStorage", Recorded)
    yield
    for each in opened:
        each.engine.dispose()


@pytest.fixture(params=["journal", "sqlite", "postgresql", "mysql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "journal":
        yield str(tmp_path / "study.journal")
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/study.db"
    else:
        server: Server = request.getfixturevalue(request.param)
        yield server.new_database()


def new_study(url: str) -> optuna.Study:
    return optuna.create_study(storage=open_storage(url), study_name=NAME)


def trials_of(url: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(storage=open_storage(url), study_name=NAME).trials


@pytest.mark.slow
def test_processes_that_share_a_study_store_every_trial_once(url: str) -> None:
    new_study(url)
    writers = [Writer(url, 5) for _ in range(3)]
    for writer in writers:
        assert writer.end() == ""
        assert writer.process.returncode == 0
    trials = trials_of(url)
    assert [trial.number for trial in trials] == list(range(15))
    for writer in writers:
        writer.check(trials)
    assert sorted(number for w in writers for number in w.lines if "told" in number) == sorted(
        f"{number} told\n" for number in range(15)
    )


@pytest.mark.slow
def test_journal_remains_usable_when_writers_are_killed_at_random_moments(tmp_path: Path) -> None:
    url, rng = str(tmp_path / "study.journal"), random.Random(3)
    new_study(url)
    writers = [Writer(url, 10**6) for _ in range(3)]
    writing = list(writers)
    for _ in range(3):
        for writer in writing:
            writer.read(rng.randrange(1, 20))
        writing.pop(rng.randrange(3)).kill()
        writing.append(Writer(url, 10**6))
        writers.append(writing[-1])
    for writer in writing:
        writer.read(1)
        writer.kill()
    trials = trials_of(url)
    for writer in writers:
        writer.check(trials)
    assert study_is_usable(url)


KILLED = """
import fcntl, io, os
from dqn_runner.sweep.storages import journal
die = lambda *_: os.kill(os.getpid(), 9)
"""
MOMENTS = {
    "with the lock": "flock = fcntl.flock\nfcntl.flock = lambda *args: (flock(*args), left or die())\n",
    "within a line": (
        "class Half(io.FileIO):\n"
        "    def write(self, line):\n"
        "        return super().write(line) if left else (super().write(line[: len(line) // 2]), die())\n"
        "journal.Path.open = lambda self, mode='r', *_, **__: Half(self, mode)\n"
    ),
    "before the write is confirmed": (
        "fsync = os.fsync\njournal.os.fsync = lambda file: fsync(file) if left else die()\n"
    ),
}
COUNTDOWN = """
append = journal.Journal.append_logs
def counted(self, logs):
    global left
    left -= 1
    append(self, logs)
left = 6
journal.Journal.append_logs = counted
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_journal_remains_usable_when_a_writer_is_killed_at_one_moment(tmp_path: Path, moment: str) -> None:
    url = str(tmp_path / "study.journal")
    new_study(url)
    killed = Writer(url, 10**6, KILLED + COUNTDOWN + MOMENTS[moment])
    killed.end()
    assert killed.process.returncode == -9
    assert (Path(url).read_bytes()[-1:] != b"\n") == (moment == "within a line")
    assert study_is_usable(url)
    killed.check(trials_of(url))


def study_is_usable(url: str) -> bool:
    """Whether two processes in turn can read and write the study, and Optuna's own backend can read it."""
    for _ in range(2):
        study = optuna.load_study(storage=open_storage(url), study_name=NAME)
        trial = study.ask()
        study.tell(trial, 1.0)
    stock = optuna.load_study(storage=JournalStorage(JournalFileBackend(url)), study_name=NAME)
    return stock.trials[-1].value == 1.0 and len(stock.trials) == len(study.trials)


def test_journal_keeps_lines_longer_than_a_block(tmp_path: Path) -> None:
    url = str(tmp_path / "study.journal")
    study = new_study(url)
    study.set_user_attr("long", "x" * 200_000)
    with Path(url).open("ab") as file:
        file.write(b"y" * 200_000)
    study.set_user_attr("short", "z")
    attributes = optuna.load_study(storage=open_storage(url), study_name=NAME).user_attrs
    assert attributes == {"long": "x" * 200_000, "short": "z"}


def test_journal_can_be_given_as_a_url(tmp_path: Path) -> None:
    new_study(f"journal://{tmp_path}/study.journal")
    assert trials_of(str(tmp_path / "study.journal")) == []


@pytest.mark.slow
def test_jobs_survive_a_restart_of_the_database(postgresql: Server) -> None:
    url = postgresql.new_database()
    new_study(url)
    writers = [Writer(url, 10**6) for _ in range(2)]
    for writer in writers:
        writer.read(8)
    postgresql.stop()
    try:
        for writer in writers:
            assert writer.process.stderr is not None
            assert "does not answer" in writer.process.stderr.readline()
    finally:
        postgresql.start()
    for writer in writers:
        assert writer.process.stderr is not None
        assert "answers again" in writer.process.stderr.readline()
        writer.read(20)
        writer.kill()
    trials = trials_of(url)
    for writer in writers:
        writer.check(trials)


def lost(*_: object) -> None:
    raise OperationalError("SELECT 1", {}, Exception("server closed the connection"))


def test_finishing_a_trial_succeeds_when_the_answer_of_the_database_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = new_study(f"sqlite:///{tmp_path}/study.db")
    store, calls = RDBStorage.set_trial_state_values, 0

    def store_and_lose(*arguments: object, **keywords: object) -> bool:
        nonlocal calls
        calls += 1
        stored = store(*arguments, **keywords)  # type: ignore[arg-type]
        if calls == 1:
            lost()
        return stored

    trial = study.ask()
    monkeypatch.setattr(RDBStorage, "set_trial_state_values", store_and_lose)
    study.tell(trial, 2.0)
    assert calls == 2
    assert study.trials[0].value == 2.0
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        open_storage(f"sqlite:///{tmp_path}/study.db").set_trial_state_values(1, TrialState.FAIL)


def test_retrying_storage_forwards_every_public_method_of_optuna() -> None:
    public = {name for name, _ in inspect.getmembers(BaseStorage, inspect.isfunction) if name[0] != "_"}
    assert len(public) > 20
    assert public <= vars(rdb.RetryingStorage).keys()


def test_retrying_storage_reads_finished_trials_from_the_cache(tmp_path: Path) -> None:
    study = new_study(f"sqlite:///{tmp_path}/study.db")
    trial = study.ask()
    study.tell(trial, 2.0)
    assert study.trials[0].value == 2.0
    statements: list[str] = []
    engine = study._storage.storage._backend.engine  # type: ignore[attr-defined]
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    assert study._storage.get_trial(trial._trial_id).value == 2.0
    assert study._storage.get_study_directions(study._study_id) == study.directions
    assert statements == []


def test_unreachable_database_raises_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = new_study(f"sqlite:///{tmp_path}/study.db")
    monkeypatch.setattr(rdb, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(study._storage.storage._backend, "scoped_session", lost)
    with pytest.raises(UserError, match="did not answer for 0 seconds: server closed the connection"):
        study.set_user_attr("a", 1)


def test_query_in_a_transaction_that_lost_its_connection_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = new_study(f"sqlite:///{tmp_path}/study.db")
    calls, get_trials = [], RDBStorage._get_trials

    def lose_once(*arguments: object, **keywords: object) -> object:
        calls.append(arguments)
        if len(calls) == 1:
            try:
                raise PendingRollbackError("Can't reconnect until invalid transaction is rolled back.")
            except PendingRollbackError as error:
                raise StorageInternalError from error
        return get_trials(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(RDBStorage, "_get_trials", lose_once)
    assert study.trials == []
    assert len(calls) == 2


def test_value_that_cannot_be_stored_raises_without_retries(tmp_path: Path) -> None:
    study = new_study(f"sqlite:///{tmp_path}/study.db")
    with pytest.raises(TypeError):
        study.set_user_attr("a", object())


INVALID = {
    "redis://host/0": "unknown storage redis://",
    "postgresql+other://host/name": "unknown driver postgresql\\+other",
    "sqlite://": "in memory",
    "sqlite:///:memory:": "in memory",
    "sqlite:////nowhere/study.db": "the directory /nowhere is missing for the file",
    "/nowhere/study.journal": "No such file or directory",
    "postgresql://me:secret@host:port/name": "is not a URL",
    "postgresql://me:pass@secret@host/name": "is not a URL.*%40 for @",
    "postgresql://me:secret@127.0.0.1:1/name": "[Cc]onnection refused",
    "mysql://me:secret@127.0.0.1:1/name": "Can't connect",
}


@pytest.mark.parametrize("url", INVALID)
def test_error_of_a_storage_that_cannot_be_opened_hides_the_password(url: str) -> None:
    with pytest.raises(UserError, match=INVALID[url]) as caught:
        open_storage(url, retry_seconds=0.0)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_form_of_a_url_is_shown_with_its_placeholders() -> None:
    with pytest.raises(UserError) as caught:
        open_storage("redis://host/0")
    assert "postgresql://USER:PASSWORD@HOST/NAME" in redact(str(caught.value))


def test_file_that_is_not_a_database_is_an_error_of_one_line(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    file.write_text("notes " * 1000)
    with pytest.raises(
        UserError, match=r"study\.db: the database of the sweep cannot be read: file is not a"
    ):
        open_storage(f"sqlite:///{file}")


def test_directory_in_the_place_of_a_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"{tmp_path} is a directory.*; give sqlite:///{tmp_path}/study\.db$"
    ):
        open_storage(f"sqlite:///{tmp_path}")


def test_file_of_a_database_that_is_locked_is_not_a_server() -> None:
    locked = OperationalError("", None, sqlite3.OperationalError("database is locked"))

    def call() -> None:
        raise locked

    with pytest.raises(UserError, match=r"database is locked; check that its file .* locked$"):
        rdb.retry(call, 0.0)


def test_database_that_is_damaged_later_is_an_error_of_one_line(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    study = new_study(f"sqlite:///{file}")
    study._storage.remove_session()
    file.write_text("notes " * 1000)
    with pytest.raises(UserError, match="the database of the sweep cannot be read"):
        study.ask()


@pytest.mark.parametrize(("server", "module"), [("postgresql", "psycopg"), ("mysql", "pymysql")])
def test_missing_database_driver_is_named(monkeypatch: pytest.MonkeyPatch, server: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"pip install 'dqn_runner\[{server}\]'"):
        open_storage(f"{server}://me:secret@127.0.0.1:1/name")


@pytest.mark.slow
def test_wrong_password_or_database_name_is_named(postgresql: Server) -> None:
    url = postgresql.new_database()
    with pytest.raises(UserError, match="password authentication failed") as caught:
        open_storage(url.replace(ENCODED, "guess"), retry_seconds=0.0)
    assert "guess" not in str(caught.value)
    with pytest.raises(UserError, match="does not exist") as caught:
        open_storage(f"{url}_more", retry_seconds=0.0)
    assert PASSWORD not in str(caught.value)
    assert ENCODED not in str(caught.value)


def test_file_that_is_not_a_journal_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("one\ntwo\n")
    with pytest.raises(UserError, match="is not a journal of a sweep"):
        open_storage(str(tmp_path / "notes"))
    with pytest.raises(UserError, match="Is a directory"):
        open_storage(str(tmp_path))


def test_without_password_hides_the_password() -> None:
    assert without_password("mysql://me:secret@host/name") == "mysql://me:***@host/name"
    assert without_password("/here/study.journal") == "/here/study.journal"


def test_optuna_dashboard_opens_a_journal(tmp_path: Path) -> None:
    from optuna_dashboard import wsgi

    url = str(tmp_path / "study.journal")
    new_study(url).ask()
    application = wsgi(JournalStorage(JournalFileBackend(url)))
    request: dict[str, object] = {}
    setup_testing_defaults(request)
    status: list[str] = []
    body = b"".join(
        application({**request, "PATH_INFO": "/api/studies"}, lambda code, *_: status.append(code))
    )
    assert status == ["200 OK"]
    assert b'"a study"' in body
