"""A dry run measures a run by its log."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dqn_runner.sweep.dry_run import _number_of_trials, _progress  # pyright: ignore[reportPrivateUsage]
from dqn_runner.sweep.search_space.space import search_space
from tests.conftest import Outcome
from tests.sweep.test_runner import a_plan


def test_records_that_do_not_know_the_time_left_are_passed_over(tmp_path: Path) -> None:
    """That is so until a part of the budget is used up, as in a first episode with a budget of episodes."""
    records = [
        {"step": 100, "time/elapsed": 1.0, "time/eta": None},
        {"step": 200, "time/elapsed": 2.0, "time/eta": 6.0},
        {"step": 200},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "metrics.jsonl").write_text(lines + '{"step": 300, "time/el')
    assert _progress(tmp_path, learning_starts=50) == [(2.0, 0.25)]
    assert _progress(tmp_path, learning_starts=201) == []


@pytest.mark.parametrize(("sampler", "expected"), [("GridSampler", 6), ("RandomSampler", 20)])
def test_grid_with_fewer_points_than_n_trials_is_not_overestimated(
    tmp_path: Path, sampler: str, expected: int
) -> None:
    space = search_space(("agent.gamma=choice(0.9,0.99)", "agent.n_step=range(1,3)"), {}, None)
    plan = a_plan(tmp_path, sampler={"_target_": f"optuna.samplers.{sampler}", "seed": None}, n_trials=20)
    assert _number_of_trials(replace(plan, space=space)) == expected


@pytest.mark.parametrize("chosen", ["agent=other", "experiment=short"])
def test_search_file_is_combined_with_an_option_of_the_search_path(
    program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.setattr("dqn_runner.sweep.dry_run.estimate", lambda _: "an estimate")
    for name, text in {
        "agent/other": "defaults: [dqn, _self_]\ngamma: 0.9\n",
        "experiment/short": "# @package _global_\ntrainer: {eval_episodes: 2}\n",
    }.items():
        file = tmp_path / "mine" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    settings = ("search=dqn", "hydra.sweeper.dry_run=true", "hydra.sweep.dir=sweep")
    done = program("hydra.searchpath=[file://mine]", chosen, *settings)
    assert (done.status, done.out) == (0, "an estimate\n"), done.err
