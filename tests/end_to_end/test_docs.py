"""The documentation is true: files of a page are written, then its commands and programs run, in order."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dqn_runner.sweep import runner
from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.slots import Slots
from tests.conftest import Outcome
from tests.support.code_blocks import fenced_blocks, write_file

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAM = "python -m dqn_runner"
NOT_RUN = ("make ", "pip ", ".venv/bin/pre-commit ")
"""Commands that set up an environment; CI runs them itself."""
DAILY = ("README", "sweeps", "own-env", "use-agent", "agents", "quick-reference", "stable-baselines3")
"""Pages that CI follows. The others are followed at night; other tests of CI use their features too."""

SHORT = [
    "agent.learning_starts=100",
    "agent.exploration.schedule.steps=200",
    "trainer.eval_frequency=200",
    "trainer.eval_episodes=1",
]
ONE_JOB = ["hydra.sweeper.n_trials=1", "hydra.sweeper.seeds=1", "hydra.sweeper.validate=0"]


def arguments(command: str) -> list[str]:
    """The arguments of a command, with a budget of seconds."""
    words = shlex.split(command, comments=True)[3:]
    if any(word in words for word in ("--help", "--cfg", "--info", "mode=export")):
        return words
    if "mode=play" in words:
        return [*words, "evaluator.episodes=1", "trainer.max_steps_per_episode=20"]
    if {"mode=eval", "mode=publish", "mode=record"} & {*words}:
        return [*words, "evaluator.episodes=2"]
    steps = 600 if any(word.startswith("resume=") for word in words) else 300
    return [*words, *SHORT, f"trainer.max_steps={steps}", *(ONE_JOB if is_sweep(command) else [])]


def is_sweep(command: str) -> bool:
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

    The first sweep of a page runs a job; the other sweeps only open their study and compose a trial.
    """
    if write_file(text, cwd):
        return
    if language == "python":
        run(["-c", text], cwd)
    elif language == "bash":
        lines = text.replace("\\\n", " ").splitlines()
        for line in filter(None, (line.partition("  #")[0].strip() for line in lines)):
            if line.startswith(f"{PROGRAM} "):
                done = program(*arguments(line))
                assert done.status == 0, f"{line}\n{done.out}\n{done.err}"
                if is_sweep(line):
                    monkeypatch.setattr(Slots, "run", lambda *_: None)
                    monkeypatch.setattr(runner, "completed", lambda _: [True])
            elif line.startswith("python "):
                run(shlex.split(line)[1:], cwd)
            else:
                assert line.startswith(("# ", *NOT_RUN)), f"no test runs {line!r}"


@pytest.mark.slow
@pytest.mark.usefixtures("_unload_my_pkg", "forked_jobs")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page, id=str(page.relative_to(ROOT)), marks=[] if page.stem in DAILY else [pytest.mark.nightly]
        )
        for page in PAGES
    ],
)
def test_page_can_be_followed(
    page: Path, program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # mode=play opens a window
    for language, text in fenced_blocks(page.read_text()):
        follow(language, text, tmp_path, program, monkeypatch)


def test_links_of_the_documentation_lead_to_files() -> None:
    for page in [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_setting_of_sweeps_is_explained() -> None:
    text = (ROOT / "docs" / "sweeps.md").read_text()
    settings = [field.name for field in dataclasses.fields(SweepConfig)]
    assert not [name for name in settings if not re.search(rf"hydra\.sweeper\.{name}\b", text)]


def test_reference_page_is_generated_from_the_source() -> None:
    run([str(ROOT / "docs" / "make_reference.py"), "--check"], ROOT)


def tree_in_architecture() -> set[str]:
    """The files that the tree in ARCHITECTURE.md names, as paths below dqn_runner/."""
    block = re.search(
        r"^dqn_runner/\n(.*?)^```", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert block is not None
    folders: list[str] = []
    found: set[str] = set()
    for line in block[1].splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        if name.endswith("/"):
            folders[depth:] = [name]
        else:
            found.add("".join([*folders[:depth], name]))
    return found


def test_architecture_names_every_file_of_the_package() -> None:
    package = ROOT / "dqn_runner"
    files = {str(path.relative_to(package)) for path in package.rglob("*.py") if path.stem != "__init__"}
    assert tree_in_architecture() == files
