"""Prioritized replay: probabilities, weights and priorities; the numbers are those of the checklist."""

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
    """Transitions whose rewards count up."""
    obs = np.zeros(1, np.float32)
    for index in range(count):
        replay.add(0, obs, 0, float(start + index), False, False, obs)


def update(replay: Replay, slots: list[int], errors: list[float]) -> None:
    replay.update(np.array(slots), torch.tensor(errors))


def values(replay: Replay) -> list[float]:
    """(|delta| + eps)**alpha of the rows, oldest first."""
    return replay.state_dict()["priorities"].tolist()


def value(error: float, part: PrioritizedReplay = PART) -> float:
    return (abs(float(np.float32(error))) + part.eps) ** part.alpha


def frequencies(replay: Replay, size: int, draws: int) -> Array:
    """How often each slot comes up, one at a time: larger batches are stratified."""
    return np.bincount([replay.sample(1, 0).indices[0] for _ in range(draws)], minlength=size)


# 5


def test_05_new_transitions_get_the_largest_priority() -> None:
    replay = make(count=2)
    assert values(replay) == [1.0, 1.0]
    update(replay, [0, 1], [4.0, 0.5])
    add(replay, 2)
    assert values(replay) == pytest.approx([value(4.0), value(0.5), value(4.0), value(4.0)])


def test_05_small_errors_do_not_lower_what_new_transitions_get() -> None:
    replay = make(count=2)
    update(replay, [0, 1], [0.1, 0.2])
    add(replay, 1)
    assert values(replay) == pytest.approx([value(0.1), value(0.2), 1.0])


def test_05_the_largest_priority_is_that_of_all_times() -> None:
    """Also when its transition is long forgotten."""
    replay = make(count=8)
    update(replay, [0], [9.0])
    update(replay, [0], [0.0])
    add(replay, 20)
    assert values(replay) == pytest.approx([value(9.0)] * 8)


def test_05_what_is_added_before_an_update_has_the_largest_priority_from_before_it() -> None:
    replay = make(count=1)
    slots = replay.sample(1, 0).indices
    add(replay, 1)
    replay.update(slots, torch.tensor([5.0]))
    assert values(replay) == pytest.approx([value(5.0), 1.0])


# 6


@pytest.mark.parametrize(("step", "beta"), [(0, 0.5), (50, 0.75), (100, 1.0), (10**9, 1.0)])
def test_06_importance_weights_grow_with_beta_over_env_steps(step: int, beta: float) -> None:
    """(N P(i))**-beta over the largest of the batch, over the batch size (section 3.4)."""
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


def test_06_equal_priorities_weigh_as_much_as_in_a_uniform_replay() -> None:
    assert make(count=5).sample(4, 0).weight.tolist() == [0.25] * 4


# 6b


def test_06b_the_exponent_is_applied_once_to_the_sum() -> None:
    replay = make(count=3)
    update(replay, [0, 1, 2], [0.0, 2.0, -2.0])
    assert values(replay) == pytest.approx([0.01**0.5, 2.01**0.5, 2.01**0.5])


def test_06b_transitions_without_error_are_drawn_now_and_then() -> None:
    replay = make(dataclasses.replace(PART, eps=1e-6), count=2)
    update(replay, [0, 1], [0.0, 0.0])
    batch = replay.sample(32, 0)
    assert set(batch.indices.tolist()) == {0, 1}
    assert torch.isfinite(batch.weight).all()


@pytest.mark.parametrize("error", [math.nan, math.inf, -math.inf])
def test_06b_priorities_that_are_no_numbers_are_refused(error: float) -> None:
    replay = make(count=2)
    with pytest.raises(DivergedError, match="priorities of the replay are infinite or undefined"):
        update(replay, [0, 1], [1.0, error])
    assert values(replay) == [1.0, 1.0]


# Drawing


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_frequencies_are_proportional_to_priorities(alpha: float) -> None:
    part = dataclasses.replace(PART, capacity=100, alpha=alpha)
    replay, size, draws = make(part, count=100), 100, 20_000
    errors = stream(3, "test").exponential(size=size).astype(np.float32)
    replay.update(np.arange(size), torch.from_numpy(errors))
    probability = np.array([value(error, part) for error in errors])
    expected = draws * probability / probability.sum()
    chi2 = ((frequencies(replay, size, draws) - expected) ** 2 / expected).sum()
    assert 48 < chi2 < 170, chi2  # 1e-5 quantiles for 99 degrees of freedom


def test_batches_are_stratified() -> None:
    """Each of a batch's ranges of equal probability gives one: of equal rows, each comes once."""
    replay = make(count=8)
    for _ in range(20):
        assert sorted(replay.sample(8, 0).indices.tolist()) == list(range(8))


def test_of_a_repeated_index_the_last_priority_counts() -> None:
    replay = make(count=2)
    update(replay, [1, 0, 1, 1], [1.0, 2.0, 3.0, 0.5])
    assert values(replay) == pytest.approx([value(2.0), value(0.5)])


def test_a_large_memory_that_has_just_begun_to_fill() -> None:
    replay = make(dataclasses.replace(PART, capacity=1_000_000), count=3000)
    update(replay, [1, 2999], [50.0, 100.0])
    add(replay, 1)
    batch = replay.sample(128, 0)
    assert np.isin(batch.indices, np.arange(3001)).all()
    assert batch.transition.reward[batch.indices == 2999].tolist() == [2999.0] * (batch.indices == 2999).sum()


@pytest.mark.parametrize("broken_at", [0, 5, 20, 40])
def test_goes_on_from_a_checkpoint_file_as_if_nothing_had_happened(broken_at: int, tmp_path: Path) -> None:
    part = dataclasses.replace(PART, capacity=16)

    def go_on(replay: Replay, start: int, stop: int) -> list[Any]:
        found: list[Any] = []
        for index in range(start, stop):
            add(replay, 1, index)
            batch = replay.sample(5, index)
            replay.update(batch.indices, batch.transition.reward % 7)
            found += [batch.indices.tolist(), batch.weight.tolist(), batch.transition.reward.tolist()]
        return found

    replay = make(part)
    go_on(replay, 0, broken_at)
    add(replay, 1, 99)  # rows that were never drawn from
    state = file_round_trip(replay.state_dict(), tmp_path)
    expected = go_on(replay, broken_at, 60)
    resumed = make(part, seed=1)
    resumed.load_state_dict(state)
    assert go_on(resumed, broken_at, 60) == expected
    assert values(resumed) == values(replay)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"capacity": 0}, r"agent\.replay\.capacity must be at least 1, got 0"),
        ({"alpha": -0.1}, r"agent\.replay\.alpha must be between 0 and 1, got -0\.1"),
        ({"beta": 1.5}, r"agent\.replay\.beta must be between 0 and 1, got 1\.5"),
        ({"beta": math.nan}, r"agent\.replay\.beta must be between 0 and 1, got nan"),
        ({"beta_steps": 0}, r"agent\.replay\.beta_steps must be at least 1, got 0"),
        ({"eps": 0.0}, r"agent\.replay\.eps must be a number above 0, got 0\.0"),
        ({"eps": math.inf}, r"agent\.replay\.eps must be a number above 0, got inf"),
    ],
)
def test_settings_that_no_run_could_use_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PrioritizedReplay(**settings)
