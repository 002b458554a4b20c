"""A comparison groups runs by what differs, and its numbers are those of the statistics of the package."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dqn_runner.core.exceptions import UserError
from dqn_runner.report.__main__ import main
from dqn_runner.report.comparison import mean_until, scores_of
from dqn_runner.report.comparison_charts import evaluation_matrix
from dqn_runner.report.comparison_page import comparison_of
from dqn_runner.report.found_runs import best_runs, run_directories, runs_to_compare
from dqn_runner.report.grouping import grouped, repeated_seeds
from dqn_runner.report.stored_run import read_run
from dqn_runner.report.write import write_report
from dqn_runner.statistics.aggregates import iqm
from dqn_runner.statistics.bootstrap import estimate, probability_of_improvement
from tests.support.stored_runs import HOSTILE, charts_of, store_run, tags_of, text_of


def agents(directory: Path, **finals: list[float]) -> Path:
    """Runs of agents by name, one for each final score."""
    number = 0
    for name, scores in finals.items():
        for seed, score in enumerate(scores):
            overrides = [f"agent={name}", f"seed={seed}"]
            changes = {"agent__loss": {"_target_": f"agent/loss={name}"}, "seed": seed, "agent__seed": seed}
            store_run(directory / str(number), [5.0, score], overrides=overrides, **changes)
            number += 1
    return directory


def labels(paths: list[Path], by: str | None = None) -> dict[str, int]:
    return {group.label: len(group.runs) for group in grouped(runs_to_compare(paths).runs, by)}


def test_runs_are_grouped_by_the_overrides_that_differ_and_not_by_seeds(tmp_path: Path) -> None:
    assert labels([agents(tmp_path, dqn=[1.0, 2.0], c51=[3.0, 4.0, 5.0])]) == {"dqn": 2, "c51": 3}


def test_runs_on_different_machines_are_one_group(tmp_path: Path) -> None:
    store_run(tmp_path / "0", seed=0)
    store_run(tmp_path / "1", seed=1, agent__device="cpu", device="cpu", compile="off", agent__compile="off")
    assert labels([tmp_path]) == {"all runs": 2}


def test_games_are_different_environments(tmp_path: Path) -> None:
    for family in ("MinAtar", "Atari"):
        for game in ("breakout", "asterix"):
            env = {"_target_": f"dqn_runner.{family}", "game": game}
            store_run(tmp_path / family / game, env=env)
    names = {read_run(path).env for path in tmp_path.glob("*/*")}
    assert names == {"MinAtar breakout", "MinAtar asterix", "Atari breakout", "Atari asterix"}
    assert set(scores_of(grouped(runs_to_compare([tmp_path]).runs, None)).by_task) == names


def test_runs_without_overrides_are_grouped_by_their_settings(tmp_path: Path) -> None:
    for number, gamma in enumerate([0.9, 0.9, 0.99]):
        store_run(tmp_path / str(number), agent__gamma=gamma, seed=number)
    assert labels([tmp_path]) == {"gamma=0.9": 2, "gamma=0.99": 1}


def test_groups_by_a_setting_join_what_differs_otherwise(tmp_path: Path) -> None:
    for number, (gamma, steps) in enumerate([(0.9, 1), (0.9, 3), (0.99, 3)]):
        store_run(tmp_path / str(number), agent__gamma=gamma, agent__n_step=steps)
    assert labels([tmp_path]) == {
        "gamma=0.9, n_step=1": 1,
        "gamma=0.9, n_step=3": 1,
        "gamma=0.99, n_step=3": 1,
    }
    assert labels([tmp_path], "agent.gamma") == {"0.9": 2, "0.99": 1}
    with pytest.raises(UserError, match=r"--by agent\.gama: no run has this setting"):
        labels([tmp_path], "agent.gama")


def test_by_agent_reads_the_options_that_hydra_composed(tmp_path: Path) -> None:
    agents(tmp_path, dqn=[1.0], c51=[2.0])
    (tmp_path / "0" / ".hydra").mkdir()
    (tmp_path / "0" / ".hydra" / "hydra.yaml").write_text(
        "hydra:\n  runtime:\n    choices:\n      env: cartpole\n      agent: rainbow\n  verbose: false\n"
    )
    assert labels([tmp_path], "agent") == {"rainbow": 1, "c51": 1}


def test_equal_runs_of_equal_seeds_are_grouped_by_their_paths(tmp_path: Path) -> None:
    for version in ("old", "new"):
        for seed in range(2):
            store_run(tmp_path / version / str(seed), seed=seed)
    assert labels([tmp_path / "old", tmp_path / "new"]) == {"old": 2, "new": 2}


def test_scores_intervals_and_probabilities_are_those_of_the_statistics(tmp_path: Path) -> None:
    dqn, c51 = [10.0, 20.0, 30.0, 50.0], [25.0, 35.0, 60.0, 70.0]
    found = comparison_of([agents(tmp_path, dqn=dqn, c51=c51)], live=True)
    rows = list(csv.DictReader(io.StringIO(found.csv)))
    assert [row["group"] for row in rows] == ["dqn", "c51"]
    expected = estimate(dqn, iqm, resamples=10_000)
    numbers = [float(rows[0][name]) for name in ("iqm", "iqm_low", "iqm_high")]
    assert numbers == pytest.approx(list(expected), rel=1e-5)
    assert float(rows[0]["optimality_gap"]) == 475 - np.mean(dqn)
    better = probability_of_improvement(c51, dqn)
    assert f"c51 {better.value:.2g} [{better.low:.2g}, {better.high:.2g}] \u2013" in text_of(found.html)
    assert "CartPole-v1 & dqn & 4 & 25 [" in found.latex


def test_a_run_that_ended_early_keeps_its_last_evaluation(tmp_path: Path) -> None:
    runs = [
        read_run(store_run(tmp_path / "0", [1.0, 2.0, 3.0, 4.0])),
        read_run(store_run(tmp_path / "1", [5.0, 9.0])),
    ]
    times, matrix, early = evaluation_matrix(runs)
    assert times.tolist() == [100, 200, 300, 400]
    assert matrix.tolist() == [[1, 2, 3, 4], [5, 9, 9, 9]]
    assert early == 1


def test_runs_without_evaluation_are_left_out_and_named(tmp_path: Path) -> None:
    agents(tmp_path, dqn=[1.0, 2.0])
    store_run(tmp_path / "late", [])
    found = comparison_of([tmp_path], live=True)
    assert f"Left out, because they were not evaluated: {tmp_path / 'late'}" in text_of(found.html)


def test_the_score_is_that_of_mode_eval_only_if_every_run_has_one(tmp_path: Path) -> None:
    agents(tmp_path, dqn=[1.0, 2.0])
    for name in "01":
        checkpoint = f'"checkpoint": "{tmp_path}/{name}/checkpoints/latest.pt"'
        evaluated = f'{{{checkpoint}, "step": 1{name}, "return_mean": 7.0, "return_ci95": [6.0, 8.0]}}'
        (tmp_path / name / "eval").write_text(evaluated)
    (tmp_path / "0" / "eval").rename(tmp_path / "0" / "eval.json")
    groups = grouped(runs_to_compare([tmp_path]).runs, None)
    assert scores_of(groups).by_task["CartPole-v1"]["all runs"].tolist() == [1, 2]
    (tmp_path / "1" / "eval").rename(tmp_path / "1" / "eval.json")
    groups = grouped(runs_to_compare([tmp_path]).runs, None)
    assert scores_of(groups).by_task["CartPole-v1"]["all runs"].tolist() == [7, 7]
    assert scores_of(groups).kind == "mean return of mode=eval, checkpoints of env step 10 to 11"


def test_evaluations_of_different_episodes_are_named(tmp_path: Path) -> None:
    agents(tmp_path, dqn=[1.0, 2.0])
    for name, episodes, seed in (("0", 1, 7), ("1", 50, 0)):
        evaluated = {"checkpoint": f"{tmp_path}/{name}/checkpoints/latest.pt", "step": 10}
        evaluated |= {"return_mean": 7.0, "return_ci95": None, "episodes": episodes, "seed": seed}
        (tmp_path / name / "eval.json").write_text(json.dumps(evaluated))
    kind = scores_of(grouped(runs_to_compare([tmp_path]).runs, None)).kind
    assert kind.endswith("of env step 10, of 1 to 50 episodes, with the episode seeds 0, 7")


@pytest.mark.parametrize("name", ["logs", "wandb", "tensorboard"])
def test_runs_may_lie_in_a_directory_of_any_name(tmp_path: Path, name: str) -> None:
    run = store_run(tmp_path / name / "0")
    assert [*run_directories(tmp_path)] == [run]


def test_a_run_that_several_paths_name_counts_once(tmp_path: Path) -> None:
    store_run(tmp_path / "a")
    store_run(tmp_path / "b")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    found = runs_to_compare([tmp_path / "a", tmp_path, tmp_path / "link", tmp_path / "a"]).runs
    assert [(path, run.name) for path, run in found] == [(tmp_path / "a", "a"), (tmp_path, "b")]


def test_each_environment_is_compared_alone_and_all_of_them_together(tmp_path: Path) -> None:
    agents(tmp_path / "cartpole", dqn=[1.0, 2.0], c51=[3.0, 4.0])
    number = 0
    for name, score in (("dqn", -100.0), ("c51", -80.0)):
        for seed in range(2):
            loss = {"_target_": f"agent/loss={name}"}
            overrides = [f"agent={name}", "env=acrobot"]
            where = tmp_path / "acrobot" / str(number)
            store_run(
                where, [-500.0, score], env__id="Acrobot-v1", agent__loss=loss, seed=seed, overrides=overrides
            )
            number += 1
    page = comparison_of([tmp_path], live=True).html
    assert "All environments" in text_of(page)
    assert set(charts_of(page)) == {f"{kind}{i}" for kind in ("curves", "scores", "profile") for i in (1, 2)}


def test_a_sweep_is_compared_by_the_fresh_seeds_of_its_best_trial(tmp_path: Path) -> None:
    for seed in range(4):
        store_run(tmp_path / "sweep" / "3" / f"seed_{seed}")
    (tmp_path / "sweep" / "optimization_results.yaml").write_text(
        "best_trial: 3\nvalidation:\n  seeds: [2, 3]\n  values: [1.0, 2.0]\n"
    )
    assert [path.name for path in best_runs(tmp_path / "sweep")] == ["seed_2", "seed_3"]


@pytest.mark.parametrize(("seeds", "names"), [([5, 6], ["seed_5", "seed_6"]), ([5], ["3"])])
def test_without_a_whole_validation_only_the_runs_that_selected_the_trial_are_compared(
    seeds: list[int], names: list[str], tmp_path: Path
) -> None:
    """A sweep that was stopped in its validation has some of those runs, but no result of it."""
    if len(seeds) == 1:
        store_run(tmp_path / "sweep" / "3")
    for seed in (5, 6, 7):
        store_run(tmp_path / "sweep" / "3" / f"seed_{seed}")
    (tmp_path / "sweep" / "optimization_results.yaml").write_text(f"best_trial: 3\nseeds: {seeds}\n")
    assert [path.name for path in best_runs(tmp_path / "sweep")] == names


def test_results_without_the_seeds_of_their_trials_say_what_to_do(tmp_path: Path) -> None:
    store_run(tmp_path / "3" / "seed_5")
    (tmp_path / "optimization_results.yaml").write_text("best_trial: 3\n")
    with pytest.raises(UserError, match=r"does not say with which seeds .*; repeat the command of the sweep"):
        best_runs(tmp_path)


def test_of_sweeps_below_a_path_the_best_trials_are_compared(tmp_path: Path) -> None:
    for name, best in (("a", 1), ("b", 0)):
        for trial in range(2):
            store_run(tmp_path / name / str(trial), seed=trial)
        (tmp_path / name / "optimization_results.yaml").write_text(f"best_trial: {best}\nseeds: [0]\n")
    store_run(tmp_path / "plain")
    store_run(tmp_path / "open" / "0")
    (tmp_path / "open" / "study.journal").write_text("")
    found = runs_to_compare([tmp_path])
    assert [(path.name, str(run.directory.relative_to(tmp_path))) for path, run in found.runs] == [
        (tmp_path.name, "plain"),
        ("a", "a/1"),
        ("b", "b/0"),
    ]
    assert [path.name for path in found.sweeps] == ["a", "b"]
    assert found.left_out == [f"no trial of the sweep {tmp_path / 'open'} has finished yet"]
    page = text_of(comparison_of([tmp_path]).html)
    assert "which favours the sweep" in page
    assert "Left out: no trial of the sweep" in page


def test_the_mean_over_training_counts_the_steps_after_a_run_has_reached_its_target() -> None:
    """A run that ends at once with 500 is better than one that needs ten times as long."""
    every = 1_000.0 * np.arange(1, 21)
    slow = mean_until(20_000, every, np.array([20.0] + [400.0] * 18 + [500.0]))
    fast = mean_until(20_000, every[:2], np.array([20.0, 500.0]))
    assert slow == pytest.approx((20 + 18 * 400 + 500) / 20)
    assert fast == pytest.approx((20 + 19 * 500) / 20)
    assert mean_until(4_000, every[:4], np.array([1.0, 2.0, np.nan, 6.0])) == (1 + 2 + 2 * 6) / 4


def test_equal_runs_in_a_group_are_named(tmp_path: Path) -> None:
    agents(tmp_path, dqn=[1.0, 2.0], c51=[3.0])
    assert "more than once" not in text_of(comparison_of([tmp_path]).html)
    shutil.copytree(tmp_path / "0", tmp_path / "again")
    page = text_of(comparison_of([tmp_path]).html)
    assert f"are too narrow: {tmp_path / '0'}, {tmp_path / 'again'}. Runs with the same settings" in page


@pytest.mark.parametrize("length", [9, 18, 27, 36, 63, 99])
def test_pictures_have_room_for_long_names(length: int, tmp_path: Path) -> None:
    """Warnings are errors here: matplotlib warns if a legend leaves no room for the curves."""
    for number in range(13):
        name = f"{number} {'schedule ' * (length // 9)}"
        overrides = [f"agent.kind={name}"]
        store_run(tmp_path / str(number), [5.0, 8.0, 9.0], overrides=overrides, agent__kind=name)
    assert len(charts_of(comparison_of([tmp_path]).html)) == 3


def test_equal_runs_are_named_also_if_settings_differ_that_do_not_matter(tmp_path: Path) -> None:
    for name, changes in {
        "a": {"compile": "on", "agent__compile": "on"},
        "b": {"evaluator__episodes": 7},
    }.items():
        store_run(tmp_path / name, seed=1, agent__seed=1, **changes)
    store_run(tmp_path / "c", seed=2, agent__seed=2)
    (group,) = grouped(runs_to_compare([tmp_path]).runs, None)
    assert [*repeated_seeds(group)] == [f"{tmp_path / 'a'}, {tmp_path / 'b'}"]


def test_a_comparison_of_one_sweep_leaves_its_own_report(tmp_path: Path) -> None:
    store_run(tmp_path / "0")
    (tmp_path / "optimization_results.yaml").write_text("best_trial: 0\nseeds: [0]\n")
    (tmp_path / "report.html").write_text("of the sweep")
    assert write_report([tmp_path], None, "agent")[0] == tmp_path / "comparison.html"
    assert (tmp_path / "report.html").read_text() == "of the sweep"


def test_runs_are_found_below_and_not_behind_links(tmp_path: Path) -> None:
    store_run(tmp_path / "a" / "10")
    store_run(tmp_path / "a" / "9")
    store_run(tmp_path / "a" / "9" / "seed_1")
    store_run(tmp_path / "elsewhere")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "elsewhere")
    found = [str(path.relative_to(tmp_path / "a")) for path in run_directories(tmp_path / "a")]
    assert found == ["9", "9/seed_1", "10"]


def test_hostile_names_do_not_run_in_page_and_tables(tmp_path: Path) -> None:
    for number, name in enumerate([HOSTILE, "=cmd|'/c calc'!A1", "50%_$x$"]):
        store_run(tmp_path / str(number), overrides=[f"agent.kind={name}"], agent__kind=name)
    found = comparison_of([tmp_path], live=True)
    assert [tag for tag, _ in tags_of(found.html) if tag == "script"] == ["script", "script"]
    assert not [attrs for _, attrs in tags_of(found.html) if any(name.startswith("on") for name in attrs)]
    assert r"kind=50\%\_\$x\$" in found.latex
    assert not [row for row in csv.reader(io.StringIO(found.csv)) if row[1].startswith("=")]


def test_the_command_writes_page_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agents(tmp_path / "runs", dqn=[1.0], c51=[2.0])
    main([str(tmp_path / "runs"), "-o", str(tmp_path / "out" / "page.html")])
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["page.html", "page.csv", "page.tex"]
    assert "Comparison of 2 runs in 2 groups" in text_of((tmp_path / "out" / "page.html").read_text())


@pytest.mark.parametrize("name", ["agents.csv", "agents.tex"])
def test_a_page_cannot_have_the_name_of_its_table(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(agents(tmp_path / "runs", dqn=[1.0, 2.0])), "-o", str(tmp_path / name)])
    assert "give -o a name that ends in .html" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("option", [["-o", "page.html"], ["--by", "agent"]])
def test_options_of_a_written_page_do_not_go_with_serve(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--serve", str(tmp_path), *option])
    assert "leave them out with --serve" in capsys.readouterr().err


def test_the_end_of_a_server_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dqn_runner.report.__main__.serve", lambda *_: None)
    main(["--serve", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
