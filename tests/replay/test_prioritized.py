"""Prioritized replay: probabilities, importance weights and priorities.

A number in a test name is that of a pitfall in docs/pitfalls.md.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner.core.exceptions import DivergedError, UserError
from dqn_runner.core.rng import stream
from dqn_runner.core.types import Array, EnvSpec
from dqn_runner.replay.buffer import Replay
from dqn_runner.replay.prioritized import PrioritizedReplay
from tests.replay.test_buffer import file_round_trip

PART = PrioritizedReplay(capacity=8, alpha=0.5, beta=0.5, beta_steps=100, eps=0.01)


def make(part: PrioritizedReplay = PART, count: int = 0, seed: int = 0) -> Replay:
    replay = part.build(EnvSpec((1,), 2), 1, 0.9, 1, stream(seed, "replay"))
    add(replay, count)
    return replay


def add(replay: Replay, count: int, start: int = 0) -> None:
    """Add `count` transitions with the rewards start, start + 1, ..."""
    obs = np.zeros(1, np.float32)
    for index in range(count):
        replay.add(0, obs, 0, float(start + index), False, False, obs)


def update(replay: Replay, slots: list[int], errors: list[float]) -> None:
    replay.update(np.array(slots), torch.tensor(errors))


def values(replay: Replay) -> list[float]:
    """(|delta| + eps)**alpha of all rows, oldest first."""
    return replay.state_dict()["priorities"].tolist()


def value(error: float, part: PrioritizedReplay = PART) -> float:
    return (abs(float(np.float32(error))) + part.eps) ** part.alpha


def frequencies(replay: Replay, size: int, draws: int) -> Array:
    """How often each slot is drawn in batches of one; larger batches are stratified."""
    return np.bincount([replay.sample(1, 0).indices[0] for _ in range(draws)], minlength=size)


# Pitfall 5: priorities of new transitions


def test_pitfall_05_new_transitions_get_the_largest_priority() -> None:
    replay = make(count=2)
    assert values(replay) == [1.0, 1.0]
    update(replay, [0, 1], [4.0, 0.5])
    add(replay, 2)
    assert values(replay) == pytest.approx([value(4.0), value(0.5), value(4.0), value(4.0)])


def test_pitfall_05_small_errors_do_not_lower_the_priority_of_new_transitions() -> None:
    replay = make(count=2)
    update(replay, [0, 1], [0.1, 0.2])
    add(replay, 1)
    assert values(replay) == pytest.approx([value(0.1), value(0.2), 1.0])


def test_pitfall_05_the_priority_of_new_transitions_is_the_largest_of_the_whole_run() -> None:
    """Also after the transition with that priority was dropped."""
    replay = make(count=8)
    update(replay, [0], [9.0])
    update(replay, [0], [0.0])
    add(replay, 20)
    assert values(replay) == pytest.approx([value(9.0)] * 8)


def test_pitfall_05_an_update_does_not_change_the_priorities_of_newer_transitions() -> None:
    replay = make(count=1)
    slots = replay.sample(1, 0).indices
    add(replay, 1)
    replay.update(slots, torch.tensor([5.0]))
    assert values(replay) == pytest.approx([value(5.0), 1.0])


# Pitfall 6: importance weights


@pytest.mark.parametrize(("step", "beta"), [(0, 0.5), (50, 0.75), (100, 1.0), (10**9, 1.0)])
def test_pitfall_06_the_exponent_beta_of_importance_weights_grows_with_env_steps(
    step: int, beta: float
) -> None:
    """Weights are (N P(i))**-beta divided by the largest of the batch and the batch size (section 3.4)."""
    replay = make(count=4)
    errors = [0.0, 0.5, 1.0, 9.0]
    update(replay, [0, 1, 2, 3], errors)
    total = sum(map(value, errors))
    weights = np.array([(4 * value(error) / total) ** -beta for error in errors])
    batch = replay.sample(64, step)
    expected = weights[batch.indices] / weights[batch.indices].max() / 64
    assert batch.weight.dtype == torch.float32
    assert batch.weight.numpy() == pytest.approx(expected, rel=1e-6)
    assert len(set(batch.indices.tolist())) >= 3


def test_pitfall_06_equal_priorities_give_the_weights_of_a_uniform_replay() -> None:
    assert make(count=5).sample(4, 0).weight.tolist() == [0.25] * 4


# Pitfall 6b: the exponent and the offset of priorities


def test_pitfall_06b_alpha_is_applied_once_to_the_sum_of_error_and_eps() -> None:
    replay = make(count=3)
    update(replay, [0, 1, 2], [0.0, 2.0, -2.0])
    assert values(replay) == pytest.approx([0.01**0.5, 2.01**0.5, 2.01**0.5])


def test_pitfall_06b_transitions_without_td_error_can_be_drawn() -> None:
    replay = make(dataclasses.replace(PART, eps=1e-6), count=2)
    update(replay, [0, 1], [0.0, 0.0])
    batch = replay.sample(32, 0)
    assert set(batch.indices.tolist()) == {0, 1}
    assert torch.isfinite(batch.weight).all()


@pytest.mark.parametrize("error", [math.nan, math.inf, -math.inf])
def test_pitfall_06b_priorities_that_are_not_finite_are_rejected(error: float) -> None:
    replay = make(count=2)
    with pytest.raises(DivergedError, match="priorities of the replay are infinite or undefined"):
        update(replay, [0, 1], [1.0, error])
    assert values(replay) == [1.0, 1.0]


# Sampling


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_frequencies_of_drawn_transitions_are_proportional_to_their_priorities(alpha: float) -> None:
    part = dataclasses.replace(PART, capacity=100, alpha=alpha)
    replay, size, draws = make(part, count=100), 100, 20_000
    errors = stream(3, "test").exponential(size=size).astype(np.float32)
    replay.update(np.arange(size), torch.from_numpy(errors))
    probability = np.array([value(error, part) for error in errors])
    expected = draws * probability / probability.sum()
    chi2 = ((frequencies(replay, size, draws) - expected) ** 2 / expected).sum()
    assert 48 < chi2 < 170, chi2  # 1e-5 quantiles for 99 degrees of freedom


def test_prioritized_batches_are_stratified() -> None:
    """One row from each range of equal probability: with equal priorities, each row is drawn once."""
    replay = make(count=8)
    for _ in range(20):
        assert sorted(replay.sample(8, 0).indices.tolist()) == list(range(8))


def test_the_last_priority_of_a_repeated_index_counts() -> None:
    replay = make(count=2)
    update(replay, [1, 0, 1, 1], [1.0, 2.0, 3.0, 0.5])
    assert values(replay) == pytest.approx([value(2.0), value(0.5)])


def test_a_large_prioritized_replay_with_few_transitions_draws_only_those() -> None:
    replay = make(dataclasses.replace(PART, capacity=1_000_000), count=3000)
    update(replay, [1, 2999], [50.0, 100.0])
    add(replay, 1)
    batch = replay.sample(128, 0)
    assert np.isin(batch.indices, np.arange(3001)).all()
    assert batch.transition.reward[batch.indices == 2999].tolist() == [2999.0] * (batch.indices == 2999).sum()


@pytest.mark.parametrize("reload_at", [0, 5, 20, 40])
def test_a_prioritized_replay_restored_from_a_checkpoint_file_continues_identically(
    reload_at: int, tmp_path: Path
) -> None:
    part = dataclasses.replace(PART, capacity=16)

    def add_sample_and_update(replay: Replay, start: int, stop: int) -> list[Any]:
        found: list[Any] = []
        for index in range(start, stop):
            add(replay, 1, index)
            batch = replay.sample(5, index)
            replay.update(batch.indices, batch.transition.reward % 7)
            found += [batch.indices.tolist(), batch.weight.tolist(), batch.transition.reward.tolist()]
        return found

    replay = make(part)
    add_sample_and_update(replay, 0, reload_at)
    add(replay, 1, 99)  # a row that the sampler has not seen yet
    state = file_round_trip(replay.state_dict(), tmp_path)
    expected = add_sample_and_update(replay, reload_at, 60)
    resumed = make(part, seed=1)
    resumed.load_state_dict(state)
    assert add_sample_and_update(resumed, reload_at, 60) == expected
    assert values(resumed) == values(replay)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"capacity": 0}, r"agent\.replay\.capacity must be at least 1, got 0"),
        ({"alpha": -0.1}, r"agent\.replay\.alpha must be between 0 and 1, got -0\.1"),
        ({"beta": 1.5}, r"agent\.replay\.beta must be between 0 and 1, got 1\.5"),
        ({"beta": math.nan}, r"agent\.replay\.beta must be a finite number, between 0 and 1, got nan"),
        ({"beta_steps": 0}, r"agent\.replay\.beta_steps must be at least 1, got 0"),
        ({"eps": 0.0}, r"agent\.replay\.eps must be above 0, got 0\.0"),
        ({"eps": math.inf}, r"agent\.replay\.eps must be a finite number, above 0, got inf"),
    ],
)
def test_invalid_options_of_prioritized_replay_are_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PrioritizedReplay(**settings)
