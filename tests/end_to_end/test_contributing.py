"""A contributor's first change, as CONTRIBUTING.md describes it, works in a fresh copy of the sources."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import environment
from tests.end_to_end.test_docs import ROOT, fenced_blocks, file_name

SECTION = "## A first change: a loss"
SOURCES = ("dqn_runner", "hydra_plugins", "conf", "tests", "docs")
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
TIMEOUT = 240.0


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources, as a contributor has them."""
    for name in SOURCES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(checkout: Path, *arguments: str) -> str:
    """The output of `python ARGUMENTS` in the checkout, which must succeed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env=environment(PYTHONPATH=str(checkout)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def kill_after_first_checkpoint(checkout: Path, run_dir: Path, *arguments: str) -> None:
    """Run `python ARGUMENTS` and kill the process as soon as it has written a checkpoint."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=checkout,
        env=environment(PYTHONPATH=str(checkout)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + TIMEOUT
        while not (run_dir / "checkpoints" / "latest.pt").exists():
            assert process.poll() is None, f"{' '.join(arguments)} ended before its first checkpoint"
            assert time.monotonic() < deadline, "no checkpoint was written"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert not (run_dir / "metrics.json").exists(), "the run finished before it was killed"


def train_kill_and_resume(checkout: Path, arguments: list[str]) -> None:
    """Run the training command twice, killed the first time; the second one must resume and finish."""
    run_dir = checkout / next(a.partition("=")[2] for a in arguments if a.startswith("hydra.run.dir="))
    budget = next(int(a.partition("=")[2]) for a in arguments if a.startswith("trainer.max_steps="))
    short = ["trainer.checkpoint_frequency=1000", "trainer.eval_episodes=1", "trainer.target_return=null"]
    kill_after_first_checkpoint(checkout, run_dir, *arguments, *short)
    run(checkout, *arguments, *short)
    assert len(json.loads((run_dir / "run.json").read_text())["sessions"]) == 2
    assert max(json.loads((run_dir / "metrics.json").read_text())["evaluations"]["step"]) == budget


def lint(checkout: Path, files: list[str]) -> None:
    """Check the new files as `make lint` does."""
    python_files = [name for name in files if name.endswith(".py")]
    run(checkout, "-m", "ruff", "format", "--check", *python_files)
    run(checkout, "-m", "ruff", "check", *python_files)


@pytest.mark.slow
def test_first_change_in_contributing_can_be_followed(checkout: Path) -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition(SECTION)[2].partition("\n## ")[0]
    written: list[str] = []
    for language, text in fenced_blocks(section):
        if name := file_name(text):
            assert not (checkout / name).exists(), f"{name} exists already"
            (checkout / name).write_text(text.partition("\n")[2])
            written.append(name)
            continue
        assert language == "bash", text
        for command in text.splitlines():
            program, *arguments = shlex.split(command)
            if program == "make":
                assert arguments == ["format", "lint", "types", "docs"]
                lint(checkout, written)
                run(checkout, "docs/make_reference.py")
            elif "dqn_runner" in arguments:
                train_kill_and_resume(checkout, arguments)
            else:
                assert " passed" in run(checkout, *arguments)
    assert len(written) == 3, "a loss takes one file, one YAML file and one test"
    assert "agent/loss=log_cosh" in (checkout / "docs" / "reference.md").read_text()


def test_paths_in_contributing_exist() -> None:
    first_change = re.compile(rf"{SECTION}.*?(?=^## )", re.MULTILINE | re.DOTALL)
    text = first_change.sub("", (ROOT / "CONTRIBUTING.md").read_text())
    paths = set(re.findall(r"`((?:dqn_runner|tests|conf|docs)/[\w/.]*)`", text))
    assert len(paths) > 20
    assert not [path for path in paths if "NAME" not in path and not (ROOT / path).exists()]


def test_ci_runs_make_check() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in [step.get("run") for step in steps]
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make check")


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_have_what_github_requires(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert all(link.keys() == {"name", "url", "about"} for link in form["contact_links"])
        return
    assert {"name", "description", "body"} <= form.keys()
    fields = [item for item in form["body"] if item["type"] != "markdown"]
    assert all(item["attributes"]["label"] for item in fields)
    assert len({item["id"] for item in fields}) == len(fields), "the id of a field is unique"


def test_bug_report_asks_for_what_repeats_a_run() -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug_report.yml").read_text())
    assert {"command", "run-json", "log", "versions"} <= {item.get("id") for item in form["body"]}


def test_make_help_describes_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)
    assert targets is not None
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    ).stdout
    described = {line.split()[1] for line in shown.splitlines() if len(line.split()) > 2}
    assert described == set(targets[1].split())
