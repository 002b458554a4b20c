"""Metrics of the environment in every logger, in metrics.json, and after a resume."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqn_runner.envs.episode_metrics import MOST_KEYS, EpisodeMetrics, InfoMetrics
from dqn_runner.training.user_metrics import UserMetrics, inconsistencies
from tests.conftest import BUDGET, Outcome, records

ENV = '''
import gymnasium
import numpy as np


class Reporting(gymnasium.Env):
    """Episodes of 10 steps; the metric `time` is the number of the step, `late` comes after 60 episodes."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.difficult = 0, self.np_random.random() < 0.5
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {"metrics": {"ignored": 1.0}}

    def step(self, action):
        self.t += 1
        metrics = {"time": self.t, "odd": "text"}
        if self.difficult and self.t > 5:
            metrics["late"] = float(action)
        info = {"metrics": metrics, "named": 2 * self.t, "unused": 3.0}
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), 0.0, self.t == 10, False, info
'''


def table(metrics: dict[str, Any], key: str) -> list[Any]:
    return [value for value in metrics[key] if value is not None]


@pytest.fixture
def reporting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "reporting.py").write_text(ENV)
    monkeypatch.delitem(__import__("sys").modules, "reporting", raising=False)
    return ["env=gym", "env.id=reporting:Reporting", "env.info_metrics=[named]", "agent/network=mlp"]


def test_metrics_of_the_environment_appear_everywhere(
    program: Callable[..., Outcome], tmp_path: Path, reporting: list[str]
) -> None:
    done = program(
        *BUDGET, *reporting, "logging=[console,file,jsonl,csv]", "hydra.run.dir=run", "env.num_envs=2"
    )
    assert done.status == 0, done.err
    lines = records(tmp_path / "run")
    train = [line for line in lines if line["kind"] == "train"]
    evaluations = [line for line in lines if line["kind"] == "eval"]
    assert [line["train/metrics/time"] for line in train] == [5.5] * len(train)
    assert [line["train/metrics/named"] for line in train] == [11.0] * len(train)
    assert [line["eval/metrics/time"] for line in evaluations] == [5.5] * len(evaluations)
    assert any("train/metrics/late" in line for line in train)
    assert not any("ignored" in key or "unused" in key for line in lines for key in line)
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "train"]
    assert [float(row["train/metrics/time"]) for row in rows] == [5.5] * len(train)
    history = json.loads((tmp_path / "run/metrics.json").read_text())
    assert history["train"]["metrics/time"] == [5.5] * len(train)
    assert history["evaluations"]["metrics/named"] == [11.0] * len(evaluations)
    assert "time 5.5" in done.err
    assert done.err.count("odd is left out: 'text' is not one number") == 1
    done = program("mode=eval", "checkpoint=run", "trust=true", "evaluator.episodes=3", "hydra.run.dir=eval")
    assert "time: mean 5.5" in done.out
    assert json.loads((tmp_path / "eval/eval.json").read_text())["metrics"]["named"] == 11.0


def test_metrics_of_a_resumed_run_are_those_of_an_uninterrupted_one(
    program: Callable[..., Outcome], tmp_path: Path, reporting: list[str]
) -> None:
    command = [*BUDGET, *reporting, "logging=[jsonl,csv]", "trainer.max_episodes=null"]
    assert program(*command, "hydra.run.dir=whole").status == 0
    assert program(*command, "hydra.run.dir=parts", "trainer.max_steps=643").status == 0
    assert program("resume=parts", "trust=true", "trainer.max_steps=1200").status == 0
    assert records(tmp_path / "whole") == records(tmp_path / "parts")


@pytest.mark.parametrize("value", [1.7e308, -1.7e308, np.float64(2e100), 10**400, np.inf, np.nan])
def test_numbers_whose_sum_is_not_finite_are_left_out(value: Any) -> None:
    metrics = InfoMetrics()
    metrics.begin_episode()
    for _ in range(3):
        metrics.add({"metrics": {"big": value, "largest": 1e100}})
    ended = metrics.end_episode()
    assert ended.means == {"largest": pytest.approx(1e100)}
    assert ended.problems["big"].endswith("is not one number up to 1e+100")


def test_metrics_beyond_the_most_are_reported_and_left_out(warnings: list[str]) -> None:
    metrics = UserMetrics()
    for number in range(3):
        names = [f"m{number}_{index}" for index in range(MOST_KEYS // 2)]
        metrics.add_episode(EpisodeMetrics(dict.fromkeys(names, 1.0), {}))
    assert len(metrics.flush(1)) == MOST_KEYS
    assert len(warnings) == 1
    assert "more than 100" in warnings[0]


def test_a_metric_that_appears_late_has_rows_from_the_start() -> None:
    metrics = UserMetrics()
    metrics.add_episode(EpisodeMetrics({"a": 1.0}, {}))
    assert metrics.flush(1) == {"metrics/a": 1.0}
    metrics.add_episode(EpisodeMetrics({"b": 2.0}, {}))
    metrics.add_episode(EpisodeMetrics({"b": 4.0}, {}))
    assert metrics.flush(2) == {"metrics/b": 3.0}
    assert str(metrics.train) == "{'a': [1.0, nan], 'b': [nan, 3.0]}"
    state = metrics.state_dict()
    assert not list(inconsistencies(state, {"train": 2, "eval": 0}, "user"))
    restored = UserMetrics()
    restored.load_state_dict(state)
    assert str(restored.state_dict()) == str(state)


@pytest.mark.parametrize(
    "change",
    [
        {"sums": {"a": [1.0]}},
        {"sums": {"a": [1.0, 0]}},
        {"train": {"a": [1.0, 2.0, 3.0]}},
        {"eval": {"a": ["x"]}},
    ],
    ids=str,
)
def test_forged_metrics_of_the_environment_are_noticed(change: dict[str, Any]) -> None:
    state = {"sums": {}, "train": {}, "eval": {}, **change}
    assert list(inconsistencies(state, {"train": 2, "eval": 1}, "user"))
