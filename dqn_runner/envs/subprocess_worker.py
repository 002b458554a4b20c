"""Environments in processes of their own, which end with the process that trains, however that ends."""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.util
import os
import pickle
import select
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import Array, EnvSpec
from dqn_runner.envs.base import EnvConfig, EnvPart, Vectorization
from dqn_runner.envs.user_env import UserEnv
from dqn_runner.envs.worker import EnvStep, EnvWorker, LocalWorker
from dqn_runner.io.signals import HANDLED

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PATIENCE = 5.0
"""Seconds that a process has to close its environment before it is killed."""


class EnvDiedError(Exception):
    """The process of an environment ended by itself."""


def launch(part: EnvPart) -> EnvWorker:
    """A new training environment of `part`, in a process of its own where the part says so."""
    if isinstance(part, EnvConfig) and part.vectorization is Vectorization["async"]:
        return ProcessWorker(part)
    return LocalWorker(part.make())


def relauncher(part: EnvPart) -> Callable[[], EnvWorker] | None:
    """How to launch one more environment of a part; None for objects that the user made."""
    return None if isinstance(part, UserEnv) else functools.partial(launch, part)


class ProcessWorker:
    """Runs an environment in a process of its own, which ends with this one however that ends.

    What the environment raises is raised here, with the traceback from there as its cause.
    """

    def __init__(self, part: EnvPart) -> None:
        """Start the process; it makes the environment in its own time."""
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        self._process = context.Process(target=_serve, args=(remote, part), daemon=True, name="env")
        self._asked = 0
        try:
            with _inherited():
                self._process.start()
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise UserError(f"env.vectorization=async cannot hand {part} to a process: {error}") from error
        finally:
            remote.close()
        self._poll = select.poll()
        self._poll.register(self._connection, select.POLLIN)
        self._end = multiprocessing.util.Finalize(
            self, _end, args=(self._connection, self._process), exitpriority=0
        )

    @property
    def spec(self) -> EnvSpec:
        """The shapes of the environment; waits until it is made."""
        return self._made[0]

    @property
    def name(self) -> str:
        """What to call the environment in messages; waits until it is made."""
        return self._made[1]

    def play(self, seed: int, actions: Sequence[int]) -> Callable[[], Array]:
        """Reset with `seed` and repeat `actions`; gives the observation after them."""
        return self._ask("play", seed, actions)

    def step(self, action: int, next_seed: int, last: bool) -> Callable[[], EnvStep]:
        """One step, truncated if it is the `last`; where the episode is over, a reset with `next_seed`."""
        return self._ask("step", action, next_seed, last)

    def close(self) -> None:
        """Let the process close its environment and end, and kill it if it does not."""
        self._end()

    @functools.cached_property
    def _made(self) -> tuple[EnvSpec, str]:
        try:
            return self._answer(0)
        except EnvDiedError as error:
            raise EnvDiedError(
                f"{error} before its environment was made; its own message stands above. A script that uses "
                "env.vectorization=async must start training below `if __name__ == '__main__':`"
            ) from None

    def _ask(self, method: str, *arguments: Any) -> Callable[[], Any]:
        _ = self._made  # answers come in the order of requests, and this is the first
        self._asked += 1
        with suppress(OSError):  # where the process has died, waiting for the answer says so
            self._connection.send((method, arguments))
        return functools.partial(self._answer, self._asked)

    def _answer(self, number: int) -> Any:
        """The answer to a request; those before it that nobody waited for are dropped."""
        while True:
            answered, result = self._receive()
            if answered == number:
                if isinstance(result, _Failure):
                    result.reraise()
                return result

    def _receive(self) -> tuple[int, Any]:
        while not self._poll.poll(1000):  # a child of the process may hold the pipe open when it is dead
            if not self._process.is_alive() and not self._poll.poll(0):
                raise EnvDiedError(self._epitaph())
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            raise EnvDiedError(self._epitaph()) from None

    def _epitaph(self) -> str:
        self._process.join(PATIENCE)
        status = self._process.exitcode
        how = "does not answer"
        if status is not None:
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
        return f"the process {self._process.pid} of an environment {how}"


class _Failure(NamedTuple):
    """What an environment raised in its process."""

    error: Exception
    trace: str

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        """The error as it is, or in words where it cannot travel."""
        trace = "".join(traceback.format_exception(error))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, trace)

    def reraise(self) -> None:
        raise self.error from _RemoteTraceback(f"\n{self.trace}")


class _RemoteTraceback(Exception):  # noqa: N818, it stands for the traceback, not for an error of its own
    """Shows where in the other process an error was raised."""


@contextmanager
def _inherited() -> Generator[None]:
    """What a new process has from its first moment: one thread, and no signal that is meant for this one."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end(connection: Connection, process: BaseProcess) -> None:
    connection.close()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()


def _serve(connection: Connection, part: EnvPart) -> None:
    """Answer requests, numbered from 1, until the other side closes; answer 0 is what was made."""
    for number in HANDLED:  # they are sent to all processes of a job; the one that trains decides
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            worker = LocalWorker(part.make())
        except Exception as error:
            connection.send((0, _Failure.of(error)))
            return
        connection.send((0, (worker.spec, worker.name)))
        try:
            _answer_requests(connection, worker)
        finally:
            worker.close()


def _answer_requests(connection: Connection, worker: LocalWorker) -> None:
    number = 0
    while True:
        method, arguments = connection.recv()
        number += 1
        try:
            result = getattr(worker, method)(*arguments)()
        except Exception as error:
            result = _Failure.of(error)
        connection.send((number, result))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
