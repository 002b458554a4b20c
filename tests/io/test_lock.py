"""One process at a time writes a run directory; the error of a second one names the first."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.config.command_line import expand_arguments
from dqn_runner.core.exceptions import NoRoomError, UserError
from dqn_runner.io.lock import LockHeldError, LockUnsupportedError, RunLock, exclusive_lock, reject_if_locked
from tests.conftest import BUDGET, Outcome
from tests.support import crash

COMMAND = [*BUDGET, "trainer.frequency_unit=steps", "trainer.target_return=null", "logging=[jsonl]"]
RUN = [*COMMAND, "trainer.max_steps=100000000", "trainer.patience=1000000", "hydra.run.dir=run"]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that trains in `run` and has written its first checkpoint; it is stopped by SIGSTOP."""
    process = crash.start(RUN, tmp_path)
    try:
        while not (tmp_path / "run" / "checkpoints" / "best.pt").exists():
            assert process.poll() is None, (tmp_path / "output").read_text()
            time.sleep(0.02)
        os.kill(crash.process_id(tmp_path), signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_error_of_a_second_process_names_the_one_that_writes_the_directory(
    running: subprocess.Popen[bytes], program: Callable[..., Outcome], tmp_path: Path
):
    holder = f"(pid {crash.process_id(tmp_path)} on host {socket.gethostname()})"
    composed = contents(tmp_path / "run" / ".hydra")
    assert composed
    sweep = ["-m", *RUN[:-1], "hydra.sweep.dir=.", "hydra.sweep.subdir=run"]
    for command in (["resume=run", "seed=5"], [*RUN, "seed=5"], sweep):
        assert contents(tmp_path / "run" / ".hydra") == composed
        error = program(*command).error
        assert f"run is being written by another run {holder}" in error
        assert "wait for it, stop it, or choose another output directory" in error
    evaluation = program("mode=eval", "checkpoint=run/checkpoints/best.pt", "evaluator.episodes=1")
    assert evaluation.status == 0, "reading needs no lock"

    os.kill(crash.process_id(tmp_path), signal.SIGCONT)
    step, deadline = step_of(tmp_path / "run"), 1000
    while step_of(tmp_path / "run") == step:
        assert running.poll() is None, "the second process stopped the first one"
        assert (deadline := deadline - 1)
        time.sleep(0.05)

    os.kill(crash.process_id(tmp_path), signal.SIGKILL)
    running.wait()
    assert program(*RUN, "trainer.max_steps=1000").status == 0, "the lock of a killed process is released"
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]) == 2


def step_of(run_dir: Path) -> int:
    return load_checkpoint(run_dir / "checkpoints" / "latest.pt")["step"]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


class TestCommandOnALockedDirectory:
    """The lock is checked before Hydra writes anything into the directory."""

    @pytest.fixture
    def held(self, tmp_path: Path) -> Iterator[Path]:
        """A locked directory whose name must be quoted for Hydra."""
        lock = RunLock(tmp_path / "my run, 2")
        lock.acquire()
        yield tmp_path / "my run, 2"
        lock.release()

    def test_training_in_a_locked_directory_is_rejected_before_anything_is_written(
        self, held: Path, program: Callable[..., Outcome]
    ):
        for key in ("hydra.run.dir", "++hydra.run.dir"):
            error = program("env=cartpole", f"{key}='my run, 2'").error
            assert f"my run, 2 is being written by another run (pid {os.getpid()} on host" in error
        assert contents(held).keys() == {".lock"}

    @pytest.mark.parametrize(
        "others",
        [
            ["--cfg", "job"],
            ["--info", "config"],
            ["--help"],
            ["-m", "seed=0,1"],
            ["mode=eval", "checkpoint.path=null"],
        ],
        ids=str,
    )
    def test_a_command_that_does_not_train_ignores_the_lock(self, held: Path, others: list[str]):
        command = [*others, f"hydra.run.dir='{held}'"]
        assert expand_arguments(command) == command

    def test_resume_never_ignores_the_lock_and_uses_a_new_directory(self, held: Path):
        free = f"hydra.run.dir='{held}-2'"
        assert expand_arguments(["resume=never", f"hydra.run.dir='{held}'"]) == ["resume=never", free]

    def test_a_directory_whose_name_is_interpolated_is_not_checked_before_hydra_starts(self):
        command = ["hydra.run.dir=my/${seed}"]
        assert expand_arguments(command) == command


