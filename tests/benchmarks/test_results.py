"""The page of results: what it says about stored runs, and that it is up to date."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("recipes", "tables", "family", "family_figure", "machine", "results", "results_page")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A function that imports a script of benchmarks/, which stores results in a temporary directory."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(importlib.import_module("recipes"), "RESULTS", tmp_path)
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def results(bench: Any, library: str, scores: list[float], failed: list[int]) -> Any:
    recipes = bench("recipes")
    runs = [
        recipes.Run(seed=100 + n, score=score, env_steps=50_000, seconds=30.0, curve=[20.0, score])
        for n, score in enumerate(scores)
    ]
    return recipes.Results(
        recipe="cartpole_zoo",
        library=library,
        version="1.0",
        command=recipes.load_recipes()["cartpole_zoo"].command(),
        machine={"cpu": "a CPU", "cores": 2},
        steps=[25_000, 50_000],
        runs=runs,
        failed=failed,
    )


def test_stored_results_are_read_back(bench: Any) -> None:
    recipes = bench("recipes")
    found = results(bench, recipes.OURS, [500.0, 480.0], [102])
    found.write()
    recipe = recipes.load_recipes()["cartpole_zoo"]
    assert recipes.load_results(recipe, recipes.OURS) == found
    assert recipes.load_results(recipe, recipes.SB3) is None


def test_stored_results_of_other_settings_are_rejected(bench: Any, tmp_path: Path) -> None:
    recipes = bench("recipes")
    results(bench, recipes.SB3, [500.0], []).write()
    changed = recipes.load_recipes()
    changed["cartpole_zoo"].overrides.append("agent.learning_rate=0.5")
    why = "has runs of other settings than the recipe cartpole_zoo: experiment=cartpole_zoo trainer"
    with pytest.raises(SystemExit, match=why) as rejected:
        bench("results_page").page(changed)
    assert str(rejected.value).startswith(str(tmp_path / "cartpole_zoo_sb3.json"))


def test_a_run_of_stable_baselines3_with_other_settings_is_not_taken_for_this_one(
    bench: Any, tmp_path: Path
) -> None:
    recipes, script = bench("recipes"), bench("results")
    recipe, version = recipes.load_recipes()["cartpole_zoo"], importlib.metadata.version(recipes.SB3)
    run = results(bench, recipes.SB3, [500.0], []).runs[0]
    stored = tmp_path / "100" / "run.json"
    stored.parent.mkdir()

    def store(command: list[str], version: str) -> None:
        document = {"command": command, "version": version, "run": dataclasses.asdict(run)}
        stored.write_text(json.dumps(document))

    store(recipe.command(), version)
    assert script.run_sb3(recipe, tmp_path, 100) == run
    for command, other in ((["experiment=acrobot_zoo"], version), (recipe.command(), "0.1")):
        store(command, other)
        with pytest.raises(SystemExit, match="is a run of other settings, or of another version"):
            script.run_sb3(recipe, tmp_path, 100)


def begin(run_dir: Path) -> None:
    """Leave what a run leaves that has begun."""
    run_dir.mkdir(parents=True)
    (run_dir / "metrics.jsonl").touch()


def test_a_recipe_whose_runs_all_failed_is_reported(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes, script = bench("recipes"), bench("results")
    recipe = recipes.load_recipes()["cartpole_zoo"]
    monkeypatch.setattr(script, "train_ours", lambda *_: None)
    monkeypatch.setattr(script, "score_ours", lambda *_: None)
    begin(tmp_path / "cartpole_zoo" / "0")  # the other one does not begin after it
    assert not script.run_recipe(recipe, "ours", [100, 101], 1, tmp_path)
    printed = capsys.readouterr()
    assert "no score for the seeds 100, 101" in printed.err
    assert "If the first one failed, the others do not begin: move that directory away" in printed.err
    assert "| no run has a score | | | 0 of 1, 1 failed | | |" in printed.out
    page = bench("results_page").page(recipes.load_recipes())
    assert "scores of the runs and their seeds: none; failed: 100" in page


def test_runs_of_other_seeds_are_kept_if_the_command_is_the_same(bench: Any) -> None:
    recipes = bench("recipes")
    results(bench, recipes.OURS, [500.0, 480.0, 470.0], []).write()
    fewer = results(bench, recipes.OURS, [490.0], [])
    assert [run.score for run in fewer.with_stored().runs] == [490.0, 480.0, 470.0]
    other = dataclasses.replace(fewer, command=["experiment=acrobot"])
    assert other.with_stored() == other


def test_row_has_the_interval_and_counts_failed_runs(bench: Any) -> None:
    recipe = bench("recipes").load_recipes()["cartpole_zoo"]
    row = bench("tables").row(recipe, results(bench, "ours", [500.0, 500, 500, 400], [104]))
    assert row == (
        "| ours 1.0 | 500.0 (400.0 to 500.0) | 475.0 | 400.0 and 500.0 | 3 of 5, 1 failed | 50,000 | 30 |"
    )


def test_permutation_test_agrees_with_all_permutations(bench: Any) -> None:
    ours, theirs = [117.0, 108, 191, 65], [178.0, 187, 183]
    distances: list[float] = []
    for chosen in itertools.combinations(range(7), 4):
        scores = [*ours, *theirs]
        first = [scores[index] for index in chosen]
        rest = [scores[index] for index in range(7) if index not in chosen]
        distances.append(abs(statistics.fmean(first) - statistics.fmean(rest)))
    exact = statistics.fmean(distance >= distances[0] - 1e-9 for distance in distances)
    assert bench("tables").permutation_p(ours, theirs) == pytest.approx(exact, abs=0.01)


def test_score_of_a_small_scale_has_two_decimals(bench: Any) -> None:
    recipe = bench("recipes").load_recipes()["frozenlake"]
    row = bench("tables").row(recipe, results(bench, "ours", [0.89, 0.98], []))
    assert row.startswith("| ours 1.0 | 0.94 (0.89 to 0.98) | 0.94 | 0.89 and 0.98 | 2 of 2 |")


def test_page_shows_scores_comparison_and_what_was_not_run(bench: Any) -> None:
    recipes, page = bench("recipes"), bench("results_page")
    for library in (recipes.OURS, recipes.SB3):
        results(bench, library, [500.0] * 10 if library == recipes.OURS else [490.0, 500.0], []).write()
    text = page.page(recipes.load_recipes())
    assert "| dqn_runner 1.0 | 500.0 (500.0 to 500.0) |" in text
    assert "scores higher than one of stable-baselines3 with probability 0.75" in text
    assert "Permutation test of equal means: p = " in text
    assert "- cartpole_zoo with stable-baselines3: 2 of 10 seeds" in text
    assert "- cartpole_zoo with dqn_runner" not in text
    assert "- acrobot_zoo with dqn_runner: 0 of 10 seeds" in text
    readme = page.readme(f"above\n{page.BEGIN}old\n{page.END}below\n", recipes.load_recipes())
    assert readme.startswith("above\n")
    assert readme.endswith("below\n")
    assert "old" not in readme
    assert "| CartPole-v1, settings of rl-baselines3-zoo | 500.0 (500.0 to 500.0) |" in readme
    assert "![Learning curves](docs/images/results.png)" in readme


def test_readme_says_nothing_of_recipes_with_fewer_than_three_runs(bench: Any) -> None:
    recipes, page = bench("recipes"), bench("results_page")
    results(bench, recipes.OURS, [500.0, 500.0], []).write()
    text = f"above\n{page.BEGIN}{page.END}below\n"
    assert page.readme(text, recipes.load_recipes()) == text


def test_figure_is_drawn(bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipes, page = bench("recipes"), bench("results_page")
    results(bench, recipes.OURS, [500.0, 480.0], []).write()
    monkeypatch.setattr(page, "FIGURE", tmp_path / "figure.png")
    page.draw(recipes.load_recipes())
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_documents_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    page = importlib.import_module("results_page")
    monkeypatch.setattr(sys, "argv", ["results_page.py", "--check"])
    try:
        page.main()
    finally:
        for name in MODULES:
            sys.modules.pop(name, None)


def test_every_recipe_trains_all_its_steps(bench: Any) -> None:
    for recipe in (
        *bench("recipes").load_recipes().values(),
        *bench("family").load_family().recipes().values(),
    ):
        assert recipe.steps % recipe.points == 0
        assert "trainer.target_return=null" in recipe.command()
        assert "trainer.early_stopping=false" in recipe.command()


def test_seed_without_a_score_is_reported_and_the_others_are_stored(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes, script = bench("recipes"), bench("results")
    recipe = recipes.load_recipes()["cartpole_zoo"]
    runs = {
        run.seed: run
        for run in results(bench, recipes.OURS, [500.0, 480.0, 470.0], []).runs
        if run.seed != 101
    }
    monkeypatch.setattr(script, "train_ours", lambda *_: None)
    monkeypatch.setattr(script, "score_ours", lambda _, seed: runs.get(seed))
    begin(tmp_path / "cartpole_zoo" / "0" / "seed_101")
    assert not script.run_recipe(recipe, "ours", [100, 101, 102], 2, tmp_path)
    printed = capsys.readouterr()
    assert "no score for the seeds 101" in printed.err
    assert "| 1 of 3, 1 failed |" in printed.out
    stored = recipes.load_results(recipe, recipes.OURS)
    assert [run.seed for run in stored.runs] == [100, 102]
    assert stored.failed == [101]


def test_sweep_of_a_recipe_has_one_trial_and_validates_it_with_the_other_seeds(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script, commands = bench("results"), []

    class Finished:
        def __init__(self, command: list[str]) -> None:
            commands.append(command)

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(script.subprocess, "Popen", Finished)
    recipe = bench("recipes").load_recipes()["cartpole_zoo"]
    script.train_ours(recipe, [100, 101, 102], tmp_path, 4)
    wanted = {"seed=100", "hydra.sweeper.n_trials=1", "hydra.sweeper.validate=2", "hydra.sweeper.n_jobs=4"}
    assert wanted <= set(commands[0])
    assert "trainer.max_steps=choice(50000)" in commands[0]
    assert script.our_run_dir(tmp_path, 100) == tmp_path / "0"
    assert script.our_run_dir(tmp_path, 101) == tmp_path / "0" / "seed_101"


def test_a_stored_failure_stays_reported_until_its_seed_has_a_score(bench: Any) -> None:
    ours = bench("recipes").OURS
    results(bench, ours, [490.0], [101, 105]).write()
    assert results(bench, ours, [480.0], []).with_stored().failed == [101, 105]
    assert results(bench, ours, [480.0, 470.0], []).with_stored().failed == [105]
    results(bench, ours, [490.0, 480.0], []).write()
    assert results(bench, ours, [490.0], [101]).with_stored().failed == [], "the stored score counts"


def of_recipe(family: Any, found: Any, name: str) -> Any:
    return dataclasses.replace(found, recipe=name, command=family.recipes()[name].command())


def test_tables_of_the_family_compare_each_agent_with_dqn(bench: Any) -> None:
    recipes, module = bench("recipes"), bench("family")
    family = module.load_family()
    text = module.family_text(family)
    assert text.count("Not run yet: `dqn`, `double_dqn`") == len(family.tasks)
    assert "|" not in text
    for agent, scores in (("dqn", [100.0, 120.0]), ("iqn", [90.0, 200.0])):
        found = results(bench, recipes.OURS, scores, [])
        of_recipe(family, found, f"family_lunarlander_{agent}").write()
    peer = results(bench, recipes.SB3, [95.0] * 5, [105])
    of_recipe(family, peer, "family_lunarlander_iqn").write()
    dqn, iqn = (line for line in module.family_text(family).splitlines() if line.startswith("| `"))
    assert dqn.split(" | ")[2:] == ["110.0 (100.0 to 120.0), 2 of 5 seeds", "", "65.0 (60.0 to 70.0)", " |"]
    assert iqn.split(" | ")[2:4] == ["145.0 (90.0 to 200.0), 2 of 5 seeds", "0.50 (0.00 to 1.00)"]
    assert iqn.endswith("| 95.0 (95.0 to 95.0), 1 failed |")
    assert family.recipes()["family_lunarlander_iqn"].command()[0] == "agent=iqn"


def test_pictures_of_the_family_are_drawn_of_what_was_run(bench: Any, tmp_path: Path) -> None:
    recipes, module = bench("recipes"), bench("family")
    for agent in ("iqn", "rainbow"):  # DQN, which the others are drawn beside, may be missing
        found = results(bench, recipes.OURS, [90.0, 200.0], [])
        of_recipe(module.load_family(), found, f"family_lunarlander_{agent}").write()
    bench("family_figure").draw_family(module.load_family(), tmp_path)
    assert [path.name for path in tmp_path.glob("*.png")] == ["family_lunarlander.png"]


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "< 0.01"), (0.0099, "< 0.01"), (0.01, "= 0.01"), (0.5, "= 0.50")]
)
def test_small_p_values_are_not_zero(bench: Any, p: float, text: str) -> None:
    assert bench("results_page").p_text(p) == text
