"""The notebook is valid, its outputs are stored, its commands compose, and it can be executed."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Outcome

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "first_agent.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
RUN = [cell for cell in CODE if "install" not in cell["metadata"].get("tags", [])]
PROGRAM = "%%bash\npython -m dqn_runner "
"""Its output is a pipe. After an exclamation mark it would be a terminal, where progress is drawn again."""


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def commands() -> list[str]:
    """The commands of the program, without the program."""
    return [text.removeprefix(PROGRAM) for text in map(source, RUN) if text.startswith(PROGRAM)]


def test_notebook_is_small_and_has_the_outputs_of_one_execution() -> None:
    assert NOTEBOOK.stat().st_size < 100_000
    kinds = [output["output_type"] for cell in RUN for output in cell["outputs"]]
    assert "error" not in kinds
    pictures = [output for cell in RUN for output in cell["outputs"] if "image/png" in output.get("data", {})]
    assert len(pictures) == 1
    silent = [source(cell) for cell in RUN if not cell["outputs"]]
    assert not silent
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert not any("execution" in cell["metadata"] for cell in CELLS)


def test_notebook_has_no_path_of_a_machine() -> None:
    assert not re.search(r"/(tmp|home|root|work|content)/", NOTEBOOK.read_text())


def test_cells_are_python_or_commands() -> None:
    for text in map(source, RUN):
        if text.startswith("%"):
            assert text.startswith(PROGRAM.strip())
            assert text.count("\n") == 1
        else:
            compile(text, "cell", "exec")


@pytest.mark.parametrize("command", dict.fromkeys(commands()))
def test_commands_of_the_notebook_compose(program: Callable[..., Outcome], command: str) -> None:
    words = [word for word in shlex.split(command) if not word.startswith(("checkpoint=", "mode="))]
    done = program(*words, "--cfg", "job")
    assert done.status == 0, done.err


@pytest.mark.slow
@pytest.mark.nightly
def test_notebook_can_be_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its first cell, which installs what is under test; the quicker siblings check its parts."""
    import nbformat  # `make test` installs these two, as the extra nightly
    from nbclient import NotebookClient

    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    notebook: Any = nbformat.read(NOTEBOOK, 4)
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", [])]
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=900, resources=resources).execute()
    assert (tmp_path / "comparison.html").exists()
    assert (tmp_path / "exported" / "agent.onnx").exists()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "error:" not in said
    assert "Traceback" not in said
