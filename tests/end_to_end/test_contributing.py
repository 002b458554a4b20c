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
from textwrap import dedent

import pytest
import yaml

from tests.conftest import environment
from tests.end_to_end.test_docs import ROOT
from tests.support.code_blocks import fenced_blocks, file_name, write_file

SECTION = "## A first change: a loss"
SOURCES = ("dqn_runner", "hydra_plugins", "conf", "tests", "docs")
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
TIMEOUT = 240.0

NEW_FILES = {
    "agent/networks/shallow.py": """
        from dqn_runner.core.registry import option
        from dqn_runner.agent.networks.base import NetworkOptions

        @option("agent/network", "shallow")
        @dataclass(kw_only=True)
        class Shallow(NetworkOptions):
            units: int = 8

            def build(self, spec, outputs_per_action):
                from torch import nn

                outputs = spec.num_actions * outputs_per_action
                hidden = nn.Linear(spec.obs_shape[0], self.units)
                return nn.Sequential(hidden, nn.ReLU(), nn.Linear(self.units, outputs))
    """,
    "agent/cyclic.py": """
        from dqn_runner.core.registry import option

        @option("agent/exploration", "cyclic")
        @dataclass(kw_only=True)
        class Cyclic:
            period: int = 2

            def __call__(self, q_values, shape, step, rng):
                return np.full(shape[0], step // self.period % shape[1])

            def epsilon(self, step):
                return 0.0

            @property
            def duration(self):
                return 0
    """,
    "agent/losses/mean_target.py": """
        from dqn_runner.core.registry import option
        from dqn_runner.agent.losses.targets import Backup

        @option("agent/loss/target", "mean")
        @dataclass(kw_only=True)
        class MeanTarget:
            def __call__(self, next_q, online, target, transition):
                q = next_q()
                return Backup(transition.reward, q.new_full(q.shape, 1 / q.shape[-1]))
    """,
    "replay/newest.py": """
        from dqn_runner.core.registry import option
        from dqn_runner.replay.buffer import build_replay
        from dqn_runner.replay.uniform import UniformReplay, UniformSampler

        @option("agent/replay", "newest")
        @dataclass(kw_only=True)
        class NewestReplay(UniformReplay):
            def build(self, spec, num_envs, gamma, n_step, rng):
                sampler = lambda ring: NewestSampler(ring, rng)
                return build_replay(self.capacity, spec, num_envs, gamma, n_step, sampler)

        class NewestSampler(UniformSampler):
            def sample(self, batch_size, step):
                slots, weight = super().sample(batch_size, step)
                ring = self._ring
                return np.full_like(slots, (ring.start + len(ring) - 1) % ring.capacity), weight
    """,
    "envs/corridor.py": """
        from dqn_runner.core.registry import option
        from dqn_runner.core.lazy_imports import gymnasium
        from dqn_runner.envs.base import EnvConfig

        @option("env", "corridor")
        @dataclass(kw_only=True)
        class Corridor(EnvConfig):
            length: int = 5

            def make(self, training=True, render=False):
                class Walk(gymnasium.Env):
                    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
                    action_space = gymnasium.spaces.Discrete(2)

                    def reset(self, *, seed=None, options=None):
                        super().reset(seed=seed)
                        self.at = 0
                        return np.zeros(1, np.float32), {}

                    def step(self, action):
                        self.at += 1
                        return np.ones(1, np.float32), 1.0, self.at == length, False, {}

                length = self.length
                return Walk()
    """,
    "loggers/counter.py": """
        from dqn_runner.core.registry import option

        @option("logging", "counter", package="logging.counter")
        @dataclass(kw_only=True)
        class Counter:
            file: str = "count.txt"

            def open(self, run_dir, info, state):
                return Open(run_dir / self.file, state["count"] if state else 0)

        class Open:
            def __init__(self, path, count):
                self.path, self.count = path, count

            def write(self, record):
                self.count += 1

            def state_dict(self):
                return {"count": self.count}

            def close(self, failed):
                self.path.write_text(str(self.count))
    """,
}
"""One new file for each kind of part; none of the existing files changes."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources, as a contributor has them."""
    for name in SOURCES:
        shutil.copytree(ROOT / name, tmp_path / name)
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
@pytest.mark.nightly  # test_a_new_part_of_each_kind_takes_one_file adds a loss too
def test_first_change_in_contributing_can_be_followed(checkout: Path) -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition(SECTION)[2].partition("\n## ")[0]
    written: list[str] = []
    for language, text in fenced_blocks(section):
        if name := file_name(text):
            assert not (checkout / name).exists(), f"{name} exists already"
            write_file(text, checkout)
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


def test_a_new_part_of_each_kind_takes_one_file(checkout: Path) -> None:
    for name, text in NEW_FILES.items():
        path = checkout / "dqn_runner" / name
        assert not path.exists(), f"{name} exists already"
        path.write_text("from dataclasses import dataclass\n\nimport numpy as np\n" + dedent(text))
    options = {
        "agent/network": "shallow",
        "agent/exploration": "cyclic",
        "agent/loss/target": "mean",
        "agent/replay": "newest",
        "env": "corridor",
        "logging": "[jsonl,counter]",
    }
    chosen = [f"{group}={name}" for group, name in options.items()]
    short = ["trainer.max_steps=50", "agent.learning_starts=10", "agent.batch_size=4", "hydra.run.dir=run"]
    run(checkout, "-m", "dqn_runner", *chosen, *short, "agent.network.units=4", "env.length=3")
    stored = json.loads((checkout / "run" / "run.json").read_text())["config"]
    parts = {"network": "shallow", "exploration": "cyclic", "replay": "newest"}
    for part, name in parts.items():
        assert stored["agent"][part]["_target_"] == f"agent/{part}={name}"
    assert stored["agent"]["loss"]["target"]["_target_"] == "agent/loss/target=mean"
    assert stored["env"]["_target_"] == "env=corridor"
    metrics = json.loads((checkout / "run" / "metrics.json").read_text())
    assert set(metrics["evaluations"]["return_mean"]) == {3.0}
    records = (checkout / "run" / "metrics.jsonl").read_text().splitlines()
    assert (checkout / "run" / "count.txt").read_text() == str(len(records))


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
