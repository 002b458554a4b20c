"""Published packages of others, which `make` puts into folders of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.coming_from.pages import ROOT

PACKAGES = Path(os.environ.get("OPTUNA_SWEEPER_PACKAGES", ROOT / ".venv" / "optuna_sweeper"))
ZOO_PACKAGES = Path(os.environ.get("RL_ZOO_PACKAGES", ROOT / ".venv" / "rl_zoo3"))


@pytest.fixture
def zoo() -> Path:
    """The package rl_zoo3."""
    if not (ZOO_PACKAGES / "rl_zoo3").is_dir():
        pytest.skip(f"rl_zoo3 is not in {ZOO_PACKAGES}: run `make .venv/rl_zoo3`")
    return ZOO_PACKAGES / "rl_zoo3"


@pytest.fixture
def published() -> Path:
    """The package hydra-optuna-sweeper."""
    package = PACKAGES / "hydra_plugins" / "hydra_optuna_sweeper"
    if not package.is_dir():
        pytest.skip(f"hydra-optuna-sweeper is not in {PACKAGES}: run `make .venv/optuna_sweeper`")
    return package
