"""run.json: the configuration, software and hardware of a run, so that it can be repeated later."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, TypedDict

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.secrets import redact_argument
from dqn_runner.io import json_io
from dqn_runner.io.schema import problem_with

RUN = "run.json"
"""File name of the provenance of a run."""


class _Content(TypedDict):
    config: dict[str, Any]
    sessions: list[dict[str, Any]]


def record_session(
    run_dir: Path,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    changes: Sequence[str],
    notices: Sequence[str],
) -> None:
    """Append the current process to the sessions in run.json; each resume adds a session.

    Args:
        run_dir: Directory of the run.
        config: Plain configuration of the run.
        overrides: Overrides of the command line.
        changes: Settings that the resume changed.
        notices: Warnings about the resume, such as state that could not be restored exactly.
    """
    path = run_dir / RUN
    sessions: list[Any] = _read(path)["sessions"] if os.path.lexists(path) else []
    sessions.append(
        {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": [sys.executable, *map(redact_argument, sys.orig_argv[1:])],
            "directory": str(Path.cwd()),
            "overrides": list(overrides),
            "changes": list(changes),
            "notices": list(notices),
            "config_hash": config_hash(config),
            "seeds": {"run": config["seed"], "evaluation": "common to all runs"},
            "git": git_state(Path.cwd()),
            "packages": _packages(),
            "hardware": _hardware(),
        }
    )
    json_io.write_json(path, {"config": config, "sessions": sessions})


def recorded_config(run_dir: Path) -> dict[str, Any] | None:
    """Configuration of the last session recorded in `run_dir`; None without a run.json."""
    path = run_dir / RUN
    return _read(path)["config"] if os.path.lexists(path) else None


def _read(path: Path) -> dict[str, Any]:
    """The content of a run.json; raises DamagedError if it is not one."""
    document = json_io.read_json(path)
    if problem := problem_with(document, _Content):
        raise DamagedError(f"{path} is damaged: {problem}; move it away")
    return document


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of the configuration, independent of the order of its settings."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def git_state(directory: Path) -> dict[str, Any] | None:
    """Commit, diff and untracked files of the repository of `directory`; None without one or without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(directory), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        return {
            "commit": commit,
            "diff": git("diff", "HEAD"),
            "untracked": git("ls-files", "--others", "--exclude-standard").splitlines(),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def _packages() -> dict[str, str]:
    """Versions of the installed packages; the metadata of each package is parsed once."""
    found = [(each["Name"], each["Version"]) for each in (d.metadata for d in distributions())]
    return dict(sorted(found, key=lambda package: package[0].lower()))


def _hardware() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    """Model name of the processor, which neither psutil nor, on Linux, `platform` provides."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
