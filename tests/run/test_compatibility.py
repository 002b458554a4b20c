"""Which settings may change when a run resumes."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from dqn_runner.config.schema import CONF, to_plain_config
from dqn_runner.io.json_io import as_json, read_json, write_json
from dqn_runner.run.compatibility import HARMLESS, IMMUTABLE, SESSION_KEYS, leaves, mismatch

CONFIG: dict[str, Any] = {
    "seed": 0,
    "resume": "auto",
    "agent": {"seed": 0, "learning_rate": 1e-3, "network": {"hidden": [8, 8]}, "replay": {"capacity": 10}},
    "env": {"id": "A-v0", "kwargs": {"high": math.inf}, "reward_threshold": None},
    "trainer": {"frequency_unit": "steps", "max_steps": 10},
}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"seed": 1}, "seed from 1 to 0"),
        (
            {"agent": {**CONFIG["agent"], "network": {"hidden": [9]}}},
            "agent.network.hidden from [9] to [8, 8]",
        ),
        ({"env": {**CONFIG["env"], "kwargs": {}}}, "env.kwargs.high from (absent) to inf"),
        ({"trainer": {"frequency_unit": "episodes"}}, "trainer.frequency_unit from episodes to steps"),
        ({"env": {**CONFIG["env"], "reward_threshold": 1.0}}, None),
        ({"agent": {**CONFIG["agent"], "learning_rate": 1.0}}, None),
        ({"resume": "never", "trainer": {"frequency_unit": "steps", "max_steps": 20}}, None),
    ],
)
def test_a_run_cannot_resume_from_a_checkpoint_with_another_immutable_setting(
    changed: dict[str, Any], why: str | None
) -> None:
    found = mismatch({"config": CONFIG | changed}, {"config": CONFIG})
    assert found == (why and f"resuming from it would change {why}")


@pytest.mark.parametrize("value", [math.nan, [1.0, math.nan], {"inner": [math.nan]}], ids=str)
def test_a_setting_that_is_not_a_number_is_equal_to_itself(value: Any) -> None:
    config = CONFIG | {"env": CONFIG["env"] | {"kwargs": {"x": value}}}
    assert mismatch({"config": config}, {"config": copy.deepcopy(config)}) is None
    other = CONFIG | {"env": CONFIG["env"] | {"kwargs": {"x": 1.0}}}
    assert "env.kwargs.x" in (mismatch({"config": config}, {"config": other}) or "")
    assert "env.kwargs.x" in (mismatch({"config": other}, {"config": config}) or "")


def test_immutable_settings_exist() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = leaves(to_plain_config(compose("config")))
    for path in (*(path for path, _ in IMMUTABLE), *HARMLESS, *((key,) for key in SESSION_KEYS)):
        assert any(leaf[: len(path)] == path for leaf in settings), path


def test_run_json_identifies_a_run_with_infinite_settings(tmp_path: Path) -> None:
    """JSON has no infinity, so that run.json contains null instead."""
    write_json(tmp_path / "run.json", CONFIG)
    assert mismatch({"config": as_json(CONFIG)}, {"config": read_json(tmp_path / "run.json")}) is None


def test_runs_of_scripts_are_compared_by_their_agents() -> None:
    script = {"agent": {"learning_rate": 1e-3}, "trainer": {"max_steps": 10}}
    assert mismatch(script, script | {"trainer": {"max_steps": 20}}) is None
    changed = mismatch(script, script | {"agent": {"learning_rate": 1e-4}})
    assert changed == "its agent differs: agent.learning_rate: 0.001 -> 0.0001"
    for theirs, ours in ((script, {"config": CONFIG}), ({"config": CONFIG}, script)):
        assert (mismatch(theirs, ours) or "").startswith("its agent differs: ")
    assert mismatch(script, {"config": CONFIG | script}) is None
