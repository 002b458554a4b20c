"""Writes docs/results.md, its figures and the summary in README.md from benchmarks/results/runs.

python benchmarks/results_page.py            write them
python benchmarks/results_page.py --check    exit 1 if the texts are out of date
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from family import family_text, load_family
from family_figure import draw_family
from recipes import OURS, SB3, Recipe, Results, load_recipes, load_results
from tables import HEAD, per_seed, permutation_p, row, summary

from dqn_runner.run.plots import BLUE, DPI, ORANGE, ROW, WIDTH, finish_panel, label_panel
from dqn_runner.statistics.aggregates import iqm
from dqn_runner.statistics.bootstrap import probability_of_improvement, sample_efficiency

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"
FIGURE = ROOT / "docs" / "images" / "results.png"
README = ROOT / "README.md"
BEGIN, END = "<!-- results: written by make results -->\n", "<!-- /results -->\n"
COLORS = {OURS: BLUE, SB3: ORANGE}
README_SEEDS = 3
README_TEXT = """Final policies in 100 greedy episodes, on seeds that selected nothing.
[All numbers](docs/results.md) are beside those that were published and those of stable-baselines3.
"""
TEMPLATE = Path(__file__).with_name("results_template.md")
TABLES, FAMILY = "<!-- tables -->\n", "<!-- family -->\n"
"""Where the template has the results, and the comparison of the agents."""


def page(recipes: dict[str, Recipe]) -> str:
    """The text of docs/results.md."""
    done: list[str] = []
    missing: list[str] = []
    for recipe in recipes.values():
        results = stored(recipe)
        if results:
            done.append(section(recipe, results))
        missing += [
            f"- {recipe.name} with {library}: {count} of {recipe.seeds} seeds"
            for library in recipe.libraries
            if (count := seeds_of(recipe, library)) < recipe.seeds
        ]
    parts: list[str] = []
    if figure_is_drawn(recipes):
        parts.append("![Learning curves](images/results.png)\n\n")
        parts.append(
            "Lines: IQM of the evaluations in training, with 95 % bands. Dashed: published scores.\n\n"
        )
    parts += done
    if missing:
        parts.append("## Not run yet\n\n" + "\n".join(missing) + "\n\n")
    text = TEMPLATE.read_text().replace(TABLES, "".join(parts))
    return text.replace(FAMILY, family_text(load_family()))


def section(recipe: Recipe, results: list[Results]) -> str:
    """The part of the page about a recipe."""
    goal = f" To reach: {recipe.goal}." if recipe.goal else ""
    lines = [
        f"## {recipe.title}\n",
        f"`python benchmarks/results.py --recipe {recipe.name}`; "
        f"solved: a score of {recipe.solved:g}.{goal}\n",
        summary(recipe, results).partition("\n\n")[2] + "\n",
        *(f"- {per_seed(recipe, found)}" for found in results),
    ]
    if len(results) == 2 and min(len(found.runs) for found in results) > 1:
        ours, theirs = ([run.score for run in found.runs] for found in results)
        found = probability_of_improvement(ours, theirs)
        lines.append(
            f"- A run of {OURS} scores higher than one of {SB3} with probability {found.value:.2f} "
            f"({found.low:.2f} to {found.high:.2f}). Permutation test of equal means: "
            f"p {p_text(permutation_p(ours, theirs))}."
        )
    machines = {f"{each.machine['cpu']}, {each.machine['cores']} cores": None for each in results}
    lines.append(f"- Machine: {'; '.join(machines)}.\n\n")
    return "\n".join(lines)


def p_text(p: float) -> str:
    """A p-value with two digits."""
    return "< 0.01" if p < 0.01 else f"= {p:.2f}"


def stored(recipe: Recipe) -> list[Results]:
    """The results of a recipe, ours first."""
    found = (load_results(recipe, library) for library in (OURS, SB3))
    return [results for results in found if results is not None]


def seeds_of(recipe: Recipe, library: str) -> int:
    """How many runs of a recipe have a score."""
    results = load_results(recipe, library)
    return len(results.runs) if results else 0


def readme(text: str, recipes: dict[str, Recipe]) -> str:
    """README.md with a summary between its two markers: of the recipes with at least `README_SEEDS` runs."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    rows = [
        row(recipe, results, name=recipe.title)
        for recipe in recipes.values()
        if (results := load_results(recipe, OURS)) and len(results.runs) >= README_SEEDS
    ]
    lines = ["## Results\n", README_TEXT, HEAD, *rows, "\n![Learning curves](docs/images/results.png)\n\n"]
    return f"{before}{BEGIN}{chr(10).join(lines) if rows else ''}{END}{after}"


def with_curves(results: list[Results]) -> list[Results]:
    """The results with runs that were evaluated in training, and only those runs."""
    found: list[Results] = []
    for result in results:
        runs = [run for run in result.runs if len(run.curve) == len(result.steps)]
        if runs:
            found.append(replace(result, runs=runs))
    return found


def figure_is_drawn(recipes: dict[str, Recipe]) -> bool:
    """Whether there is a learning curve to draw."""
    return any(with_curves(stored(recipe)) for recipe in recipes.values())


def draw(recipes: dict[str, Recipe]) -> None:
    """Draw the learning curves of all recipes that have results."""
    import matplotlib.pyplot as plt

    shown = [(recipe, found) for recipe in recipes.values() if (found := with_curves(stored(recipe)))]
    columns = min(len(shown), 2)
    rows = -(-len(shown) // columns)
    size = (WIDTH / 2 * columns, ROW * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, dpi=DPI, squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.remove()
    for axes, (recipe, results) in zip(grid.flat, shown, strict=False):
        draw_recipe(axes, recipe, results)
    figure.tight_layout()
    figure.savefig(FIGURE, metadata={"Software": None})


def draw_recipe(axes: Any, recipe: Recipe, results: list[Results]) -> None:
    """Draw the curves of each library, and the published scores as horizontal lines."""
    label_panel(axes, recipe.title, "return")
    for found in results:
        curves = np.array([run.curve for run in found.runs])
        curve = sample_efficiency(curves, iqm)
        label = f"{found.library}, {len(curves)} seed{'s' * (len(curves) > 1)}"
        axes.plot(found.steps, curve.value, color=COLORS[found.library], label=label)
        axes.fill_between(found.steps, curve.low, curve.high, color=COLORS[found.library], alpha=0.2, lw=0)
    for published in recipe.published:
        axes.axhline(published.value, color="grey", ls="--", lw=0.8)
    finish_panel(axes, max(found.steps[-1] for found in results))


def main() -> None:
    recipes = load_recipes()
    texts = {PAGE: page(recipes), README: readme(README.read_text(), recipes)}
    if "--check" in sys.argv:
        if old := [path.name for path, text in texts.items() if path.read_text() != text]:
            sys.exit(f"out of date: {', '.join(old)}; run `make results`")
        return
    for path, text in texts.items():
        path.write_text(text)
    if figure_is_drawn(recipes):
        draw(recipes)
    draw_family(load_family(), FIGURE.parent)


if __name__ == "__main__":
    main()
