"""The documents tell the truth: their files are written, their commands and programs run, in order."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.slots import Slots
from tests.conftest import Outcome

ROOT = Path(__file__).parents[2]
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
ONE_JOB = ["hydra.sweeper.n_trials=1", "hydra.sweeper.seeds=1", "hydra.sweeper.validate=0"]


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
    return [*words, *SHORT, f"trainer.max_steps={steps}", *(ONE_JOB if is_tuning(command) else [])]


def is_tuning(command: str) -> bool:
    """Whether Optuna chooses the settings of the jobs."""
    return any(word.startswith(("search=", "hydra/sweeper=optuna")) for word in shlex.split(command))


def run(command: list[str], cwd: Path) -> None:
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


def follow(
    language: str,
    text: str,
    cwd: Path,
    program: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Do what a reader would do with one block.

    Of the sweeps of a page the first one runs a job; of the others the study is opened, a trial composed.
    """
    named = re.match(r"# (\S+\.(?:py|yaml))\n", text)
    if named:
        path = cwd / named[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.partition("\n")[2])
    elif language == "python":
        run(["-c", text], cwd)
    elif language == "bash":
        lines = text.replace("\\\n", " ").splitlines()
        for line in filter(None, (line.partition("  #")[0].strip() for line in lines)):
            if line.startswith(PROGRAM):
                done = program(*arguments(line))
                assert done.status == 0, f"{line}\n{done.out}\n{done.err}"
                if is_tuning(line):
                    monkeypatch.setattr(Slots, "run", lambda *_: None)
            else:
                assert line.startswith(("# ", *NOT_RUN)), f"no test runs {line!r}"


@pytest.mark.slow
@pytest.mark.usefixtures("_forgotten")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_can_be_followed(
    page: Path, program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for language, text in blocks(page):
        follow(language, text, tmp_path, program, monkeypatch)


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_each_setting_of_sweeps_is_explained() -> None:
    text = (ROOT / "docs" / "sweeps.md").read_text()
    settings = [field.name for field in dataclasses.fields(SweepConfig)]
    assert not [name for name in settings if not re.search(rf"hydra\.sweeper\.{name}\b", text)]


def test_reference_is_made_from_the_source() -> None:
    run([str(ROOT / "docs" / "make_reference.py"), "--check"], ROOT)


def test_the_tree_in_the_architecture_names_every_file() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    missing = [p.name for p in (ROOT / "dqn_runner").glob("*.py") if p.name not in text and p.stem[0] != "_"]
    assert not missing
