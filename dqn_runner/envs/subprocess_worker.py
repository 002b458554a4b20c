"""An environment worker in a separate process, which never outlives the training process.

The two processes talk through a pipe. Requests are numbered from 1, and each response carries the number of
its request; response 0 is the spec and the name of the environment, or the error that its creation raised.
"""

from __future__ import annotations

import functools
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from dqn_runner.core.exceptions import RunFailedError, UserError
from dqn_runner.core.types import EnvSpec
from dqn_runner.envs.base import EnvPart
from dqn_runner.envs.checked_env import make_env
from dqn_runner.envs.episode_metrics import info_metrics_of
from dqn_runner.envs.episode_record import Replayed
from dqn_runner.envs.generators import Used
from dqn_runner.envs.message_pipe import MessageReader, write_message
from dqn_runner.envs.worker import EnvStep, LocalWorker
from dqn_runner.io.forks import ending_forks
from dqn_runner.io.signals import HANDLED, as_error

if TYPE_CHECKING:  # importing multiprocessing takes 10 ms of every start-up, and few runs need it
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

SINGLE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that limit a numerical library to this number of threads."""
CLOSE_TIMEOUT = 5.0
"""Seconds that a process has to close its environment before it is killed."""


class EnvProcessError(Exception):
    """The process of an environment ended unexpectedly."""


class EnvTimeoutError(EnvProcessError):
    """The process of an environment was killed because a step or reset took longer than allowed."""


class SubprocessWorker:
    """Runs an environment in a separate process, which ends with this process, even if this one is killed.

    An exception of the environment is raised here, with the traceback of the other process as its cause. The
    environment may start processes of its own; they end with its process.
    """

    is_alone = True

    def __init__(
        self, part: EnvPart, creation_seed: int = 0, seed: int = 0, timeout: float | None = None
    ) -> None:
        """Start the process, which creates the environment; does not wait for it.

        The seeds determine what the environment draws from global generators when it is created, and from
        those that it is not known to use. A process of which a step or reset takes longer than `timeout`
        seconds is killed. Raises UserError if `part` cannot be pickled, and on Windows.
        """
        import multiprocessing
        import multiprocessing.util

        if os.name == "nt":
            raise UserError("env.vectorization=async is not supported on Windows; leave it at sync")
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        self._process = context.Process(
            target=_run_worker, args=(remote, part, creation_seed, seed), daemon=False, name="env"
        )
        self._timeout = timeout
        self._num_requests = 0
        try:
            with _settings_of_new_process():
                self._process.start()
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise UserError(f"env.vectorization=async cannot send {part} to a process: {error}") from error
        finally:
            remote.close()
        self._reader = MessageReader(self._connection.fileno(), self._process.is_alive)
        self._close = multiprocessing.util.Finalize(
            self, _close_process, args=(self._connection, self._process), exitpriority=0
        )

    @property
    def spec(self) -> EnvSpec:
        """The shapes of the environment; waits until it is created."""
        return self._spec_and_name[0]

    @property
    def name(self) -> str:
        """The name of the environment in messages; waits until it is created."""
        return self._spec_and_name[1]

    def replay_episode(
        self, seed: int, actions: Sequence[int], used: Used, attributes: Mapping[str, Any]
    ) -> Callable[[], Replayed]:
        """Set `attributes`, reset with `seed` and repeat `actions`, until the episode ends."""
        return self._request("replay_episode", 1 + len(actions), seed, actions, used, attributes)

    def set_attributes(self, attributes: Mapping[str, Any]) -> Callable[[], None]:
        """Set these attributes of the environment before each later reset, and no others any more."""
        return self._request("set_attributes", 1, attributes)

    def step(self, action: int, next_seed: int, last: bool) -> Callable[[], EnvStep]:
        """Take one step, and reset with `next_seed` if it ends the episode; `last` truncates the episode."""
        return self._request("step", 2, action, next_seed, last)

    def close(self) -> None:
        """Close the environment and end its process; kill it if this takes longer than CLOSE_TIMEOUT."""
        self._close()

    @functools.cached_property
    def _spec_and_name(self) -> tuple[EnvSpec, str]:
        try:
            return self._wait_for_response(0)
        except EnvProcessError as error:
            raise RunFailedError(
                f"{error} before its environment was created; what it printed above, if anything, says why. "
                "A script that uses env.vectorization=async must start training below "
                "`if __name__ == '__main__':`"
            ) from None

    def _request(self, method: str, num_calls: int, *arguments: Any) -> Callable[[], Any]:
        """Call a method of the other process's LocalWorker; returns a function that waits for its result.

        The method calls step and reset of the environment `num_calls` times at most.
        """
        _ = self._spec_and_name  # responses arrive in the order of requests, and this is the first
        self._num_requests += 1
        with suppress(OSError):  # if the process is dead, waiting for the response raises the error
            write_message(self._connection.fileno(), (method, arguments))
        timeout = None if self._timeout is None else self._timeout * num_calls
        return functools.partial(self._wait_for_response, self._num_requests, timeout)

    def _wait_for_response(self, number: int, timeout: float | None = None) -> Any:
        """Return the result of request `number`; drops the responses to earlier requests."""
        while True:
            received, result = self._receive(timeout)
            if received == number:
                if isinstance(result, _RemoteError):
                    result.reraise()
                return result

    def _receive(self, timeout: float | None) -> tuple[int, Any]:
        try:
            return self._reader.read(timeout)
        except EOFError:
            raise EnvProcessError(self._exit_message()) from None
        except TimeoutError:
            _kill(self._process)
            raise EnvTimeoutError(
                f"the process {self._process.pid} of an environment did not finish a step or reset within "
                f"trainer.env_timeout={self._timeout:g} seconds and was killed"
            ) from None

    def _exit_message(self) -> str:
        self._process.join(CLOSE_TIMEOUT)
        status = self._process.exitcode
        how = "does not respond"
        if status is not None:
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
        return f"the process {self._process.pid} of an environment {how}"


class _RemoteError(NamedTuple):
    """An exception that the environment raised in its process."""

    error: Exception
    trace: str

    @classmethod
    def of(cls, raised: BaseException) -> _RemoteError:
        """Wrap the exception, or a RuntimeError with its text if it cannot be pickled."""
        trace = "".join(traceback.format_exception(raised))
        error = as_error(raised)
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, trace)

    def reraise(self) -> None:
        raise self.error from _RemoteTraceback(f"\n{self.trace}")


class _RemoteTraceback(Exception):  # noqa: N818, it carries a traceback and is not an error
    """Shows the traceback of the other process."""


@contextmanager
def _settings_of_new_process() -> Generator[None]:
    """Let a process that is started here use one thread and block the signals that the trainer handles."""
    before = {name: os.environ.get(name) for name in SINGLE_THREAD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    os.environ.update(dict.fromkeys(SINGLE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _close_process(connection: Connection, process: BaseProcess) -> None:
    from multiprocessing.connection import wait

    connection.close()
    wait([process.sentinel], CLOSE_TIMEOUT)
    _kill(process)


def _kill(process: BaseProcess) -> None:
    """Kill a process, if it still runs, and those that it started and left."""
    assert process.pid is not None
    with suppress(ProcessLookupError):  # no process of the group is left
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


# In the other process


def _run_worker(connection: Connection, part: EnvPart, creation_seed: int, seed: int) -> None:
    """Create the environment and answer requests until the training process closes the connection."""
    os.setpgrp()  # the processes that the environment starts are ended together with this one
    for number in HANDLED:  # schedulers send them to all processes of a job; the trainer decides what to do
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with ending_forks(), suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            worker = LocalWorker(make_env(part, creation_seed), seed, info_metrics_of(part))
        except BaseException as error:
            write_message(connection.fileno(), (0, _RemoteError.of(error)))
            return
        write_message(connection.fileno(), (0, (worker.spec, worker.name)))
        try:
            _answer_requests(connection.fileno(), worker)
        finally:
            worker.close()


def _answer_requests(descriptor: int, worker: LocalWorker) -> None:
    requests = MessageReader(descriptor, lambda: True)
    number = 0
    while True:
        method, arguments = requests.read()
        number += 1
        try:
            result = getattr(worker, method)(*arguments)()
        except BaseException as error:
            result = _RemoteError.of(error)
        write_message(descriptor, (number, result))


def _exit_with_parent() -> None:
    import multiprocessing

    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)
