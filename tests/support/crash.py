"""Runs the program, kills it at a chosen point, and compares the directories of two runs.

`python -m dqn_runner` runs in a forked process (see `fork_server`) unchanged, except that it kills itself:
before the n-th disk operation, in the middle of a write at or after the n-th operation, or before the n-th
step of the environments.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dqn_runner.checkpointing.format import load_checkpoint, read_document
from dqn_runner.core.state import State
from dqn_runner.envs import vector_env
from dqn_runner.io import files
from tests.support.fork_server import CURVES, forked_python
from tests.support.recordings import provide

OPERATIONS = ("open", "write", "fsync", "replace", "link", "unlink")


class Kill(NamedTuple):
    """The point at which a process is killed."""

    what: str
    """`operation`, `step`, or at or after an operation: `write`, `checkpoint` (the write of a checkpoint)."""
    number: int


@dataclass
class Disk:
    """Replaces the module `os` in `files`; calls `at(number, name, arguments)` before each operation.

    `fsync` does nothing: data that was written survives the process, and no power loss happens here.
    """

    at: Callable[[int, str, tuple[Any, ...]], None]
    count: int = 0
    O_RDONLY: int = field(default=os.O_RDONLY)

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in OPERATIONS:
            return function

        def counted(*arguments: Any) -> Any:
            self.count += 1
            self.at(self.count, name, arguments)
            return None if name == "fsync" else function(*arguments)

        return counted


def start(
    args: Iterable[str], cwd: Path, kill: Kill | None = None, curves: bool = False
) -> subprocess.Popen[bytes]:
    """Start `python -m dqn_runner ARGS` in `cwd`; plots are drawn with `curves` only, since that is slow."""
    provide(args := [*args], cwd)
    code = f"from tests.support import crash; crash.be_program({args!r}, {kill and tuple(kill)!r})"
    environ = {**os.environ, **({CURVES: "1"} if curves else {})}
    with (cwd / "output").open("a") as output:
        return subprocess.Popen(
            [forked_python(), "-c", code], cwd=cwd, env=environ, stdout=output, stderr=output
        )


def run(args: Iterable[str], cwd: Path, kill: Kill | None = None, curves: bool = False) -> int:
    """Run `python -m dqn_runner ARGS`; returns the exit code, -9 if the process was killed."""
    return start(args, cwd, kill, curves).wait()


def process_id(cwd: Path) -> int:
    """The number of the last process in `cwd`; that of `start` is the one of its representative."""
    return int((cwd / "pid").read_text())


def operations(cwd: Path) -> int:
    """Number of disk operations of the last process in `cwd`."""
    return int((cwd / "operations").read_text())


def be_program(args: list[str], point: tuple[str, int] | None) -> None:
    """Be the program, until the point at which it is killed."""
    kill = Kill(*point) if point else None
    Path("pid").write_text(str(os.getpid()))
    torch.set_num_threads(1)
    disk = Disk(lambda number, name, arguments: _kill_at(kill, number, name, arguments))
    files.os = disk  # pyright: ignore[reportAttributeAccessIssue]
    if kill and kill.what == "step":
        _kill_at_step(kill.number)
    sys.argv = ["dqn_runner", *args]
    try:
        runpy.run_module("dqn_runner", run_name="__main__")
    finally:
        Path("operations").write_text(str(disk.count))
        sys.stderr.flush()


def _kill_at(kill: Kill | None, number: int, name: str, arguments: tuple[Any, ...]) -> None:
    if kill is None or kill.what == "step" or number < kill.number:
        return
    if kill.what == "operation":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "write":
        descriptor, content = arguments
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        if kill.what == "write" or path.parent.name == "checkpoints":
            os.write(descriptor, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)


def _kill_at_step(number: int) -> None:
    left = iter(range(number))
    step = vector_env.VectorEnv.step

    def fragile(self: vector_env.VectorEnv, actions: list[int]) -> Any:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, actions)

    vector_env.VectorEnv.step = fragile  # type: ignore[method-assign]


# Comparison of runs


def differences(one: Path, two: Path) -> list[str]:
    """Differences between two run directories, except for times; empty if they hold the same run."""
    found = result_differences(one, two)
    names = [sorted(path.name for path in (run / "checkpoints").rglob("*.*")) for run in (one, two)]
    if names[0] != names[1]:
        found.append(f"the checkpoints are {names[0]} and {names[1]}")
    for path in sorted((one / "checkpoints").glob("*.pt")):
        other = two / "checkpoints" / path.name
        if other.exists():
            found += checkpoint_differences(path, other)
    return found


def result_differences(one: Path, two: Path) -> list[str]:
    """Differences between the metrics and the curves of two runs, except for times."""
    found = [
        f"{name} differs"
        for name in ("training_curves.png", "metrics.csv")
        if _without_times(one / name) != _without_times(two / name)
    ]
    for name, read in (("metrics.jsonl", _records), ("metrics.json", _metrics)):
        if read(one / name) != read(two / name):
            found.append(f"{name} differs")
    return found


def checkpoint_differences(one: Path, two: Path) -> list[str]:
    """Differences between the contents of two checkpoints and their segments."""
    return [f"{one.name}: {line}" for line in _unequal(checkpoint_of(one), checkpoint_of(two))]


def checkpoint_of(path: Path) -> State:
    """The content of a checkpoint and its segments, without times and positions in log files."""
    document = read_document(path)
    document["rows"] = load_checkpoint(path)["state"]["replay"]["rows"].all()
    del document["state"]["elapsed"], document["state"]["progress"]["loggers"]
    if document["state"]["finished"]:
        del document["state"]["finished"]["before"]["loggers"]
    return document


def _unequal(one: Any, two: Any, where: str = "") -> list[str]:
    if type(one) is not type(two):
        return [f"{where} is {one!r} and {two!r}"]
    if isinstance(one, dict):
        if list(one) != list(two):
            return [f"{where} has {list(one)} and {list(two)}"]
        return [line for key in one for line in _unequal(one[key], two[key], f"{where}.{key}")]
    if isinstance(one, list):
        if len(one) != len(two):
            return [f"{where} has lengths {len(one)} and {len(two)}"]
        pairs = enumerate(zip(one, two, strict=True))
        return [line for i, (a, b) in pairs for line in _unequal(a, b, f"{where}[{i}]")]
    if isinstance(one, torch.Tensor | np.ndarray):
        same = np.asarray(one).tobytes() == np.asarray(two).tobytes()
        return [] if same else [f"{where} differs"]
    return [] if repr(one) == repr(two) else [f"{where} is {one!r} and {two!r}"]


def _records(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def _metrics(path: Path) -> Any:
    return {key: value for key, value in json.loads(path.read_text()).items() if key != "time"}


def _without_times(path: Path) -> Any:
    """Content of a file, or None if it does not exist; columns of times are left out of a table."""
    if path.suffix != ".csv" or not path.exists():
        return path.read_bytes() if path.exists() else None
    rows = [line.split(",") for line in path.read_text().splitlines()]
    kept = [i for i, name in enumerate(rows[0]) if not name.startswith("time/")]
    return [[row[i] for i in kept] for row in rows]
