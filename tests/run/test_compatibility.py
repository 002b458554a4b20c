"""Which configurations are of one run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from dqn_runner.io.json_io import as_json, read_json, write_json
from dqn_runner.run.compatibility import another_run

CONFIG: dict[str, Any] = {
    "seed": 0,
    "resume": "auto",
    "agent": {"seed": 0, "learning_rate": 1e-3, "network": {"hidden": [8, 8]}, "replay": {"capacity": 10}},
    "env": {"id": "A-v0", "kwargs": {"high": math.inf}, "reward_threshold": None},
    "trainer": {"unit": "steps", "max_steps": 10},
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
        ({"env": {**CONFIG["env"], "reward_threshold": 1.0}}, None),
        ({"agent": {**CONFIG["agent"], "learning_rate": 1.0}}, None),
        ({"resume": "never", "trainer": {"unit": "steps", "max_steps": 20}}, None),
    ],
)
def test_another_run_differs_in_what_cannot_change(changed: dict[str, Any], why: str | None) -> None:
    found = another_run({"config": CONFIG | changed}, {"config": CONFIG})
    assert found == (why and f"going on from it would change {why}")


def test_run_json_knows_the_run_though_json_knows_no_infinity(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", CONFIG)
    assert another_run({"config": as_json(CONFIG)}, {"config": read_json(tmp_path / "run.json")}) is None


def test_a_script_and_the_program_never_make_the_same_run() -> None:
    script = {"agent": "DQNConfig()", "trainer": "TrainingConfig()"}
    assert another_run(script, script | {"trainer": "longer"}) is None
    assert another_run(script, script | {"agent": "another"}) == "its agent is another one"
    assert another_run(script, {"config": CONFIG}) == "its agent is another one"
    assert another_run({"config": CONFIG}, script) == "its agent is another one"
