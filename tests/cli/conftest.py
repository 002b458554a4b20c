"""Fixtures of the tests of the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """The directory `run` in `tmp_path`: a copy of the finished run, which a test may change."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"