class TestRunLock:
    def test_only_one_run_lock_of_a_directory_is_held_at_a_time(self, tmp_path: Path):
        first, second = RunLock(tmp_path / "new"), RunLock(tmp_path / "new")
        first.acquire()
        first.acquire()
        with pytest.raises(UserError, match=rf"\(pid {os.getpid()} on host "):
            second.acquire()
        first.release()
        second.acquire()
        second.release()

    def test_checking_a_run_lock_does_not_acquire_it(self, tmp_path: Path):
        reject_if_locked(tmp_path / "nowhere")
        lock = RunLock(tmp_path)
        lock.acquire()
        with pytest.raises(UserError, match=rf"\(pid {os.getpid()} on host "):
            reject_if_locked(tmp_path)
        lock.release()
        reject_if_locked(tmp_path)
        lock.acquire()
        lock.release()

    def test_checking_a_lock_opens_its_file_for_writing_which_nfs_needs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """There an exclusive lock of a descriptor that cannot be written to is the error EBADF."""
        flock = fcntl.flock

        def of_nfs(descriptor: int, how: int) -> None:
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            flock(descriptor, how)

        lock = RunLock(tmp_path)
        lock.acquire()
        monkeypatch.setattr(fcntl, "flock", of_nfs)
        with pytest.raises(LockHeldError):
            reject_if_locked(tmp_path)
        lock.release()
        reject_if_locked(tmp_path)

    def test_a_lock_of_somebody_else_that_cannot_be_written_is_checked_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        open_file = os.open

        def open_to_read(path: Path, flags: int, *mode: int) -> int:
            if flags & os.O_ACCMODE != os.O_RDONLY:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return open_file(path, flags, *mode)

        lock = RunLock(tmp_path)
        lock.acquire()
        monkeypatch.setattr(os, "open", open_to_read)
        with pytest.raises(LockHeldError):
            reject_if_locked(tmp_path)

    def test_a_file_system_without_locks_is_reported_in_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (tmp_path / ".lock").touch()
        monkeypatch.setattr(fcntl, "flock", no_locks)
        for use in (RunLock(tmp_path).acquire, lambda: reject_if_locked(tmp_path)):
            with pytest.raises(UserError, match=r"has no locks .No locks available.*another one$") as caught:
                use()
            assert not isinstance(caught.value, LockHeldError)


class TestExclusiveLock:
    @pytest.fixture(params=["existing", "new"])
    def path(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        if request.param == "existing":
            (tmp_path / "existing").touch()
        return tmp_path / request.param

    def test_an_exclusive_lock_is_released_after_the_block_and_after_an_error(self, path: Path):
        def hold_and_raise() -> None:
            with exclusive_lock(path):
                assert is_locked(path)
                raise ZeroDivisionError

        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                hold_and_raise()
            assert not is_locked(path)

    def test_an_exclusive_lock_waits_for_the_holder_in_another_thread(self, path: Path):
        events: list[str] = []
        started = threading.Event()

        def wait() -> None:
            started.set()
            with exclusive_lock(path):
                events.append("second")

        thread = threading.Thread(target=wait)
        with exclusive_lock(path):
            thread.start()
            assert started.wait(10)
            time.sleep(0.1)
            events.append("first")
        thread.join(10)
        assert events == ["first", "second"]

    def test_an_exclusive_lock_of_a_descriptor_leaves_it_open(self, tmp_path: Path):
        path = tmp_path / "file"
        with path.open("wb") as file:
            with exclusive_lock(file.fileno()):
                assert is_locked(path)
                file.write(b"content")
            assert not is_locked(path)
            file.write(b", and more")
        assert path.read_bytes() == b"content, and more"

    def test_a_file_system_without_locks_is_reported_by_its_own_error(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(fcntl, "flock", no_locks)
        with pytest.raises(LockUnsupportedError, match="No locks available"), exclusive_lock(path):
            pass


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def is_locked(path: Path) -> bool:
    """Whether another open descriptor of `path` holds an exclusive lock."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_a_directory_on_a_read_only_disk_is_no_mistake_of_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("dqn_runner.io.lock.os.open", refuse)
    with pytest.raises(NoRoomError, match="run is on a read-only disk; repeat the command when"):
        RunLock(tmp_path / "run").acquire()
