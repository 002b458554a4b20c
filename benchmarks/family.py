"""The agents of the family at equal steps: their recipes, and the tables that compare them with DQN."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from recipes import OURS, SB3, Recipe, Results, load_results
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

    def rate(self, agent: str) -> float:
        """The learning rate of an agent."""
        return self.learning_rates.get(agent, self.learning_rate)

    def recipe(self, agent: str) -> Recipe:
        """What is trained for an agent."""
        return Recipe(
            name=f"family_{self.name}_{agent}",
            title=f"{self.title}, {agent}",
            overrides=[f"agent={agent}", *self.overrides, f"agent.learning_rate={self.rate(agent)}"],
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


HEAD = (
    "| agent | learning rate | IQM of the final policy | better than `dqn` with probability | "
    "IQM of the mean over training | final policy, stable-baselines3 |\n|---|---|---|---|---|---|"
)


def family_text(family: Family) -> str:
    """The results of all agents, environment by environment."""
    return "\n".join(section(task, family.agents) for task in family.tasks)


def section(task: Task, agents: list[str]) -> str:
    """A picture and a table of the agents in an environment, and which of them have no results."""
    found = {agent: load_results(task.recipe(agent), OURS) for agent in agents}
    done = {agent: results for agent, results in found.items() if results is not None and results.runs}
    lines = [f"### {task.title}, {task.steps:,} steps\n"]
    if done:
        lines += [f"![{task.title}](images/{picture(task)})\n", HEAD]
        lines += [row(task, agent, results, done.get(BASELINE)) for agent, results in done.items()]
        lines += [""]
    missing = [f"`{agent}`" for agent in agents if agent not in done]
    if missing:
        lines += [f"Not run yet: {', '.join(missing)}.\n"]
    return "\n".join(lines)


def picture(task: Task) -> str:
    """The name of the picture of an environment, in docs/images."""
    return f"family_{task.name}.png"


def row(task: Task, agent: str, results: Results, baseline: Results | None) -> str:
    """An agent's row below `HEAD`."""
    recipe = task.recipe(agent)
    scores = [run.score for run in results.runs]
    means = [statistics.fmean(run.curve) for run in results.runs]
    better = ""
    if agent != BASELINE and baseline is not None and min(len(scores), len(baseline.runs)) > 1:
        found = probability_of_improvement(scores, [run.score for run in baseline.runs])
        better = f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
    peer = load_results(recipe, SB3)
    cells = (
        f"`{agent}`",
        f"{task.rate(agent):g}",
        interval(recipe, scores) + runs(recipe, results),
        better,
        interval(recipe, means),
        ""
        if peer is None or not peer.runs
        else interval(recipe, [run.score for run in peer.runs]) + runs(recipe, peer),
    )
    return f"| {' | '.join(cells)} |"


def interval(recipe: Recipe, scores: list[float]) -> str:
    """The IQM, and its interval if there is more than one run."""
    middle = estimate(scores, iqm)
    low, high = score_text(recipe, middle.low), score_text(recipe, middle.high)
    return score_text(recipe, middle.value) + (f" ({low} to {high})" if len(scores) > 1 else "")


def runs(recipe: Recipe, results: Results) -> str:
    """How many of the runs that there should be are missing, and how many failed."""
    parts: list[str] = []
    if len(results.runs) < recipe.seeds:
        parts.append(f", {len(results.runs)} of {recipe.seeds} seeds")
    if results.failed:
        parts.append(f", {len(results.failed)} failed")
    return "".join(parts)


def load_family() -> Family:
    """The agents and environments of benchmarks/family.yaml."""
    document = yaml.safe_load(Path(__file__).with_name("family.yaml").read_text())
    tasks = [Task(name=name, **values) for name, values in document["environments"].items()]
    return Family(agents=document["agents"], tasks=tasks)
