"""Metrics that an environment reports in `info`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dqn_runner.envs.episode_metrics import MOST_KEYS, EpisodeMetrics, InfoMetrics, mean_of_episodes


def episode(*infos: dict[str, Any], keys: list[str] | None = None) -> EpisodeMetrics:
    metrics = InfoMetrics(keys or [])
    metrics.begin_episode()
    for info in infos:
        metrics.add(info)
    return metrics.end_episode()


def test_a_metric_is_the_mean_over_the_steps_in_which_it_appears() -> None:
    found = episode(
        {"metrics": {"a": 1.0, "b": 4}}, {}, {"metrics": {"a": 2.0}}, {"metrics": {"a": np.float32(6)}}
    )
    assert found == EpisodeMetrics({"a": 3.0, "b": 4.0}, {})


def test_named_keys_of_info_are_metrics() -> None:
    assert episode({"x": 2, "y": "text"}, {"x": 4}, keys=["x"]).means == {"x": 3.0}


def test_a_named_key_that_never_appears_is_reported() -> None:
    assert "no step" in episode({"x": 2}, keys=["z"]).problems["z"]


@pytest.mark.parametrize(
    ("value", "number"),
    [(True, 1.0), (np.int64(3), 3.0), (np.array([2.5]), 2.5), (np.array(2.5), 2.5), ([7], 7.0)],
)
def test_every_kind_of_one_number_counts(value: Any, number: float) -> None:
    assert episode({"metrics": {"a": value}}) == EpisodeMetrics({"a": number}, {})


@pytest.mark.parametrize(
    "value",
    [
        "text",
        math.nan,
        math.inf,
        None,
        {"b": 1.0},
        [1, 2],
        np.zeros(3),
        np.array(["x"]),
        pytest.param(object(), id="object"),
        b"x",
        10**400,
        1j,
    ],
    ids=repr,
)
def test_what_is_not_one_number_is_left_out_and_reported_in_one_line(value: Any) -> None:
    found = episode({"metrics": {"a": value}}, {"metrics": {"a": 2.0}})
    assert found.means == {"a": 2.0}
    assert "not one number" in found.problems["a"]
    assert "\n" not in found.problems["a"]


@pytest.mark.parametrize("name", ["", "a,b", "a\nb", "/a", "a//b", "a/../b", "x" * 101, 3, None, "{a}"])
def test_a_name_that_a_logger_could_not_write_is_reported(name: Any) -> None:
    found = episode({"metrics": {name: 1.0, "ok/sub.x": 2.0}})
    assert found.means == {"ok/sub.x": 2.0}
    assert len(found.problems) == 1


def test_the_number_of_metrics_is_bounded() -> None:
    found = episode({"metrics": {f"m{n}": 1.0 for n in range(10_000)}})
    assert len(found.means) == MOST_KEYS
    assert "m100" in found.problems


def test_metrics_that_are_no_dict_are_reported() -> None:
    assert "not a dict of numbers" in episode({"metrics": [1.0]}).problems["metrics"]


def test_an_evaluation_is_the_mean_over_the_episodes_in_which_a_metric_appears() -> None:
    found = mean_of_episodes(
        [EpisodeMetrics({"a": 1.0}, {}), EpisodeMetrics({"a": 3.0, "b": 5.0}, {"c": "x"})]
    )
    assert found == EpisodeMetrics({"a": 2.0, "b": 5.0}, {"c": "x"})
