"""Pictures of a run, drawn from its files."""

from __future__ import annotations

from pathlib import Path


def draw_training_curves(run_dir: Path) -> None:
    """placeholder"""
