"""A full disk ends the program with status 5, wherever it is noticed, and one line says what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra.core.utils
import pytest

from dqn_runner.core import exit_codes
from dqn_runner.io import json_io
from dqn_runner.loggers.files import JsonLines
from dqn_runner.run import plots
from tests.conftest import BUDGET, Outcome
from tests.support.fragile import Fragile


def full(code: int, path: str | None = None) -> Callable[..., Any]:
    """A function that raises what a write to a full disk raises."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code), path)

    return fail


PLACES: dict[str, tuple[object, str]] = {
    "the configuration that Hydra writes": (hydra.core.utils, "_save_config"),
    "run.json": (json_io, "write_atomically"),
    "a logger": (JsonLines, "open"),
    "the environment": (Fragile, "step"),
}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=["full", "quota"])
@pytest.mark.parametrize("place", PLACES)
def test_full_disk_has_its_own_status(
    program: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, place: str, code: int
) -> None:
    monkeypatch.setattr(*PLACES[place], full(code))
    env = ("env=gym", "env.id=tests.support.fragile.Fragile", "trainer.retry_env=false")
    done = program(*BUDGET, *env, "hydra.run.dir=run", "logging=[jsonl]")
    assert done.status == exit_codes.DISK_FULL
    last = done.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert os.strerror(code) in last
    assert "free disk space, and repeat the command to continue" in last


def test_curves_that_have_no_room_are_a_warning(
    program: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(plots, "draw_training_curves", full(errno.ENOSPC))
    done = program(*BUDGET, "hydra.run.dir=run", "logging=[console,file]")
    assert done.status == 0
    assert "training_curves.png could not be written ([Errno 28] No space left on device)" in done.err
    assert "Traceback" not in done.err + (tmp_path / "run" / "logs" / "training.log").read_text()


def test_failing_job_of_a_multirun_is_named(program: Callable[..., Outcome], tmp_path: Path) -> None:
    done = program("-m", "agent.batch_size=-1,-2", *BUDGET, "hydra.sweep.dir=sweep")
    assert done.status == exit_codes.USAGE_ERROR
    *_, last = done.err.splitlines()
    assert last.startswith("error: job 0 (agent.batch_size=-1 ")
    assert f"in {tmp_path / 'sweep' / '0'}: " in last
    assert last.endswith("agent.batch_size must be at least 1, got -1")
    assert "failed: job 1 (agent.batch_size=-2 " in done.err
