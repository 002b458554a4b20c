"""Compiled libraries on disk, shared by all runs of a user.

A library has the name KEY-DIGEST.so, in which DIGEST is that of its content. A file whose content does not
have it is damaged, and built again. Only the process that holds the lock of KEY builds it; the others wait.
The file gets its name when it is complete.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

from dqn_runner.agent.compiled.program import UpdateProgram
from dqn_runner.core.log import log
from dqn_runner.io.files import write_atomically
from dqn_runner.io.lock import exclusive_lock

CACHE = "DQN_RUNNER_CACHE"
"""The environment variable with the directory of the libraries."""
BUILD = "dqn_runner.agent.compiled.build"
_TIMEOUT = 1800.0
"""Seconds after which a build is given up."""


class BuildError(Exception):
    """An update could not be compiled; the message is one line."""


def cache_directory() -> Path:
    """Where libraries are kept: $DQN_RUNNER_CACHE, or dqn_runner in the user's cache directory."""
    if given := os.environ.get(CACHE):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dqn_runner"


def library(program: UpdateProgram, key: str) -> Path:
    """The library of `program`, built if it is not in the cache yet; raises BuildError if that fails."""
    directory = cache_directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(directory / f"{key}.lock"):
            if found := _find(directory, key):
                log.info("the compiled update is in the cache: %s", found)
                return found
            return _build(program, directory, key)
    except OSError as error:
        raise BuildError(f"{directory} cannot be used: {error}; {CACHE} names another directory") from error


def _find(directory: Path, key: str) -> Path | None:
    """A library of this key that is whole; damaged ones are deleted."""
    for path in sorted(directory.glob(f"{key}-*.so")):
        if path.stem == f"{key}-{_digest(path.read_bytes())}":
            return path
        log.warning("%s is damaged; it is built again", path)
        path.unlink()
    return None


def _build(program: UpdateProgram, directory: Path, key: str) -> Path:
    """Compile in a process of its own: what the compiler imports takes 100 MB, which no run has to keep."""
    log.info("the update is compiled, once for all runs with these settings; this takes about half a minute")
    with tempfile.TemporaryDirectory(prefix="dqn_runner-") as folder:
        output, messages = Path(folder) / "update.so", Path(folder) / "messages"
        status = _run_build(pickle.dumps((program, str(output))), Path(folder), messages)
        if status or not output.exists():
            lines = messages.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise BuildError(f"the compiler ended with status {status}: {lines[-1].strip()}")
        content = output.read_bytes()
    path = directory / f"{key}-{_digest(content)}.so"
    write_atomically(path, content)
    return path


def _run_build(request: bytes, folder: Path, messages: Path) -> int:
    """Run the compiler, which stops if this process does, and return its exit status."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TORCHINDUCTOR_CACHE_DIR": str(folder),
        "TMPDIR": str(folder),
    }
    with (
        messages.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", BUILD],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C stops the run after the build, not the build
        ) as process,
    ):
        assert process.stdin is not None
        try:
            process.stdin.write(len(request).to_bytes(8, "big") + request)
            process.stdin.flush()
            return process.wait(_TIMEOUT)
        except BrokenPipeError:  # it ended before it had read the request
            return process.wait()
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise BuildError(f"the compiler took more than {_TIMEOUT:.0f} s") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
