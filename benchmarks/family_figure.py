"""The pictures of the family: curves of each agent beside those of DQN, and performance profiles of all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from family import BASELINE, Family, Task, picture
from recipes import OURS, Results, load_results

from dqn_runner.run.plots import BLUE, COLORS, DPI, ORANGE, SMALL, WIDTH, finish_panel, label_panel
from dqn_runner.statistics.aggregates import iqm
from dqn_runner.statistics.bootstrap import performance_profile, sample_efficiency

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS, ROW = 3, 2.4
LEVELS = 200
"""Points of a performance profile."""


def draw_family(family: Family, directory: Path) -> None:
    """Draw a picture for each environment that has results."""
    for task in family.tasks:
        found = {agent: load_results(task.recipe(agent), OURS) for agent in family.agents}
        done = {agent: results for agent, results in found.items() if results is not None and results.runs}
        if done:
            draw_task(task, done, directory / picture(task))


def draw_task(task: Task, done: dict[str, Results], path: Path) -> None:
    """Draw a panel for each agent, but for DQN, which is in all of them, and one with all profiles."""
    import matplotlib.pyplot as plt

    agents = [agent for agent in done if agent != BASELINE]
    row, column = divmod(len(agents), COLUMNS)
    if COLUMNS - column < 2:  # the profiles and their legend need two columns
        row, column = row + 1, 0
    figure = plt.figure(figsize=(WIDTH, ROW * (row + 1)), dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(row + 1, COLUMNS)
    first: Axes | None = None
    for index, agent in enumerate(agents):
        panel = figure.add_subplot(grid[index // COLUMNS, index % COLUMNS], sharey=first)
        first = first or panel
        draw_agent(panel, task, agent, done)
    panel, legend = grid[row, column:].subgridspec(1, 2, width_ratios=(2, 1)).subplots()
    draw_profiles(panel, done)
    legend.legend(*panel.get_legend_handles_labels(), loc="center", frameon=False, fontsize=SMALL, ncol=2)
    legend.axis("off")
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def draw_agent(panel: Axes, task: Task, agent: str, done: dict[str, Results]) -> None:
    """Draw the curves of an agent and of DQN, with their bands."""
    label_panel(panel, agent, "return")
    for name, color in ((BASELINE, BLUE), (agent, ORANGE)):
        if name in done:
            found = done[name]
            curve = sample_efficiency(np.array([run.curve for run in found.runs]), iqm)
            panel.plot(found.steps, curve.value, color=color, label=name)
            panel.fill_between(found.steps, curve.low, curve.high, color=color, alpha=0.2, lw=0)
    finish_panel(panel, task.steps)


def draw_profiles(panel: Axes, done: dict[str, Results]) -> None:
    """Draw which fraction of the runs of each agent scores above any level."""
    scores = {agent: [run.score for run in found.runs] for agent, found in done.items()}
    every = [score for values in scores.values() for score in values]
    low, high = min(every), max(every)
    margin = 0.02 * (high - low or 1.0)
    levels = np.linspace(low - margin, high + margin, LEVELS)
    for index, (agent, values) in enumerate(scores.items()):
        profile = performance_profile(values, levels)
        style = "-" if index < len(COLORS) else "--"
        panel.plot(levels, profile.value, style, color=COLORS[index % len(COLORS)], label=agent)
    label_panel(panel, "Performance profiles of the final policies", "fraction of runs above")
    panel.set_xlabel("score", fontsize=SMALL)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
