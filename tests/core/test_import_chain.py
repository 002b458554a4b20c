"""Imports point down one chain of rooms (subpackages), and heavy libraries stay out of start-up.

A new file needs no edit here: its room is its place in the chain.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import dqn_runner

PACKAGE = Path(dqn_runner.__file__).parent

CHAIN: list[set[str]] = [
    {"core"},
    {"io", "statistics"},
    {"envs", "checkpointing", "loggers"},
    {"replay", "run"},
    {"agent"},
    {"training"},
    {"inference"},
    {"config"},
    {"sweep"},
    {"report"},
    {"cli", "runs"},
    {"selftest"},
    {"__init__", "__main__"},
]
"""Rooms from the bottom up: a file imports from its own room and from rooms of earlier entries."""

ONLY_IN: dict[str, set[str]] = {
    "gymnasium": {"core", "envs", "selftest"},
    "hydra": {"core", "config", "sweep", "cli"},
    "omegaconf": {"core", "config", "sweep", "cli"},
    "optuna": {"sweep", "report"},
    "sqlalchemy": {"sweep"},
    "matplotlib": {"run", "report"},
    "wandb": {"loggers"},
    "mlflow": {"loggers"},
    "rich": {"io", "loggers", "report", "runs", "sweep"},
    "PIL": {"io", "report"},
    "imageio_ffmpeg": {"io"},
    "jinja2": {"report"},
}
"""Libraries that only some rooms may import."""

LEVEL = {room: level for level, rooms in enumerate(CHAIN) for room in rooms}
FILES = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in PACKAGE.rglob("*.py")}


def room_of(module: str) -> str:
    return module.partition(".")[0]


@cache
def imports(module: str, at_start: bool = False) -> set[str]:
    """The dotted names that a file imports; with `at_start` only those outside of functions."""
    found: set[str] = set()
    nodes = [ast.parse(FILES[module].read_text())]
    while nodes:
        node = nodes.pop()
        if at_start and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if at_start and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        nodes += ast.iter_child_nodes(node)
    return found


def own_imports(module: str) -> set[str]:
    """The modules of the package that a file imports, without the package's name."""
    found: set[str] = set()
    for name in imports(module):
        inner = name.removeprefix("dqn_runner.")
        if inner == name:
            continue
        while inner not in FILES and f"{inner}.__init__" not in FILES:
            inner = inner.rpartition(".")[0]
        found.add(inner if inner in FILES else f"{inner}.__init__")
    return found


def test_every_file_lies_in_a_room_of_the_chain() -> None:
    assert {room_of(module) for module in FILES} == set(LEVEL)


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_point_down(module: str) -> None:
    room = room_of(module)
    upward = {
        name for name in own_imports(module) if room_of(name) != room and LEVEL[room_of(name)] >= LEVEL[room]
    }
    assert not upward, f"{module} imports {upward}, from a room that is not below its own"


def test_no_imports_form_a_circle() -> None:
    TopologicalSorter({module: own_imports(module) for module in FILES}).prepare()


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_stays_in_its_rooms(library: str) -> None:
    users = {
        room_of(module)
        for module in FILES
        if any(name.partition(".")[0] == library for name in imports(module))
    }
    assert users <= ONLY_IN[library]


HEAVY = ("torch", "gymnasium", "matplotlib", "optuna", "wandb", "mlflow", "rich", "psutil")
LATE_ROOMS = ("agent.networks.modules.", "envs.wrappers.", "inference.module", "sweep.")
"""Packages and modules that are imported inside functions only, so that they may import heavy libraries."""


@pytest.mark.parametrize("module", sorted(FILES))
def test_heavy_libraries_are_imported_late(module: str) -> None:
    """Composing a configuration must stay quick: torch and gymnasium come from core.lazy_imports."""
    if module == "core.lazy_imports" or module.startswith(LATE_ROOMS):
        return
    found = {name for name in imports(module, at_start=True) if name.partition(".")[0] in HEAVY}
    assert not found


def test_composing_a_configuration_imports_no_heavy_library() -> None:
    script = (
        "import sys; import dqn_runner.cli.main; from hydra.core.plugins import Plugins; Plugins.instance();"
        f"sys.exit(' '.join({set(HEAVY)} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == ""
