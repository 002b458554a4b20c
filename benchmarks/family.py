"""The agents of the family at equal steps: their recipes, and the table that compares them with DQN."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml
from recipes import OURS, Recipe, load_results
from tables import score_text

from dqn_runner.statistics.aggregates import iqm
from dqn_runner.statistics.bootstrap import estimate, probability_of_improvement

BASELINE = "dqn"
"""The agent that the others are compared with."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """An environment of the comparison; see benchmarks/family.yaml."""

    name: str
    title: str
    overrides: list[str]
    steps: int
    solved: float
    seeds: int
    learning_rate: float
    learning_rates: dict[str, float] = field(default_factory=dict[str, float])

    def recipe(self, agent: str) -> Recipe:
        """What is trained for an agent."""
        rate = self.learning_rates.get(agent, self.learning_rate)
        return Recipe(
            name=f"family_{self.name}_{agent}",
            title=f"{self.title}, {agent}",
            overrides=[f"agent={agent}", *self.overrides, f"agent.learning_rate={rate}"],
            steps=self.steps,
            solved=self.solved,
            seeds=self.seeds,
            published=[],
        )


@dataclass(frozen=True, kw_only=True)
class Family:
    """All agents and the environments in which they are compared."""

    agents: list[str]
    tasks: list[Task]

    def recipes(self) -> dict[str, Recipe]:
        """The recipe of each cell of the table, by name."""
        cells = (task.recipe(agent) for task in self.tasks for agent in self.agents)
        return {recipe.name: recipe for recipe in cells}

    def table(self) -> str:
        """IQM of the scores with its interval, and how probably a run scores higher than one of DQN."""
        head = ["", *(f"{task.title}, {task.steps:,} steps" for task in self.tasks)]
        rows = [[f"`{agent}`", *(cell(task, agent) for task in self.tasks)] for agent in self.agents]
        return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]) + "\n"


def cell(task: Task, agent: str) -> str:
    """The results of an agent in an environment."""
    recipe = task.recipe(agent)
    results, baseline = load_results(recipe.name, OURS), load_results(task.recipe(BASELINE).name, OURS)
    if results is None:
        return "not run"
    scores = [run.score for run in results.runs]
    middle = estimate(scores, iqm)
    text = score_text(recipe, middle.value)
    if len(scores) > 1:
        text += f" ({score_text(recipe, middle.low)} to {score_text(recipe, middle.high)})"
    text += f", {len(scores)} of {recipe.seeds} seeds"
    if results.failed:
        text += f", {len(results.failed)} failed"
    if agent != BASELINE and baseline is not None and min(len(scores), len(baseline.runs)) > 1:
        better = probability_of_improvement(scores, [run.score for run in baseline.runs])
        text += f"; better with probability {better.value:.2f} ({better.low:.2f} to {better.high:.2f})"
    return text


def load_family() -> Family:
    """The agents and environments of benchmarks/family.yaml."""
    document = yaml.safe_load(Path(__file__).with_name("family.yaml").read_text())
    tasks = [Task(name=name, **values) for name, values in document["environments"].items()]
    return Family(agents=document["agents"], tasks=tasks)
