"""Tables of results in Markdown: scores with their intervals, beside what was published."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from recipes import Recipe, Results

from dqn_runner.statistics.aggregates import iqm
from dqn_runner.statistics.bootstrap import estimate

HEAD = (
    "| | IQM, 95 % interval | mean | worst and best seed | seeds solved | env steps | seconds |\n"
    "|---|---|---|---|---|---|---|"
)


def score_text(recipe: Recipe, value: float) -> str:
    """A score, with two decimals where scores are small."""
    return f"{value:.{2 if abs(recipe.solved) < 10 else 1}f}"


def row(recipe: Recipe, results: Results, name: str | None = None) -> str:
    """The scores of a library, as a row below `HEAD` that starts with `name`, or with the library."""
    scores = [run.score for run in results.runs]
    title, failed = name or f"{results.library} {results.version}", len(results.failed)
    solved = f"{sum(score >= recipe.solved for score in scores)} of {len(scores) + failed}"
    solved += f", {failed} failed" if failed else ""
    if not scores:
        return f"| {title} | no run has a score | | | {solved} | | |"
    middle = estimate(scores, iqm)
    low, high = score_text(recipe, middle.low), score_text(recipe, middle.high)
    interval = f"{low} to {high}" if len(scores) > 1 else "one run"
    cells = (
        title,
        f"{score_text(recipe, middle.value)} ({interval})",
        score_text(recipe, statistics.fmean(scores)),
        f"{score_text(recipe, min(scores))} and {score_text(recipe, max(scores))}",
        solved,
        f"{statistics.median(run.env_steps for run in results.runs):,.0f}",
        f"{statistics.median(run.seconds for run in results.runs):,.0f}",
    )
    return f"| {' | '.join(cells)} |"


def published_rows(recipe: Recipe) -> list[str]:
    """What was published for the settings of a recipe, as rows below `HEAD`."""
    rows: list[str] = []
    for found in recipe.published:
        runs = "one run" if found.runs == 1 else f"{found.runs} runs"
        spread = "" if found.spread is None else f" ± {found.spread:.1f}"
        score = f"{found.value:.1f}{spread}, {runs}"
        rows.append(f"| {found.source} | | {score} | | | {found.steps or recipe.steps:,} | |")
    if recipe.optimum is not None:
        rows.append(f"| optimal policy, by value iteration | | {recipe.optimum:g} | | | | |")
    return rows


def summary(recipe: Recipe, results: list[Results]) -> str:
    """The table of a recipe."""
    return "\n".join(
        [
            f"{recipe.title}: `{' '.join(recipe.overrides)}`",
            "",
            HEAD,
            *(row(recipe, found) for found in results),
            *published_rows(recipe),
        ]
    )


def per_seed(recipe: Recipe, results: Results) -> str:
    """The score of every run, in a line, and the seeds that have none."""
    failed = f"; failed: {', '.join(map(str, results.failed))}" if results.failed else ""
    scores = ", ".join(f"{score_text(recipe, run.score)} ({run.seed})" for run in results.runs)
    return f"{results.library}, scores of the runs and their seeds: {scores or 'none'}{failed}"


def permutation_p(ours: Sequence[float], theirs: Sequence[float], draws: int = 10_000) -> float:
    """How often scores that are shuffled among the two libraries have means at least as far apart.

    The p-value of a permutation test of equal means (Fisher 1935); no distribution is assumed.
    """
    scores = np.array([*ours, *theirs])
    shuffled = np.random.default_rng(0).permuted(np.tile(scores, (draws, 1)), axis=1)
    differences = np.vstack([scores, shuffled])
    count = len(ours)
    distance = np.abs(differences[:, :count].mean(1) - differences[:, count:].mean(1))
    return float((distance >= distance[0] - 1e-9).mean())
