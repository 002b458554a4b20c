from __future__ import annotations

import math

import numpy as np
import pytest

from dqn_runner.exploration import EpsilonGreedy
from dqn_runner.rng import stream
from dqn_runner.schedules import Constant, Linear
from dqn_runner.types import FloatArray, IntArray

ACTIONS = 4
GREEDY = 2


def constant(epsilon: float) -> EpsilonGreedy:
    return EpsilonGreedy(schedule=Constant(value=epsilon))


def never() -> FloatArray:
    raise AssertionError("the network was evaluated for actions that are all random")


def values(n: int) -> FloatArray:
    """Action GREEDY is the best of all."""
    q = np.zeros((n, ACTIONS), np.float32)
    q[:, GREEDY] = 1
    return q


def choose(policy: EpsilonGreedy, n: int, rounds: int, step: int = 0, seed: int = 0) -> IntArray:
    """Actions [rounds, n]."""
    rng = stream(seed, "test")
    return np.stack([policy(lambda: values(n), (n, ACTIONS), step, rng) for _ in range(rounds)])


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("epsilon", [0.05, 0.5, 0.9])
def test_frequencies_are_those_of_epsilon_greedy(epsilon: float, n: int) -> None:
    rounds = 12_000 // n
    actions = choose(constant(epsilon), n, rounds)
    expected = np.full(ACTIONS, epsilon / ACTIONS)
    expected[GREEDY] += 1 - epsilon
    for column in actions.T:
        counts = np.bincount(column, minlength=ACTIONS)
        chi2 = ((counts - rounds * expected) ** 2 / (rounds * expected)).sum()
        assert chi2 < 21.1, counts  # 99.99 % quantile for 3 degrees of freedom


def test_environments_explore_independently() -> None:
    """The share of rounds in which both of two environments explore is epsilon squared."""
    epsilon, rounds = 0.5, 12_000
    random = (choose(constant(epsilon), 2, rounds) != GREEDY).all(axis=1).mean()
    expected = (epsilon * (ACTIONS - 1) / ACTIONS) ** 2
    assert random == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / rounds))


@pytest.mark.parametrize("n", [1, 5])
def test_all_random_never_evaluates_the_network(n: int) -> None:
    rng = stream(0, "test")
    actions = np.stack([constant(1.0)(never, (n, ACTIONS), 0, rng) for _ in range(2_000)])
    assert actions.shape == (2_000, n)
    assert (np.bincount(actions.ravel(), minlength=ACTIONS) > 2_000 * n / ACTIONS * 0.8).all()
    assert set(actions.ravel().tolist()) == set(range(ACTIONS))


@pytest.mark.parametrize("n", [1, 5])
def test_without_epsilon_every_action_is_greedy(n: int) -> None:
    assert (choose(constant(0.0), n, 2_000) == GREEDY).all()


@pytest.mark.parametrize("n", [1, 2, 7])
def test_one_action_in_range_for_each_environment(n: int) -> None:
    actions = choose(constant(0.5), n, 500)
    assert actions.shape == (500, n)
    assert np.issubdtype(actions.dtype, np.integer)
    assert actions.min() >= 0
    assert actions.max() < ACTIONS


def test_greedy_actions_belong_to_their_own_environment() -> None:
    best = np.array([3, 0, 2])
    q = np.eye(ACTIONS, dtype=np.float32)[best]
    assert constant(0.0)(lambda: q, (3, ACTIONS), 0, stream(0, "test")).tolist() == best.tolist()


def test_the_same_generator_gives_the_same_actions() -> None:
    policy = constant(0.5)
    assert (choose(policy, 3, 100) == choose(policy, 3, 100)).all()
    assert (choose(policy, 3, 100) != choose(policy, 3, 100, seed=1)).any()


def test_epsilon_follows_the_schedule() -> None:
    policy = EpsilonGreedy(schedule=Linear(start=1.0, end=0.0, steps=100))
    assert [policy.epsilon(step) for step in (0, 50, 100)] == pytest.approx([1.0, 0.5, 0.0])
    assert policy.duration == 100
    greedy = [(choose(policy, 1, 2_000, step) == GREEDY).mean() for step in (0, 50, 100)]
    assert greedy == pytest.approx([1 / ACTIONS, 0.5 + 0.5 / ACTIONS, 1.0], abs=0.05)
