"""run.json: the configuration, software and hardware of a run, so that it can be repeated later."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, TypedDict

from dqn_runner.core import processor
from dqn_runner.core.exceptions import DamagedError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.log import log
from dqn_runner.core.registry import TARGET
from dqn_runner.core.secrets import redact_argument
from dqn_runner.io import json_io
from dqn_runner.io.schema import problem_with

RUN = "run.json"
"""File name of the provenance of a run."""
GIT_LIMIT = 2**20
"""Bytes that are kept of each output of git, such as the diff."""
GIT_SECONDS = 10.0
"""After this time git is killed, and what it would have told is left out."""


class _Content(TypedDict):
    config: dict[str, Any]
    sessions: list[dict[str, Any]]


def env_of(config: Mapping[str, Any]) -> str | None:
    """The environment in the plain configuration of a run: its id, or its family and game."""
    env: Mapping[str, Any] = config.get("env") or {}
    target = env.get(TARGET)
    family = str(target).rpartition(".")[2] if "game" in env else target
    names = [env["id"]] if env.get("id") else [name for name in (family, env.get("game")) if name]
    return " ".join(map(str, names)) or None


def record_session(
    run_dir: Path,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    changes: Sequence[str],
    notices: Sequence[str],
    preloaded: Mapping[str, Any] | None = None,
) -> None:
    """Append the current process to the sessions in run.json; each resume adds a session.

    Args:
        run_dir: Directory of the run.
        config: Plain configuration of the run.
        overrides: Overrides of the command line.
        changes: Settings that the resume changed.
        notices: Warnings about the resume, such as state that could not be restored exactly.
        preloaded: The recording that the replay began with, if there is one.
    """
    path = run_dir / RUN
    sessions: list[Any] = read_provenance(path)["sessions"] if os.path.lexists(path) else []
    sessions.append(
        {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": [sys.executable, *map(redact_argument, sys.orig_argv[1:])],
            "directory": _recorded(os.getcwd),
            "overrides": list(overrides),
            "changes": list(changes),
            "notices": list(notices),
            "config_hash": config_hash(config),
            **({} if preloaded is None else {"preloaded": dict(preloaded)}),
            "seeds": {"run": config["seed"], "evaluation": "common to all runs"},
            "git": _recorded(_git_state_here),
            "packages": _recorded(_packages),
            "hardware": _recorded(_hardware),
        }
    )
    json_io.write_json(path, {"config": config, "sessions": sessions})


def recorded_digest(run_dir: Path) -> str | None:
    """SHA-256 of the recording that the last session in `run_dir` began with; None if it had none."""
    path = run_dir / RUN
    sessions: list[dict[str, Any]] = read_provenance(path)["sessions"] if os.path.lexists(path) else []
    preloaded: dict[str, Any] = (sessions[-1].get("preloaded") if sessions else None) or {}
    return preloaded.get("sha256")


def recorded_config(run_dir: Path) -> dict[str, Any] | None:
    """Configuration of the last session recorded in `run_dir`; None without a run.json."""
    path = run_dir / RUN
    return read_provenance(path)["config"] if os.path.lexists(path) else None


def read_provenance(path: Path) -> dict[str, Any]:
    """The content of the run.json at `path`; raises DamagedError if it is not one."""
    document = json_io.read_json(path)
    if problem := problem_with(document, _Content):
        raise DamagedError(f"{path} is damaged: {problem}; move it away")
    return document


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of the configuration, independent of the order of its settings."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def git_state(directory: Path) -> dict[str, Any] | None:
    """Commit, diff and untracked files of the repository of `directory`; None without one or without git.

    What git cannot tell, such as the commit of an empty repository, is None. Bytes that are not UTF-8 are
    escaped, and an output of more than GIT_LIMIT bytes is cut.
    """
    if _git(directory, "rev-parse", "--git-dir") is None:
        return None
    commit = _git(directory, "rev-parse", "--verify", "HEAD")
    untracked = _git(directory, "ls-files", "-z", "--others", "--exclude-standard")
    return {
        "commit": commit and commit.strip(),
        "diff": _git(directory, "diff", "--no-ext-diff", "--no-textconv", "HEAD"),
        "untracked": None if untracked is None else untracked.rstrip("\0").split("\0") if untracked else [],
    }


def _git_state_here() -> dict[str, Any] | None:
    return git_state(Path.cwd())


def _git(directory: Path, *arguments: str) -> str | None:
    """The output of git; None if it is missing, fails, or takes longer than GIT_SECONDS."""
    command = ["git", "--no-pager", "-C", str(directory), *arguments]
    variables = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=variables,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            timer = threading.Timer(GIT_SECONDS, _kill, [process])
            timer.start()
            try:
                output = process.stdout.read(GIT_LIMIT + 1)
                cut = len(output) > GIT_LIMIT
                if cut:
                    _kill(process)
                process.wait()
            finally:
                timer.cancel()
    except OSError:
        return None
    if cut:
        return output[:GIT_LIMIT].decode(errors="backslashreplace") + f"\n[cut after {GIT_LIMIT} bytes]"
    return output.decode(errors="backslashreplace") if process.returncode == 0 else None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill git together with what it started, which would keep its output open."""
    if not hasattr(os, "killpg"):
        process.kill()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _packages() -> dict[str, str]:
    """Versions of the installed packages. The parser of importlib would take five times as long."""
    found: dict[str, str] = {}
    for each in distributions():
        headers = (each.read_text("METADATA") or each.read_text("PKG-INFO") or "").partition("\n\n")[0]
        fields = dict(re.findall(r"^(Name|Version): *(.*?) *$", headers, re.MULTILINE))
        if name := fields.get("Name"):
            found[name] = fields.get("Version", "")
    return dict(sorted(found.items(), key=lambda package: package[0].lower()))


def _hardware() -> dict[str, Any]:
    return {
        "host": _recorded(socket.gethostname),
        "pid": os.getpid(),
        "platform": _recorded(platform.platform),
        "python": platform.python_version(),
        "processor": _recorded(processor.model),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": _recorded(_gpus),
    }


def _gpus() -> list[str]:
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _recorded(find: Callable[[], Any]) -> Any:
    """What `find` returns; None, and a warning, if it raises: what is only noted down never stops a run."""
    try:
        return find()
    except Exception as error:
        log.warning(
            "run.json is incomplete, because %s failed: %s: %s", find.__name__, type(error).__name__, error
        )
        return None
