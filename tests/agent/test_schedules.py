from __future__ import annotations

import math

import pytest

from dqn_runner.agent.schedules import (
    Constant,
    CosineDecay,
    Exponential,
    Fixed,
    Linear,
    LinearDecay,
    Schedule,
)
from dqn_runner.core.exceptions import UserError


@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 1.0), (1, 0.99), (25, 0.75), (50, 0.5), (99, 0.01), (100, 0.0), (101, 0.0), (10**9, 0.0)],
)
def test_linear_reaches_its_end_after_exactly_its_steps(step: int, value: float) -> None:
    assert Linear(start=1.0, end=0.0, steps=100)(step) == pytest.approx(value, abs=1e-12)


def test_linear_may_rise() -> None:
    rising = Linear(start=0.4, end=1.0, steps=10)
    assert [rising(step) for step in (0, 5, 10, 20)] == pytest.approx([0.4, 0.7, 1.0, 1.0])


def test_linear_ends_on_exactly_its_end() -> None:
    assert Linear(start=1.0, end=0.05, steps=7)(7) == 0.05


@pytest.mark.parametrize(("step", "value"), [(0, 0.9), (10, 0.5), (20, 0.3), (30, 0.2)])
def test_exponential_halves_the_distance_every_half_life(step: int, value: float) -> None:
    assert Exponential(start=0.9, end=0.1, half_life=10)(step) == pytest.approx(value)


def test_exponential_approaches_its_end_and_does_not_pass_it() -> None:
    assert Exponential(start=1.0, end=0.05, half_life=10)(10**6) == 0.05


@pytest.mark.parametrize("step", [0, 1, 10**9])
def test_constant_never_changes(step: int) -> None:
    assert Constant(value=0.3)(step) == 0.3


@pytest.mark.parametrize(
    ("schedule", "duration"),
    [
        (Linear(steps=123), 123),
        (Exponential(half_life=10), 30),
        (Constant(), 0),
        (Fixed(), 0),
        (LinearDecay(steps=123), 123),
        (CosineDecay(steps=123), 123),
    ],
)
def test_duration_is_how_long_a_run_must_be(schedule: Schedule, duration: int) -> None:
    assert schedule.duration == duration


def test_every_step_gives_its_value_whatever_was_asked_before() -> None:
    """Schedules hold no state, so that a resumed run sees the same values."""
    schedules: list[Schedule] = [Linear(steps=10), Exponential(half_life=10), Constant()]
    for schedule in [*schedules, Fixed(), LinearDecay(steps=10), CosineDecay(steps=10)]:
        forwards = [schedule(step) for step in range(20)]
        assert [schedule(step) for step in reversed(range(20))] == forwards[::-1]


def test_a_schedule_without_steps_is_refused() -> None:
    with pytest.raises(UserError, match="steps >= 1, got 0"):
        Linear(steps=0)
    with pytest.raises(UserError, match="half_life >= 1, got 0"):
        Exponential(half_life=0)


# Parts of the learning rate


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("make", [LinearDecay, CosineDecay])
def test_the_learning_rate_falls_from_itself_to_its_final_part(
    make: type[LinearDecay] | type[CosineDecay], final: float
) -> None:
    schedule = make(final=final, steps=100)
    middle = (1 + final) / 2
    assert [schedule(step) for step in (0, 50, 100, 10**9)] == pytest.approx([1.0, middle, final, final])
    values = [schedule(step) for step in range(101)]
    assert values == sorted(values, reverse=True)


def test_half_a_cosine_golden_numbers() -> None:
    """Slow at both ends."""
    quarter = 0.5 * (1 + math.sqrt(0.5))
    schedule = CosineDecay(steps=100)
    assert [schedule(25), schedule(75)] == pytest.approx([quarter, 1 - quarter])
    assert [LinearDecay(steps=100)(step) for step in (25, 75)] == pytest.approx([0.75, 0.25])


def test_fixed_is_one() -> None:
    assert {Fixed()(step) for step in (0, 1, 10**9)} == {1.0}


@pytest.mark.parametrize(
    "setting", [{"steps": 0}, {"final": -0.1}, {"final": 1.1}, {"final": math.nan}], ids=str
)
@pytest.mark.parametrize("make", [LinearDecay, CosineDecay])
def test_a_decay_that_is_none_is_refused(make: type, setting: dict[str, float]) -> None:
    with pytest.raises(
        UserError, match=r"^agent\.learning_rate_schedule needs steps >= 1 and a final from 0 to 1"
    ):
        make(**setting)
