"""Schedules of exploration and of the learning rate."""

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


@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 1.0), (1, 0.99), (25, 0.75), (50, 0.5), (99, 0.01), (100, 0.0), (101, 0.0), (10**9, 0.0)],
)
def test_a_linear_schedule_reaches_its_end_after_exactly_its_steps(step: int, value: float) -> None:
    assert Linear(start=1.0, end=0.0, steps=100)(step) == pytest.approx(value, abs=1e-12)


def test_a_linear_schedule_may_rise() -> None:
    rising = Linear(start=0.4, end=1.0, steps=10)
    assert [rising(step) for step in (0, 5, 10, 20)] == pytest.approx([0.4, 0.7, 1.0, 1.0])


def test_a_linear_schedule_ends_at_exactly_its_end_value() -> None:
    assert Linear(start=1.0, end=0.05, steps=7)(7) == 0.05


@pytest.mark.parametrize(("step", "value"), [(0, 0.9), (10, 0.5), (20, 0.3), (30, 0.2)])
def test_an_exponential_schedule_halves_the_difference_every_half_life(step: int, value: float) -> None:
    assert Exponential(start=0.9, end=0.1, half_life=10)(step) == pytest.approx(value)


def test_an_exponential_schedule_converges_to_its_end() -> None:
    assert Exponential(start=1.0, end=0.05, half_life=10)(10**6) == 0.05


@pytest.mark.parametrize("step", [0, 1, 10**9])
def test_a_constant_schedule_never_changes(step: int) -> None:
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
def test_the_duration_is_the_number_of_steps_until_a_schedule_is_constant(
    schedule: Schedule, duration: int
) -> None:
    assert schedule.duration == duration


def test_the_value_of_a_schedule_does_not_depend_on_earlier_calls() -> None:
    """Schedules have no state, so that a resumed run gets the same values."""
    schedules: list[Schedule] = [Linear(steps=10), Exponential(half_life=10), Constant()]
    for schedule in [*schedules, Fixed(), LinearDecay(steps=10), CosineDecay(steps=10)]:
        forwards = [schedule(step) for step in range(20)]
        assert [schedule(step) for step in reversed(range(20))] == forwards[::-1]


# Factors of the learning rate


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("make", [LinearDecay, CosineDecay])
def test_the_factor_of_the_learning_rate_falls_from_one_to_final(
    make: type[LinearDecay] | type[CosineDecay], final: float
) -> None:
    schedule = make(final=final, steps=100)
    middle = (1 + final) / 2
    assert [schedule(step) for step in (0, 50, 100, 10**9)] == pytest.approx([1.0, middle, final, final])
    values = [schedule(step) for step in range(101)]
    assert values == sorted(values, reverse=True)


def test_cosine_decay_equals_numbers_by_hand_and_is_slow_at_both_ends() -> None:
    quarter = 0.5 * (1 + math.sqrt(0.5))
    schedule = CosineDecay(steps=100)
    assert [schedule(25), schedule(75)] == pytest.approx([quarter, 1 - quarter])
    assert [LinearDecay(steps=100)(step) for step in (25, 75)] == pytest.approx([0.75, 0.25])


def test_a_fixed_learning_rate_has_the_factor_one() -> None:
    assert {Fixed()(step) for step in (0, 1, 10**9)} == {1.0}


def test_a_linear_schedule_begins_to_change_after_its_first_steps() -> None:
    schedule = Linear(start=1.0, end=0.0, begin=100, steps=10)
    assert [schedule(step) for step in (0, 100, 105, 110, 10**9)] == pytest.approx([1, 1, 0.5, 0, 0])
    assert schedule.duration == 110
