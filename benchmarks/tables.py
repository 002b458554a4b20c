"""Tables of results in Markdown: scores with their intervals, beside what was published."""

from __future__ import annotations

import statistics

from recipes import Recipe, Results

from dqn_runner.statistics.aggregates import iqm
from dqn_runner.statistics.bootstrap import estimate

HEAD = (
    "| | IQM, 95 % interval | mean | worst and best seed | seeds solved | env steps | seconds |\n"
    "|---|---|---|---|---|---|---|"
)


def row(recipe: Recipe, results: Results, name: str | None = None) -> str:
    """The scores of a library, as a row below `HEAD` that starts with `name`, or with the library."""
    scores = [run.score for run in results.runs]
    middle = estimate(scores, iqm)
    interval = f"{middle.low:.1f} to {middle.high:.1f}" if len(scores) > 1 else "one run"
    attempted = len(scores) + len(results.failed)
    failed = f", {len(results.failed)} failed" if results.failed else ""
    cells = (
        name or f"{results.library} {results.version}",
        f"{middle.value:.1f} ({interval})",
        f"{statistics.fmean(scores):.1f}",
        f"{min(scores):.1f} and {max(scores):.1f}",
        f"{sum(score >= recipe.solved for score in scores)} of {attempted}{failed}",
        f"{statistics.median(run.env_steps for run in results.runs):,.0f}",
        f"{statistics.median(run.seconds for run in results.runs):,.0f}",
    )
    return f"| {' | '.join(cells)} |"


def published_rows(recipe: Recipe) -> list[str]:
    """What was published for the settings of a recipe, as rows below `HEAD`."""
    rows: list[str] = []
    for found in recipe.published:
        runs = "one run" if found.runs == 1 else f"{found.runs} runs"
        score = f"{found.value:.1f} ± {found.spread:.1f}, {runs}"
        rows.append(f"| {found.source} | | {score} | | | {recipe.steps:,} | |")
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


def per_seed(results: Results) -> str:
    """The score of every run, in a line."""
    scores = ", ".join(f"{run.score:.1f} ({run.seed})" for run in results.runs)
    return f"{results.library}, scores of the runs and their seeds: {scores}"
