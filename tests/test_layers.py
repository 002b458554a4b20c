"""Imports point down: the layer table of ARCHITECTURE.md, held by walking every file's imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dqn_runner

PACKAGE = Path(dqn_runner.__file__).parent

LAYERS: list[set[str]] = [
    {"lazy", "registry"},
    {"types"},
    {"rng", "schedules", "signals", "wrappers", "layers", "files", "lock", "stopwatch", "identity"},
    {"ring", "n_step", "sum_tree"},
    {"networks", "bootstraps", "exploration", "optimizers", "normalizer", "flat_network", "segments"},
    {"losses", "distributional", "frames", "distributions"},
    {"storage"},
    {"learner", "replay", "envs", "checkpoint"},
    {"agent", "report", "atari", "env_worker", "retention"},
    {"env_batch", "env_process", "checkpointer"},
    {"collector", "evaluator", "plots", "divergence"},
    {"metrics", "training"},
    {"loggers", "checks"},
    {"trackers", "run_directory"},
    {"trainer"},
    {"config", "provenance"},
    {"build", "errors"},
    {"evaluation", "resume"},
    {"app"},
    {"__main__", "__init__"},
]
"""From the bottom up; a file imports only from layers below its own."""

ONLY_IN: dict[str, set[str]] = {
    "gymnasium": {"lazy", "envs", "wrappers", "atari"},
    "hydra": {"app", "registry", "resume", "errors"},
    "omegaconf": {"app", "registry", "resume", "errors", "config"},
    "matplotlib": {"plots"},
    "wandb": {"trackers"},
    "rich": {"loggers"},
    "PIL": {"evaluation"},
}
"""Libraries that a single duty needs."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def imports(stem: str) -> tuple[set[str], set[str]]:
    """The package's own modules and the top-level libraries that a file imports, anywhere in it."""
    own: set[str] = set()
    foreign: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{stem}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "dqn_runner":
            own |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dqn_runner."):
            own.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.ImportFrom):
            foreign.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            foreign |= {alias.name.split(".")[0] for alias in node.names}
    if "lazy" in own:
        text = (PACKAGE / f"{stem}.py").read_text()
        foreign |= {name for name in ("gymnasium", "torch") if f"import {name}" in text}
    return own, foreign


def test_every_file_has_a_layer() -> None:
    assert set(FILES) == set(LEVEL)


@pytest.mark.parametrize("stem", FILES)
def test_imports_point_down(stem: str) -> None:
    own, _ = imports(stem)
    upward = {name for name in own if LEVEL[name] >= LEVEL[stem]}
    assert not upward, f"{stem} imports {upward}, which stand on its own layer or above"


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_stays_with_its_duty(library: str) -> None:
    users = {stem for stem in FILES if library in imports(stem)[1]}
    assert users == ONLY_IN[library]


def test_parts_never_import_torch_directly() -> None:
    """Composing a configuration must not import torch; `layers` and `flat_network` are imported late."""
    users = {stem for stem in FILES if "torch" in imports(stem)[1] and "lazy" not in imports(stem)[0]}
    assert users == {"lazy", "layers", "flat_network", "trackers"}
