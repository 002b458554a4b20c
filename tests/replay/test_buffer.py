"""Uniform replay and n-step transitions against a plain list of transitions."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqn_runner.checkpointing.checkpointer import Checkpointer
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.rng import stream
from dqn_runner.core.state import State
from dqn_runner.core.types import Array, EnvSpec, Transition
from dqn_runner.replay.buffer import ReplayBuffer
from dqn_runner.replay.n_step import NStepAccumulator
from dqn_runner.replay.uniform import UniformReplay

SPEC = EnvSpec(obs_shape=(3,), num_actions=5)
GAMMA = 0.9
ENDS = {"on": (False, False), "terminated": (True, False), "truncated": (False, True), "both": (True, True)}
"""The flags (terminated, truncated) of a step."""


class Step(NamedTuple):
    """The arguments of `Replay.add`."""

    env: int
    obs: Array
    action: int
    reward: float
    terminated: bool
    truncated: bool
    next_obs: Array


class Expected(NamedTuple):
    """A transition computed by `model`."""

    obs: list[float]
    action: int
    reward: float
    discount: float
    next_obs: list[float]


def make_steps(events: list[tuple[int, str, int]]) -> list[Step]:
    """Steps for events (env, key of ENDS, reward), with observations that are all different."""
    episode: dict[int, int] = defaultdict(int)
    time: dict[int, int] = defaultdict(int)
    steps: list[Step] = []
    for env, end, reward in events:
        obs, next_obs = (np.array([env, episode[env], time[env] + i], np.float32) for i in (0, 1))
        terminated, truncated = ENDS[end]
        steps.append(Step(env, obs, len(steps) % 5, float(reward), terminated, truncated, next_obs))
        time[env] += 1
        if terminated or truncated:
            episode[env], time[env] = episode[env] + 1, 0
    return steps


def model(steps: list[Step], n_step: int) -> list[Expected]:
    """All n-step transitions, in the order of their last steps."""
    unfinished: dict[int, list[Step]] = defaultdict(list)
    transitions: list[Expected] = []
    for last in steps:
        episode = unfinished[last.env]
        episode.append(last)
        ended = last.terminated or last.truncated
        for start, first in enumerate(episode):
            window = episode[start:]
            k = len(window)
            if k == n_step or (k < n_step and ended):
                reward = sum(GAMMA**i * step.reward for i, step in enumerate(window))
                discount = 0.0 if last.terminated else GAMMA**k
                transitions.append(
                    Expected(first.obs.tolist(), first.action, reward, discount, last.next_obs.tolist())
                )
        if ended:
            unfinished[last.env] = []
    return transitions


def make(
    capacity: int,
    num_envs: int = 1,
    n_step: int = 1,
    spec: EnvSpec = SPEC,
    seed: int = 0,
    gamma: float = GAMMA,
) -> ReplayBuffer:
    replay = UniformReplay(capacity=capacity).build(spec, num_envs, gamma, n_step, stream(seed, "replay"))
    assert isinstance(replay, ReplayBuffer)
    return replay


def add(replay: ReplayBuffer, step: Step) -> None:
    """Add a step from arrays that are overwritten afterwards, like those of VectorEnv."""
    obs, next_obs = step.obs.copy(), step.next_obs.copy()
    replay.add(step.env, obs, step.action, step.reward, step.terminated, step.truncated, next_obs)
    obs[...], next_obs[...] = 77, 77


def rows(transition: Transition) -> list[Expected]:
    return [Expected(*row) for row in zip(*(column.tolist() for column in transition.columns()), strict=True)]


def assert_same(found: Expected, expected: Expected) -> None:
    assert (found.obs, found.action, found.next_obs) == (expected.obs, expected.action, expected.next_obs)
    assert found.reward == pytest.approx(expected.reward, rel=1e-6, abs=1e-6)
    assert found.discount == pytest.approx(expected.discount, rel=1e-6)


def assert_holds(replay: ReplayBuffer, expected: list[Expected]) -> None:
    """Assert that exactly the transitions `expected` can be drawn."""
    assert len(replay) == len(expected)
    if not expected:
        return
    batch = replay.sample(40 * len(expected), 0)
    assert set(batch.indices.tolist()) == set(range(len(expected)))
    by_obs = {tuple(e.obs): e for e in expected}
    drawn = dict(zip(batch.indices.tolist(), rows(batch.transition), strict=True))
    assert len({tuple(row.obs) for row in drawn.values()}) == len(expected)
    for row in drawn.values():
        assert_same(row, by_obs[tuple(row.obs)])


def file_round_trip(state: State, directory: Path) -> State:
    """A state after saving it to a checkpoint file and loading it."""
    checkpointer = Checkpointer(directory, keep_last=1)
    checkpointer.save({"source": {}, "state": state}, 0, ["latest.pt"])
    checkpointer.close()
    return load_checkpoint(directory / "latest.pt")["state"]


@st.composite
def runs_of_steps(draw: st.DrawFn) -> tuple[int, list[Step]]:
    """A number of environments, and their steps in any order of environments."""
    num_envs = draw(st.integers(1, 3))
    event = st.tuples(
        st.integers(0, num_envs - 1),
        st.sampled_from(["on", "on", "on", *ENDS]),
        st.integers(-3, 3),
    )
    return num_envs, make_steps(draw(st.lists(event, max_size=50)))


@settings(max_examples=150)
@given(
    run=runs_of_steps(),
    n_step=st.integers(1, 5),
    capacity=st.integers(1, 12),
    reloads=st.sets(st.integers(0, 50), max_size=3),
)
def test_a_replay_holds_the_newest_transitions_of_a_plain_list(
    run: tuple[int, list[Step]], n_step: int, capacity: int, reloads: set[int]
) -> None:
    """Also if a new replay loads the state of the old one before each step of `reloads`."""
    num_envs, steps = run
    replay = make(capacity, num_envs, n_step)
    for index, step in enumerate(steps):
        if index in reloads:
            state = replay.state_dict()
            replay = make(capacity, num_envs, n_step, seed=1)
            replay.load_state_dict(state)
        add(replay, step)
    assert_holds(replay, model(steps, n_step)[-capacity:])


@pytest.mark.parametrize("obs_dtype", ["float32", "uint8", "bool"])
@pytest.mark.parametrize("reload_at", [0, 3, 10, 40])
def test_a_uniform_replay_restored_from_a_checkpoint_file_continues_identically(
    obs_dtype: str, reload_at: int, tmp_path: Path
) -> None:
    spec = EnvSpec(obs_shape=(3,), num_actions=5, obs_dtype=obs_dtype)
    ends = list(ENDS)
    steps = make_steps([(i % 2, ends[i % 4] if i % 7 == 0 else "on", i % 3) for i in range(60)])
    steps = [s._replace(obs=s.obs.astype(obs_dtype), next_obs=s.next_obs.astype(obs_dtype)) for s in steps]

    def add_and_sample(replay: ReplayBuffer, steps: list[Step]) -> list[list[Expected]]:
        batches: list[list[Expected]] = []
        for step in steps:
            add(replay, step)
            if len(replay):
                batches.append(rows(replay.sample(4, 0).transition))
        return batches

    replay = make(16, 2, 3, spec)
    add_and_sample(replay, steps[:reload_at])
    state = file_round_trip(replay.state_dict(), tmp_path)
    expected = add_and_sample(replay, steps[reload_at:])

    resumed = make(16, 2, 3, spec, seed=1)
    resumed.load_state_dict(state)
    assert add_and_sample(resumed, steps[reload_at:]) == expected
    found, original = resumed.state_dict(), replay.state_dict()
    assert found["rng"] == original["rng"]
    columns = original["rows"].all()
    for name, column in found["rows"].all().items():
        assert column.dtype == columns[name].dtype
        assert np.array_equal(column, columns[name])


def test_a_window_becomes_a_transition_after_n_steps_or_at_the_end_of_the_episode() -> None:
    accumulator = NStepAccumulator(1, GAMMA, 3)
    steps = make_steps([(0, "on", 1), (0, "on", 2), (0, "on", 4), (0, "truncated", 8)])
    assert [len(accumulator.add(*step)) for step in steps] == [0, 0, 1, 3]


def test_three_step_transitions_equal_numbers_by_hand() -> None:
    for end, bootstraps in (("terminated", False), ("truncated", True), ("both", False)):
        accumulator = NStepAccumulator(1, 0.5, 3)
        steps = make_steps([(0, "on", 1), (0, "on", 2), (0, "on", 4), (0, end, 8)])
        finished = [t for step in steps for t in accumulator.add(*step)]
        assert [t.obs.tolist()[-1] for t in finished] == [0, 1, 2, 3]
        assert [t.next_obs.tolist()[-1] for t in finished] == [3, 4, 4, 4]
        assert [t.reward for t in finished] == [1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8]
        discounts = [0.5**3, 0.5**3, 0.5**2, 0.5**1] if bootstraps else [0.5**3, 0, 0, 0]
        assert [t.discount for t in finished] == discounts


def filled(capacity: int, count: int, seed: int = 0) -> ReplayBuffer:
    replay = make(capacity, seed=seed)
    for step in make_steps([(0, "on", i) for i in range(count)]):
        add(replay, step)
    return replay


def test_the_seed_determines_the_drawn_batches() -> None:
    def draws(seed: int) -> list[list[int]]:
        replay = filled(50, 50, seed)
        return [replay.sample(8, 0).indices.tolist() for _ in range(20)]

    assert draws(0) == draws(0)
    assert draws(0) != draws(1)


@pytest.mark.parametrize(("capacity", "count"), [(50, 50), (50, 173), (400, 50)])
def test_a_uniform_replay_draws_every_transition_with_the_same_probability(capacity: int, count: int) -> None:
    """If the ring buffer is full, has wrapped around, or is mostly empty."""
    size, draws = 50, 50_000
    replay = filled(capacity, count)
    assert len(replay) == size
    counts = np.bincount(np.concatenate([replay.sample(100, 0).indices for _ in range(draws // 100)]))
    assert len(counts) == size
    chi2 = ((counts - draws / size) ** 2 / (draws / size)).sum()
    assert 15 < chi2 < 103, chi2  # 1e-5 quantiles for 49 degrees of freedom


def test_a_batch_has_the_shapes_and_dtypes_that_the_learner_expects() -> None:
    batch = filled(10, 4).sample(7, 0)  # more than there are: drawn with replacement
    assert [tuple(column.shape) for column in batch.transition.columns()] == [
        (7, 3),
        (7,),
        (7,),
        (7,),
        (7, 3),
    ]
    dtypes = [str(column.dtype).removeprefix("torch.") for column in batch.transition.columns()]
    assert dtypes == ["float32", "int64", "float32", "float32", "float32"]
    assert batch.indices.shape == (7,)
    assert batch.indices.dtype == np.int64
    assert str(batch.weight.dtype) == "torch.float32"


def test_the_weights_of_a_uniform_batch_make_the_loss_a_mean() -> None:
    """Also if the next batch has another size."""
    replay = filled(10, 4)
    for size in (7, 3, 3, 7):
        assert replay.sample(size, 0).weight.tolist() == pytest.approx([1 / size] * size)


def test_a_batch_keeps_its_values_when_its_rows_are_overwritten() -> None:
    replay = filled(4, 4)
    batch = replay.sample(8, 0)
    before = rows(batch.transition)
    for step in make_steps([(0, "on", i) for i in range(100, 104)]):
        add(replay, step)
    assert rows(batch.transition) == before


def test_num_bytes_of_a_uniform_replay_is_the_size_of_its_arrays() -> None:
    for spec in (SPEC, EnvSpec((84, 84, 4), 6, "uint8"), EnvSpec((10, 10, 4), 6, "bool")):
        part = UniformReplay(capacity=5)
        replay = part.build(spec, 1, GAMMA, 1, stream(0, "replay"))
        for _ in range(5):
            obs = np.zeros(spec.obs_shape, spec.obs_dtype)
            replay.add(0, obs, 0, 0.0, False, False, obs)
        arrays: dict[str, Any] = replay.state_dict()["rows"].all()
        assert part.num_bytes(spec) == sum(array.nbytes for array in arrays.values())


def test_a_replay_capacity_of_zero_is_rejected() -> None:
    with pytest.raises(UserError, match=r"agent\.replay\.capacity must be at least 1, got 0"):
        UniformReplay(capacity=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": EnvSpec((4,), 5)}, r"obs is \(3,\) float32, this run has \(4,\) float32"),
        ({"spec": EnvSpec((3,), 5, "uint8")}, r"obs is \(3,\) float32, this run has \(3,\) uint8"),
        ({"capacity": 5}, "has a capacity of 8 transitions, this run's 5"),
        ({"capacity": 20}, "has a capacity of 8 transitions, this run's 20"),
        ({"num_envs": 2}, "written with 1 environments, not 2"),
        ({"n_step": 2}, r"made with agent\.n_step=4, not 2"),
        ({"gamma": 0.5}, r"made with agent\.gamma=0\.9, not 0\.5"),
    ],
    ids=["obs shape", "obs dtype", "smaller", "larger", "environments", "n_step", "gamma"],
)
def test_a_state_of_another_replay_is_rejected(change: dict[str, Any], message: str) -> None:
    replay = make(8, n_step=4)
    for step in make_steps([(0, "on", i) for i in range(13)]):
        add(replay, step)
    with pytest.raises(UserError, match=message):
        make(**{"capacity": 8, "n_step": 4, **change}).load_state_dict(replay.state_dict())
