"""The differences between two sweeps are named at their places."""

from __future__ import annotations

from typing import Any

import pytest

from dqn_runner.sweep.definition import changes
from dqn_runner.sweep.search_space.space import search_space


def definition(*arguments: str, **others: Any) -> dict[str, Any]:
    space = search_space(arguments, {}, None)
    return {"parameters": space.definition(), "overrides": list(space.fixed), "seeds": 2, **others}


RATE, GAMMA = "agent.learning_rate=interval(1e-4,1e-2)", "agent.gamma=interval(0.9,0.999)"
OLD = definition(RATE, GAMMA, "trainer.max_steps=1000", "env=cartpole")


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (OLD, {}),
        (
            definition(RATE, "agent.gamma=interval(0.9,0.99)", "trainer.max_steps=1000", "env=cartpole"),
            {"parameters": "agent.gamma.high: 0.999 -> 0.99"},
        ),
        (
            definition(RATE, GAMMA, "trainer.max_steps=2000", "env=cartpole"),
            {"overrides": "overrides: trainer.max_steps=1000 -> trainer.max_steps=2000"},
        ),
        (
            definition(RATE, GAMMA, "trainer.max_steps=1000", "env=cartpole", "seed=3"),
            {"overrides": "overrides: (missing) -> seed=3"},
        ),
        ({**OLD, "seeds": 3}, {"seeds": "seeds: 2 -> 3"}),
        ({**OLD, "direction": ["maximize"]}, {"direction": "direction: None -> ['maximize']"}),
    ],
)
def test_the_place_and_both_values_are_named(new: dict[str, Any], expected: dict[str, str]) -> None:
    assert changes(OLD, new) == expected


def test_a_parameter_that_only_one_sweep_has_is_named() -> None:
    without = definition(RATE, "trainer.max_steps=1000", "env=cartpole")
    assert changes(OLD, without)["parameters"].startswith("agent.gamma: {'name': 'FloatDistribution'")
    assert changes(OLD, without)["parameters"].endswith(" -> (missing)")
    assert changes(without, OLD)["parameters"].startswith("agent.gamma: (missing) -> {")


def test_another_order_of_overrides_is_shown_whole() -> None:
    other = {**OLD, "overrides": OLD["overrides"][::-1]}
    assert changes(OLD, other) == {"overrides": f"overrides: {OLD['overrides']} -> {other['overrides']}"}
