"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import pytest

from dqn_runner.run import plots


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no training curves, which would take most of their time."""
    monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)
