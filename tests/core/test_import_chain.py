"""Imports point down: the layer table of ARCHITECTURE.md, held by walking every file's imports."""

from __future__ import annotations

import ast
import subprocess
import sys
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
    {"collector", "evaluator", "plots", "divergence", "recovery"},
    {"metrics", "training"},
    {"loggers", "checks"},
    {"trackers", "run_directory"},
    {"trainer"},
    {"config", "provenance"},
    {"build", "errors"},
    {"evaluation", "resume"},
    {"sweep.objectives", "sweep.overrides", "sweep.jobs", "sweep.database", "sweep.journal", "sweep.workers"},
    {"sweep.settings", "sweep.parameters", "sweep.storage", "sweep.slots", "sweep.best_config"},
    {"sweep.conditions"},
    {"sweep.space"},
    {"sweep.study"},
    {"sweep.reporter", "sweep.trials", "sweep.plan", "sweep.ranking"},
    {"sweep.results", "sweep.dry_run"},
    {"sweep.sweep"},
    {"app"},
    {"__main__", "__init__", "sweep.__init__"},
]
"""From the bottom up; a file imports only from layers below its own."""

ONLY_IN: dict[str, set[str]] = {
    "gymnasium": {"lazy", "envs", "wrappers", "atari"},
    "hydra": {"app", "registry", "resume", "errors", "sweep"},
    "omegaconf": {"app", "registry", "resume", "errors", "config", "sweep"},
    "optuna": {"sweep"},
    "matplotlib": {"plots"},
    "wandb": {"trackers"},
    "rich": {"loggers"},
    "PIL": {"evaluation"},
}
"""Libraries that a single duty needs; a sweep is one, whichever of its files."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))
SUBPACKAGES = {name.rpartition(".")[0] for name in FILES if "." in name}


def text_of(stem: str) -> str:
    return PACKAGE.joinpath(*stem.split(".")).with_suffix(".py").read_text()


def imports(stem: str) -> tuple[set[str], set[str]]:
    """The package's own modules and the top-level libraries that a file imports, anywhere in it."""
    own: set[str] = set()
    foreign: set[str] = set()
    for node in ast.walk(ast.parse(text_of(stem))):
        if isinstance(node, ast.ImportFrom):
            library, _, inner = (node.module or "").partition(".")
            if library != "dqn_runner":
                foreign.add(library)
            elif inner and inner not in SUBPACKAGES:
                own.add(inner)
            else:
                own |= {f"{inner}.{alias.name}".lstrip(".") for alias in node.names}
        elif isinstance(node, ast.Import):
            foreign |= {alias.name.split(".")[0] for alias in node.names}
    if "lazy" in own:
        foreign |= {name for name in ("gymnasium", "torch") if f"import {name}" in text_of(stem)}
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
    users = {stem.partition(".")[0] for stem in FILES if library in imports(stem)[1]}
    assert users == ONLY_IN[library]


def test_parts_never_import_torch_directly() -> None:
    """Composing a configuration must not import torch; `layers` and `flat_network` are imported late."""
    users = {stem for stem in FILES if "torch" in imports(stem)[1] and "lazy" not in imports(stem)[0]}
    assert users == {"lazy", "layers", "flat_network", "trackers"}


def test_neither_composing_nor_a_plain_run_waits_for_optuna() -> None:
    """Hydra imports the sweeper for every command; what is slow to import waits until somebody sweeps."""
    script = (
        "import sys; from hydra.core.plugins import Plugins; import dqn_runner.app; Plugins.instance();"
        "assert 'hydra_plugins.dqn_runner_sweeper.sweeper' in sys.modules;"
        "sys.exit(' '.join({'optuna', 'torch', 'gymnasium', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == ""
