"""The recipes of benchmarks/recipes.yaml, and the stored results of their runs."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "runs"
"""Where the results of runs are stored, one file for each recipe and library."""
OURS, SB3 = "dqn_runner", "stable-baselines3"
FIRST_SEED = 100
"""The seed of the first run. Sweeps use small seeds, so that no recipe was tuned on those of its results."""
EPISODES = 100
"""Greedy episodes that score the final policy of a run."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published score for the settings of a recipe."""

    value: float
    spread: float | None
    """Standard deviation over the runs, or over the episodes of one run; None if it was not published."""
    runs: int
    source: str
    steps: int | None = None
    """Env steps of a run, if other than those of the recipe."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained; see benchmarks/recipes.yaml."""

    name: str
    title: str
    overrides: list[str]
    steps: int
    solved: float
    """The score from which a run counts as solved."""
    published: list[Published]
    goal: str | None = None
    """What the runs should reach."""
    optimum: float | None = None
    """The best possible score, where it can be computed."""
    seeds: int = 10
    """Runs that a table should have."""
    peer: bool = False
    """Whether stable-baselines3 has the same settings."""
    points: int = 20
    """Evaluations of a run, which are its learning curve."""

    @property
    def libraries(self) -> list[str]:
        """The libraries that can train it."""
        return [OURS, SB3] if self.peer else [OURS]

    def command(self) -> list[str]:
        """The overrides of a run: neither a target return nor patience ends it early."""
        return [
            *self.overrides,
            f"trainer.max_steps={self.steps}",
            f"trainer.eval_frequency={self.steps // self.points}",
            "trainer.target_return=null",
            "trainer.early_stopping=false",
        ]


@dataclass(frozen=True, kw_only=True)
class Run:
    """The result of a run."""

    seed: int
    score: float
    """Mean return of the final policy in `EPISODES` greedy episodes, whose seeds selected nothing."""
    env_steps: int
    seconds: float
    """Time of training, without that of the score."""
    curve: list[float]
    """Mean return of each evaluation during training; empty if there was none."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of all runs of a recipe with one library."""

    recipe: str
    library: str
    version: str
    command: list[str]
    """The overrides of the runs."""
    machine: dict[str, Any]
    steps: list[int]
    """Env steps of the evaluations of a curve."""
    runs: list[Run]
    failed: list[int] = field(default_factory=list[int])
    """Seeds of runs that have no score; they are reported, not left out."""

    def with_stored(self) -> Results:
        """These, with stored runs of other seeds, if those had the same command and version."""
        stored = _read(self.path())
        if stored is None or (stored.command, stored.version) != (self.command, self.version):
            return self
        runs = {run.seed: run for run in [*stored.runs, *self.runs]}
        failed = sorted({*stored.failed, *self.failed} - {*runs})
        return replace(self, runs=[runs[seed] for seed in sorted(runs)], failed=failed)

    def path(self) -> Path:
        """The file that stores them."""
        return results_path(self.recipe, self.library)

    def write(self) -> None:
        """Store them, one run in a line."""
        document = {key: value for key, value in asdict(self).items() if key != "runs"}
        head = json.dumps(document, indent=1).removesuffix("\n}")
        runs = ",\n".join(f"  {json.dumps(asdict(run))}" for run in self.runs)
        self.path().parent.mkdir(parents=True, exist_ok=True)
        self.path().write_text(f'{head},\n "runs": [\n{runs}\n ]\n}}\n')


def results_path(recipe: str, library: str) -> Path:
    """The file that stores the results of a recipe with a library."""
    return RESULTS / f"{recipe}{'' if library == OURS else '_sb3'}.json"


def load_results(recipe: Recipe, library: str) -> Results | None:
    """The stored results; None if the recipe was not run with that library.

    Exits if they are those of other settings: a recipe that is changed needs new runs.
    """
    path = results_path(recipe.name, library)
    found = _read(path)
    if found is not None and found.command != recipe.command():
        sys.exit(
            f"{path} has runs of other settings than the recipe {recipe.name}: {shlex.join(found.command)}; "
            "train them again, or move the file away"
        )
    return found


def _read(path: Path) -> Results | None:
    if not path.exists():
        return None
    document = json.loads(path.read_text())
    return Results(**{**document, "runs": [Run(**run) for run in document["runs"]]})


def load_recipes() -> dict[str, Recipe]:
    """All recipes, by name."""
    documents = yaml.safe_load((HERE / "recipes.yaml").read_text())
    return {
        name: Recipe(
            name=name,
            **{**document, "published": [Published(**found) for found in document["published"]]},
        )
        for name, document in documents.items()
    }
