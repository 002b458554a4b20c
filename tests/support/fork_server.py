"""Starts Python by a fork of a process that has imported the libraries of dqn_runner, which saves seconds.

`forked_python()` is the path of an executable that takes the place of Python. Given `-m dqn_runner ARGS`, the
start of a joblib worker, or `-c CODE`, it asks the server of this test session to run them with its own
directory, environment and descriptors. It passes signals on, ends as the program ends, and the program is
killed when it is killed.
Any other command, and one with other variables of Python, such as PYTHONPATH, is run by Python itself. The
program under test starts its jobs in the same way. Curves are drawn only if the variable CURVES is set.
"""

from __future__ import annotations

import atexit
import fcntl
import importlib
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from ast import literal_eval
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple, NoReturn

from dqn_runner.cli import main as program
from dqn_runner.run import plots

ROOT = Path(__file__).parents[2]
MODULES = ("dqn_runner", "joblib.externals.loky.backend.popen_loky_posix")
"""What `-m MODULE` can run in a forked process: the program, and a worker of joblib."""
CLIENT_PATH = "DQN_RUNNER_TEST_PYTHON"
"""The environment variable with the path of the executable, for the workers of a session."""
CURVES = "DQN_RUNNER_TEST_CURVES"
"""The environment variable that makes a run draw its curves."""

CLIENT = """#!{python} -IS
import os, signal, socket, sys

arguments = sys.argv[1:]
variables = {{name: value for name, value in os.environ.items() if name.startswith("PYTHON")}}
code = arguments[1] if arguments[:1] == ["-c"] and len(arguments) == 2 else ""
helper = "multiprocessing" in code or "loky" in code  # a process that the program starts
known = (arguments[:1] == ["-m"] and arguments[1] in {modules!r}) or (code and not helper)
if not known or variables != {variables!r}:
    os.execv({python!r}, [{python!r}, *arguments])
descriptors = [0, 1, 2]
for number in range(3, 256):
    try:
        descriptors += [number] if os.get_inheritable(number) else []
    except OSError:
        pass  # it is not open
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = repr((sys.argv, os.getcwd(), dict(os.environ), descriptors)).encode()
socket.send_fds(server, [len(request).to_bytes(8, "big")], descriptors)
server.sendall(request)
for number in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
    signal.signal(getattr(signal, number), lambda number, _: server.send(bytes([number])))
status = int(server.recv(20))
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@cache
def forked_python() -> str:
    """The path of the executable; starts the server of this session, which ends with this process."""
    if known := os.environ.get(CLIENT_PATH):
        return known
    directory = Path(tempfile.mkdtemp(prefix="fork-"))
    address, client = str(directory / "server"), directory / "python"
    variables = {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}
    content = CLIENT.format(python=sys.executable, variables=variables, address=address, modules=MODULES)
    client.write_text(content)
    client.chmod(0o755)
    command = [sys.executable, "-m", "tests.support.fork_server", address, str(client)]
    server = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"listening\n"  # it answers when it has imported the libraries
    os.environ[CLIENT_PATH] = str(client)
    atexit.register(_stop, server, directory)
    return str(client)


def _stop(server: subprocess.Popen[bytes], directory: Path) -> None:
    with server:  # closes its standard input
        shutil.rmtree(directory, ignore_errors=True)


class Request(NamedTuple):
    """A process to run: command line, working directory, environment variables, descriptors."""

    argv: list[str]
    cwd: str
    environ: dict[str, str]
    numbers: list[int]
    """The numbers that the process gives to `descriptors`."""
    descriptors: list[int]


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("listening", flush=True)
    return listener


def _serve(listener: socket.socket) -> Request:
    """Fork a process for each request, in which this function returns; ends with the standard input."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes below
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _supervise(connection)
        connection.close()
    os._exit(0)


def _supervise(connection: socket.socket) -> Request:
    """Run a request in a child, in which this function returns; pass signals to it, and its end back."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, descriptors, _, _ = socket.recv_fds(connection, 8, 250)
    content = b""
    while len(content) < int.from_bytes(size, "big"):
        content += connection.recv(1 << 16)
    child = os.fork()
    if child == 0:
        connection.close()
        return Request(*literal_eval(content.decode()), descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    end = os.pidfd_open(child)
    while end not in select.select([connection, end], [], [])[0]:
        received = connection.recv(1)
        os.kill(child, received[0] if received else signal.SIGKILL)
        if not received:
            break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        connection.send(str(status).encode())
    finally:
        os._exit(0)


def _become(request: Request, executable: str) -> None:
    """Give this process the descriptors, directory, environment and arguments of a request."""
    os.setsid()
    copies = [fcntl.fcntl(received, fcntl.F_DUPFD, 256) for received in request.descriptors]
    for received in request.descriptors:
        os.close(received)
    for number, copy in zip(request.numbers, copies, strict=True):
        os.dup2(copy, number)
        os.close(copy)
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    error = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = error
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.environ)
    sys.path[0] = request.cwd
    sys.executable = executable
    sys.orig_argv = request.argv


def _draw_nothing(run_dir: Path) -> None:
    """Takes the place of `draw_training_curves`."""


def _write_nothing(study: object, directory: Path) -> None:
    """Takes the place of `write_sweep_page`."""


def main() -> None:
    """Be the server; in each forked process, run the requested code."""
    _, address, executable = sys.argv
    listener = _listen(address)
    importlib.import_module("tests.support.preloaded")
    request = _serve(listener)
    _become(request, executable)
    if CURVES not in os.environ:
        plots.draw_training_curves = _draw_nothing  # drawing takes most of the time of a short run
        program.write_sweep_page = _write_nothing
    try:
        _run(request.argv)
    except SystemExit as end:
        _exit(end.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        _exit(1)
    _exit(0)


def _run(argv: list[str]) -> None:
    """Run `-m MODULE ARGS` or `-c CODE` of a command line."""
    if argv[1] == "-m":
        sys.argv = argv[2:]
        runpy.run_module(argv[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = ["-c"], ""
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(argv[2], "<string>", "exec"), module.__dict__)


def _exit(status: object) -> NoReturn:
    """End this process as Python does, but without deleting its objects: their memory would be copied."""
    if status is not None and not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed by the program, or by its reader
            stream.flush()
    os._exit(status or 0)


if __name__ == "__main__":
    main()
