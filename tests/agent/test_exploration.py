"""Exploration: the distribution of actions, and when the network is evaluated."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dqn_runner.agent.exploration import Boltzmann, EpsilonGreedy, Exploration, Greedy
from dqn_runner.agent.schedules import Constant, Exponential, Linear, Schedule
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.rng import stream
from dqn_runner.core.types import FloatArray, IntArray

ACTIONS = 4
GREEDY = 2


def constant(epsilon: float) -> EpsilonGreedy:
    return EpsilonGreedy(schedule=Constant(value=epsilon))


def never() -> FloatArray:
    raise AssertionError("the network was evaluated although all actions are random")


def values(n: int) -> FloatArray:
    """Action values [n, ACTIONS] whose largest is that of action GREEDY."""
    q = np.zeros((n, ACTIONS), np.float32)
    q[:, GREEDY] = 1
    return q


def choose(policy: Exploration, n: int, rounds: int, step: int = 0, seed: int = 0) -> IntArray:
    """Actions [rounds, n]."""
    rng = stream(seed, "test")
    return np.stack([policy(lambda: values(n), (n, ACTIONS), step, rng) for _ in range(rounds)])


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("epsilon", [0.05, 0.5, 0.9])
def test_frequencies_of_epsilon_greedy_actions_have_the_expected_distribution(epsilon: float, n: int) -> None:
    rounds = 12_000 // n
    actions = choose(constant(epsilon), n, rounds)
    expected = np.full(ACTIONS, epsilon / ACTIONS)
    expected[GREEDY] += 1 - epsilon
    for column in actions.T:
        counts = np.bincount(column, minlength=ACTIONS)
        chi2 = ((counts - rounds * expected) ** 2 / (rounds * expected)).sum()
        assert chi2 < 21.1, counts  # 99.99 % quantile for 3 degrees of freedom


def test_environments_explore_independently_with_epsilon_greedy() -> None:
    """Both of two environments explore in a fraction epsilon**2 of the rounds."""
    epsilon, rounds = 0.5, 12_000
    random = (choose(constant(epsilon), 2, rounds) != GREEDY).all(axis=1).mean()
    expected = (epsilon * (ACTIONS - 1) / ACTIONS) ** 2
    assert random == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / rounds))


@pytest.mark.parametrize("n", [1, 5])
def test_epsilon_greedy_does_not_evaluate_the_network_if_all_actions_are_random(n: int) -> None:
    rng = stream(0, "test")
    actions = np.stack([constant(1.0)(never, (n, ACTIONS), 0, rng) for _ in range(2_000)])
    assert actions.shape == (2_000, n)
    assert (np.bincount(actions.ravel(), minlength=ACTIONS) > 2_000 * n / ACTIONS * 0.8).all()
    assert set(actions.ravel().tolist()) == set(range(ACTIONS))


@pytest.mark.parametrize("n", [1, 5])
def test_every_action_is_greedy_if_epsilon_is_zero(n: int) -> None:
    assert (choose(constant(0.0), n, 2_000) == GREEDY).all()


@pytest.mark.parametrize("n", [1, 2, 7])
def test_epsilon_greedy_gives_one_valid_action_for_each_environment(n: int) -> None:
    actions = choose(constant(0.5), n, 500)
    assert actions.shape == (500, n)
    assert np.issubdtype(actions.dtype, np.integer)
    assert actions.min() >= 0
    assert actions.max() < ACTIONS


def test_greedy_actions_are_in_the_order_of_their_environments() -> None:
    best = np.array([3, 0, 2])
    q = np.eye(ACTIONS, dtype=np.float32)[best]
    assert constant(0.0)(lambda: q, (3, ACTIONS), 0, stream(0, "test")).tolist() == best.tolist()


def test_the_same_random_generator_gives_the_same_epsilon_greedy_actions() -> None:
    policy = constant(0.5)
    assert (choose(policy, 3, 100) == choose(policy, 3, 100)).all()
    assert (choose(policy, 3, 100) != choose(policy, 3, 100, seed=1)).any()


def test_epsilon_follows_its_schedule() -> None:
    policy = EpsilonGreedy(schedule=Linear(start=1.0, end=0.0, steps=100))
    assert [policy.epsilon(step) for step in (0, 50, 100)] == pytest.approx([1.0, 0.5, 0.0])
    assert policy.duration == 100
    greedy = [(choose(policy, 1, 2_000, step) == GREEDY).mean() for step in (0, 50, 100)]
    assert greedy == pytest.approx([1 / ACTIONS, 0.5 + 0.5 / ACTIONS, 1.0], abs=0.05)


# Greedy


@pytest.mark.parametrize("n", [1, 5])
def test_greedy_exploration_takes_the_best_action_and_does_not_use_the_random_generator(n: int) -> None:
    """Exploration comes from the noise of the network."""
    rng = stream(0, "test")
    before = rng.bit_generator.state
    actions = Greedy()(lambda: values(n), (n, ACTIONS), 0, rng)
    assert actions.tolist() == [GREEDY] * n
    assert rng.bit_generator.state == before
    assert (Greedy().epsilon(0), Greedy().duration) == (0.0, 0)


# Boltzmann


def boltzmann(temperature: float) -> Boltzmann:
    return Boltzmann(schedule=Constant(value=temperature))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_frequencies_of_boltzmann_actions_are_those_of_a_softmax(temperature: float, n: int) -> None:
    q, rng, rounds = np.array([0.1, -0.5, 1.0, 0.4], np.float32), stream(0, "test"), 12_000 // n
    policy = boltzmann(temperature)
    drawn = np.stack([policy(lambda: np.tile(q, (n, 1)), (n, ACTIONS), 0, rng) for _ in range(rounds)])
    assert drawn.shape == (rounds, n)
    weights = np.exp(q / temperature)
    expected = rounds * weights / weights.sum()
    for column in drawn.T:
        counts = np.bincount(column, minlength=ACTIONS)
        chi2 = ((counts - expected) ** 2 / expected).sum()
        assert chi2 < 21.1, counts  # 99.99 % quantile for 3 degrees of freedom


def test_environments_explore_independently_with_boltzmann() -> None:
    rng, zeros = stream(0, "test"), np.zeros((2, ACTIONS), np.float32)
    drawn = np.stack([boltzmann(1.0)(lambda: zeros, (2, ACTIONS), 0, rng) for _ in range(8_000)])
    assert (drawn[:, 0] == drawn[:, 1]).mean() == pytest.approx(1 / ACTIONS, abs=0.02)


def test_boltzmann_with_temperature_zero_is_greedy() -> None:
    assert (choose(boltzmann(0.0), 3, 100) == GREEDY).all()


def test_boltzmann_does_not_overflow_with_large_values() -> None:
    """It computes no exponential."""
    huge = 1e30 * values(1)
    assert boltzmann(1.0)(lambda: huge, (1, ACTIONS), 0, stream(0, "test")).tolist() == [GREEDY]


def test_the_temperature_follows_its_schedule() -> None:
    policy = Boltzmann(schedule=Linear(start=100.0, end=0.0, steps=100))
    assert policy.duration == 100
    assert [policy.epsilon(step) for step in (0, 100)] == [0.0, 0.0]  # no action is drawn uniformly
    shares = [(choose(policy, 1, 2_000, step) == GREEDY).mean() for step in (0, 99, 100)]
    assert shares == pytest.approx([1 / ACTIONS, math.e / (math.e + ACTIONS - 1), 1.0], abs=0.05)


@pytest.mark.parametrize("schedule", [Constant(value=-0.1), Linear(start=1.0, end=-0.1), Linear(start=-0.1)])
def test_a_temperature_below_zero_is_rejected(schedule: Constant | Linear) -> None:
    with pytest.raises(
        UserError, match=r"^agent\.exploration\.schedule\.\w+ must be a temperature of at least 0, got -0\.1$"
    ):
        Boltzmann(schedule=schedule)


@pytest.mark.parametrize(
    ("schedule", "name", "value"),
    [
        (Linear(start=1.05), "start", "1.05"),
        (Linear(end=-0.01), "end", "-0.01"),
        (Linear(start=0.5, end=1.5), "end", "1.5"),
        (Exponential(end=-0.1), "end", "-0.1"),
        (Constant(value=2.0), "value", "2"),
    ],
)
def test_an_epsilon_that_is_no_probability_is_rejected(schedule: Schedule, name: str, value: str) -> None:
    message = rf"^agent\.exploration\.schedule\.{name} must be an epsilon between 0 and 1, got {value}$"
    with pytest.raises(UserError, match=message):
        EpsilonGreedy(schedule=schedule)
