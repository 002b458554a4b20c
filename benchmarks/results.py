"""Trains a recipe with several seeds, scores the final policies, and prints them beside the published score.

    python benchmarks/results.py --recipe cartpole_zoo --seeds 10

All runs are one sweep of the program, on all cores: the first seed is its trial, the others are the
validation of that trial. So the command continues where it was stopped or killed, no run is trained twice,
and more seeds add runs. Each run is scored by `mode=eval` of its last checkpoint, on episodes whose seeds
differ from those of training and of its evaluations. The runs are in results/recipes/NAME, and what is kept
of them, scores and curves, in benchmarks/results/runs/NAME.json, from which `make results` writes the page
docs/results.md.

With `--library sb3` stable-baselines3 trains with the same settings instead; its runs cannot be resumed, so a
run that was stopped starts again. It needs the extra `benchmark`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from family import load_family
from machine import machine
from recipes import EPISODES, FIRST_SEED, OURS, SB3, Recipe, Results, Run, load_recipes
from tables import summary

from dqn_runner import __version__

HELP = "of recipes.yaml, or family_ENVIRONMENT_AGENT of family.yaml; several are trained in this order"
PROGRAM = [sys.executable, "-m", "dqn_runner"]


def train_ours(recipe: Recipe, seeds: list[int], directory: Path, jobs: int) -> None:
    """Run the sweep; returns also if runs of it failed, and exits with its status if it was stopped."""
    *overrides, steps = sorted(recipe.command(), key=lambda word: word.startswith("trainer.max_steps="))
    key, _, value = steps.partition("=")
    sweep = [
        "-m",
        "hydra/sweeper=optuna",
        f"hydra.sweep.dir={directory}",
        f"{key}=choice({value})",  # a space of one point: what varies is the seed
        "hydra.sweeper.sampler=grid",
        "hydra.sweeper.n_trials=1",
        "hydra.sweeper.objective=final_return",
        f"hydra.sweeper.n_jobs={jobs}",
        f"hydra.sweeper.validate={len(seeds) - 1}",
        f"seed={seeds[0]}",
        "logging=[file,jsonl]",
    ]
    command = [*PROGRAM, *sweep, *overrides]
    print(shlex.join(command), flush=True)
    sweep_process = subprocess.Popen(command)
    signal.signal(signal.SIGINT, lambda *_: None)  # a terminal sends Ctrl-C to the sweep too
    signal.signal(signal.SIGTERM, lambda *_: sweep_process.terminate())
    status = sweep_process.wait()
    if status not in (0, 1):  # stopped, or the disk is full; 1: a run failed, which is reported
        sys.exit(status if status > 0 else 128 - status)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def our_run_dir(directory: Path, seed: int) -> Path:
    """The directory of a run of the sweep."""
    return directory / "0" if seed == FIRST_SEED else directory / "0" / f"seed_{seed}"


def score_ours(run_dir: Path, seed: int) -> Run | None:
    """Score the last checkpoint of a run, unless that was done; None if the run has not finished."""
    stored = run_dir / "metrics.json"
    if not stored.exists() or (metrics := json.loads(stored.read_text()))["finished"] is None:
        return None
    score = run_dir / "score" / "eval.json"
    if not score.exists():
        evaluation = [
            "mode=eval",
            f"checkpoint={run_dir / 'checkpoints' / 'latest.pt'}",
            "trust=true",  # our own run, whose environment may be an import path
            f"evaluator.episodes={EPISODES}",
            f"hydra.run.dir={score.parent}",
            "logging=[file]",
        ]
        subprocess.run([*PROGRAM, *evaluation], check=True, stdout=subprocess.DEVNULL)
    return Run(
        seed=seed,
        score=json.loads(score.read_text())["return_mean"],
        env_steps=metrics["env_steps"],
        seconds=round(metrics["time"]["training_seconds"], 1),
        curve=metrics["evaluations"]["return_mean"],
    )


def run_sb3(recipe: Recipe, directory: Path, seed: int) -> Run | None:
    """Train and score a run of stable-baselines3 in a process of its own, unless that was done.

    Exits if that was done with other settings or another version.
    """
    stored = directory / str(seed) / "run.json"
    if not stored.exists():
        script = Path(__file__).with_name("train_sb3.py")
        command = [sys.executable, str(script), str(seed), str(stored), *recipe.command()]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if subprocess.run(command, check=False, env=environment).returncode != 0:
            return None
    document = json.loads(stored.read_text())
    if (document["command"], document["version"]) != (recipe.command(), importlib.metadata.version(SB3)):
        sys.exit(
            f"{stored} is a run of other settings, or of another version of {SB3}; move it away, or choose "
            "another --out"
        )
    return Run(**document["run"])


def collect(
    recipe: Recipe,
    library: str,
    seeds: list[int],
    jobs: int,
    run: Callable[[int], Run | None],
    begun: Callable[[int], bool] = lambda _: True,
) -> Results:
    """The results of all seeds, `jobs` at a time; one without a score has failed if its run has `begun`."""
    with ThreadPoolExecutor(jobs) as pool:
        found = dict(zip(seeds, pool.map(run, seeds), strict=True))
    return Results(
        recipe=recipe.name,
        library=library,
        command=recipe.command(),
        version=__version__ if library == OURS else importlib.metadata.version(library),
        machine=machine(),
        steps=[recipe.steps // recipe.points * (index + 1) for index in range(recipe.points)],
        runs=[result for result in found.values() if result is not None],
        failed=[seed for seed, result in found.items() if result is None and begun(seed)],
    )


def run_recipe(recipe: Recipe, library: str, seeds: list[int], jobs: int, out: Path) -> bool:
    """Train and score all seeds, store and print the results; returns whether every seed has a score."""
    if library == "ours":
        directory = out / recipe.name
        train_ours(recipe, seeds, directory, jobs)
        results = collect(
            recipe,
            OURS,
            seeds,
            jobs,
            lambda seed: score_ours(our_run_dir(directory, seed), seed),
            lambda seed: (our_run_dir(directory, seed) / "metrics.jsonl").exists(),
        )
    else:
        directory = out / f"{recipe.name}_sb3"
        results = collect(recipe, SB3, seeds, jobs, lambda seed: run_sb3(recipe, directory, seed))
    scored = {run.seed for run in results.runs}
    if missing := [seed for seed in seeds if seed not in scored]:
        listed = ", ".join(map(str, missing))
        print(f"{recipe.name}: no score for the seeds {listed}; {why(library, directory)}", file=sys.stderr)
    results = results.with_stored()
    results.write()
    print(summary(recipe, [results]), flush=True)
    return not missing


def why(library: str, directory: Path) -> str:
    """Where to read why runs have no score. A sweep whose first seed fails does not start the others."""
    if library != "ours":
        return "what they printed above says why"
    return (
        f"{directory} has the logs of those that began. If the first one failed, the others do not begin: "
        "move that directory away to train all of them again"
    )


def main() -> None:
    recipes = {**load_recipes(), **load_family().recipes()}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", required=True, nargs="+", choices=recipes, metavar="NAME", help=HELP)
    parser.add_argument("--seeds", type=int, help="default: those that the table of the recipe should have")
    parser.add_argument("--library", choices=["ours", "sb3"], default="ours")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="default: one for each core")
    parser.add_argument("--out", type=Path, default=Path("results/recipes"))
    options = parser.parse_args()
    if min(options.jobs, 1 if options.seeds is None else options.seeds) < 1:
        parser.error("--seeds and --jobs must be at least 1")
    complete: list[bool] = []
    for recipe in (recipes[name] for name in options.recipe):
        seeds = list(range(FIRST_SEED, FIRST_SEED + (options.seeds or recipe.seeds)))
        complete.append(run_recipe(recipe, options.library, seeds, options.jobs, options.out))
    sys.exit(0 if all(complete) else 1)


if __name__ == "__main__":
    main()
