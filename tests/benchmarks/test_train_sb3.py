"""The runs of stable-baselines3 that results are compared with have the settings of the recipe."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("train_sb3")


def config(**changes: Any) -> dict[str, Any]:
    agent = {"gamma": 0.9, "n_step": 1, "loss": {"_target_": "QLearning", "error": "huber"}, "seed": 3}
    env = {"id": "CartPole-v1", "kwargs": {}, "num_envs": 1}
    for key, value in changes.items():
        where, _, name = key.partition("__")
        {"agent": agent, "env": env}[where][name] = value
    return {"agent": agent, "env": env}


def test_settings_with_a_counterpart_may_differ(script: Any) -> None:
    ours = config(agent__gamma=0.5, agent__seed=100, env__id="Acrobot-v1", env__kwargs={"size": 3})
    assert script.untranslated(ours, config()) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"agent__n_step": 3}, "agent.n_step=3"),
        ({"agent__loss": {"_target_": "QLearning", "error": "mse"}}, "agent.loss.error=mse"),
        (
            {"agent__loss": {"_target_": "QLearning", "error": "huber", "double": True}},
            "agent.loss.double=True",
        ),
        ({"env__num_envs": 8}, "env.num_envs=8"),
    ],
)
def test_a_setting_without_counterpart_is_named(script: Any, changes: dict[str, Any], named: str) -> None:
    assert script.untranslated(config(**changes), config()) == [named]
