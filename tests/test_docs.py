"""The documents tell the truth: their files are written, their commands and programs run, in order."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAM = "python -m dqn_runner"
NOT_RUN = ("make ", "pip ", ".venv/bin/pre-commit ")
"""What sets an environment up; CI does that itself."""

SHORT = [
    "agent.learning_starts=100",
    "agent.exploration.schedule.steps=300",
    "trainer.eval_frequency=400",
    "trainer.eval_episodes=1",
]


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page, as (language, text)."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def arguments(command: str) -> list[str]:
    """The command with a budget of seconds; what it is about stays as it is."""
    words = shlex.split(command, comments=True)[3:]
    if any(word in words for word in ("--help", "--cfg", "--info")):
        return words
    if "mode=eval" in words:
        return [*words, "evaluator.episodes=2"]
    steps = 1600 if any(word.startswith("resume=") for word in words) else 800
    sweep = any(word.startswith(("search=", "hydra/sweeper=optuna")) for word in words)
    trials = ["hydra.sweeper.n_trials=1"] if sweep else []
    return [*words, *SHORT, f"trainer.max_steps={steps}", *trials]


def run(command: list[str], cwd: Path) -> None:
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


def follow(language: str, text: str, cwd: Path, program: Callable[..., Outcome]) -> None:
    """Do what a reader would do with one block."""
    named = re.match(r"# (\S+\.(?:py|yaml))\n", text)
    if named:
        path = cwd / named[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.partition("\n")[2])
    elif language == "python":
        run(["-c", text], cwd)
    elif language == "bash":
        for line in filter(None, (line.partition("  #")[0].strip() for line in text.splitlines())):
            if line.startswith(PROGRAM):
                done = program(*arguments(line))
                assert done.status == 0, f"{line}\n{done.out}\n{done.err}"
            else:
                assert line.startswith(("# ", *NOT_RUN)), f"no test runs {line!r}"


@pytest.mark.slow
@pytest.mark.usefixtures("_forgotten")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_can_be_followed(page: Path, program: Callable[..., Outcome], tmp_path: Path) -> None:
    for language, text in blocks(page):
        follow(language, text, tmp_path, program)


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_reference_is_made_from_the_source() -> None:
    run([str(ROOT / "docs" / "make_reference.py"), "--check"], ROOT)


def test_the_tree_in_the_architecture_names_every_file() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    missing = [p.name for p in (ROOT / "dqn_runner").glob("*.py") if p.name not in text and p.stem[0] != "_"]
    assert not missing
