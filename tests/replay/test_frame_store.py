"""Replay of frame stacks that stores each frame once, against one that stores every stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqn_runner.core.rng import stream
from dqn_runner.core.types import Array, EnvSpec
from dqn_runner.replay.buffer import ReplayBuffer
from dqn_runner.replay.prioritized import PrioritizedReplay
from dqn_runner.replay.uniform import UniformReplay
from tests.replay.test_buffer import Step, file_round_trip

GAMMA = 0.9
RESETS = ["blank", "repeated", "other", "unseen"]
"""The first stack of an episode: blank frames and a new one, one frame repeated, other frames, or the last
stack of the previous episode."""


class Turn(NamedTuple):
    """The events of one environment in a step."""

    frame: int
    """Content of the new frame."""
    end: str
    reset: str
    jump: str
    """`on` shifts the stack by one frame, `mixed` reorders its frames, `new` replaces all of them."""


class StackedEnv:
    """An environment with observations [k, 2, 2]: stacks of frames with one value each."""

    def __init__(self, index: int, stack: int) -> None:
        self.index = index
        self.obs = np.zeros((stack, 2, 2), np.uint8)

    def step(self, turn: Turn, number: int) -> Step:
        obs, frame = self.obs, np.full((1, 2, 2), turn.frame, np.uint8)
        next_obs = np.concatenate([obs[1:], frame])
        if turn.jump == "mixed":
            next_obs = np.roll(obs, 1 + turn.frame % 3, 0)
        if turn.jump == "new":
            next_obs = np.stack([frame[0] + i for i in range(len(obs))]).astype(np.uint8)
        ended = turn.end != "on"
        self.obs = self._reset(turn, frame, next_obs) if ended else next_obs
        action, reward = number % 5, float(number)
        return Step(
            self.index, obs, action, reward, turn.end == "terminated", turn.end == "truncated", next_obs
        )

    def _reset(self, turn: Turn, frame: Array, last: Array) -> Array:
        first = frame ^ 128
        if turn.reset == "blank":
            return np.concatenate([np.zeros_like(last[1:]), first])
        if turn.reset == "repeated":
            return np.repeat(first, len(last), 0)
        return last[::-1] if turn.reset == "other" else last


def long_run(num_envs: int, turns: int, episode: int, seed: int = 0) -> Iterator[Step]:
    """Steps of environments in turn, with stacks of 4 random frames and episodes of `episode` steps."""
    random_ = stream(seed, "long_run")
    stacks = [np.zeros((4, 3, 3), np.uint8) for _ in range(num_envs)]
    for turn in range(turns):
        for env in range(num_envs):
            if turn % episode == 0:
                stacks[env] = np.zeros_like(stacks[env])
                stacks[env][-1] = random_.integers(256, size=(3, 3))
            obs = stacks[env]
            stacks[env] = np.concatenate([obs[1:], random_.integers(256, size=(1, 3, 3), dtype=np.uint8)])
            yield Step(env, obs, turn % 5, float(turn), (turn + 1) % episode == 0, False, stacks[env])


def add(replay: ReplayBuffer, step: Step) -> None:
    """Add a step from arrays that are overwritten afterwards, like those of VectorEnv."""
    obs, next_obs = step.obs.copy(), step.next_obs.copy()
    replay.add(step.env, obs, step.action, step.reward, step.terminated, step.truncated, next_obs)
    obs[...], next_obs[...] = 77, 77


def make(part: Any, spec: EnvSpec, num_envs: int = 1, n_step: int = 1, seed: int = 0) -> ReplayBuffer:
    return part.build(spec, num_envs, GAMMA, n_step, stream(seed, "replay"))


def stored_slots(replay: ReplayBuffer) -> Array:
    """The slots of all transitions, oldest first."""
    ring = replay._storage.ring
    return np.arange(ring.start, ring.stop) % ring.capacity


def stored_transitions(replay: ReplayBuffer) -> list[Any]:
    """All transitions, oldest first."""
    columns = replay._storage.take(stored_slots(replay))
    names = ("obs", "action", "reward", "discount", "next_obs")
    return list(zip(*(columns[name].tolist() for name in names), strict=True))


@settings(max_examples=60)
@given(
    data=st.data(),
    stack=st.integers(2, 4),
    num_envs=st.integers(1, 3),
    n_step=st.integers(1, 4),
    capacity=st.integers(1, 60),
    prioritized=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_pitfall_15_a_replay_of_frames_holds_the_newest_transitions_of_a_plain_replay(
    data: st.DataObject, stack: int, num_envs: int, n_step: int, capacity: int, prioritized: bool, seed: int
) -> None:
    """Also if a new replay loads the state in between, and if episodes are truncated."""
    shape = (stack, 2, 2)
    part = (PrioritizedReplay if prioritized else UniformReplay)(capacity=capacity)
    spec, plain_spec = EnvSpec(shape, 5, "uint8", stack), EnvSpec(shape, 5, "uint8")
    replay, plain = make(part, spec, num_envs, n_step), make(part, plain_spec, num_envs, n_step)
    envs, number = [StackedEnv(index, stack) for index in range(num_envs)], 0
    random_ = np.random.default_rng(seed)
    jumps = data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    busy = data.draw(st.sampled_from([0.0, 0.3, 1.0]))  # with many new frames, their capacity is the limit
    for event in data.draw(st.lists(st.sampled_from(["step", "step", "reload", "truncate"]), max_size=20)):
        if event == "reload":
            with TemporaryDirectory() as directory:
                state = file_round_trip(replay.state_dict(), Path(directory))
                replay = make(part, spec, num_envs, n_step, seed=1)
                replay.load_state_dict(state)
        if event == "truncate":
            index = int(random_.integers(num_envs))
            for one in (replay, plain):
                one.truncate(index, envs[index].obs)
            envs[index].obs = random_.integers(256, size=shape, dtype=np.uint8)
        for _ in range(5):
            for env in envs:
                frame = int(random_.integers(256 if random_.random() < busy else 3))
                drawn = Turn(
                    frame,
                    str(random_.choice(["on", "on", "on", "on", "terminated", "truncated"])),
                    str(random_.choice(RESETS)),
                    str(random_.choice(["on", "on", "mixed", "new"])) if random_.random() < jumps else "on",
                )
                step = env.step(drawn, number)
                number += 1
                add(replay, step)
                add(plain, step)
        assert len(replay) <= len(plain)
        assert stored_transitions(replay) == stored_transitions(plain)[len(plain) - len(replay) :]
        if len(replay):
            assert set(replay.sample(20, 0).indices.tolist()) <= set(stored_slots(replay).tolist())


def test_pitfall_15_transitions_of_an_environment_that_pauses_are_dropped_with_their_frames() -> None:
    """Its window stays open while another environment overwrites the frames of the window."""
    spec, plain_spec = EnvSpec((4, 3, 3), 5, "uint8", 4), EnvSpec((4, 3, 3), 5, "uint8")
    part = UniformReplay(capacity=30)
    replay, plain = make(part, spec, 2, 3), make(UniformReplay(capacity=1000), plain_spec, 2, 3)
    steps = list(long_run(2, 400, 50))
    waiting = [step for step in steps if step.env == 0]
    for index, step in enumerate(step for step in steps if step.env == 1):
        for one in (replay, plain):
            if index % 100 == 0:
                add(one, waiting[index // 100])
            add(one, step)
        if index % 20 == 0:
            whole = {repr(row) for row in stored_transitions(plain)}
            assert {repr(row) for row in stored_transitions(replay)} <= whole
    assert len(replay) == 30


@pytest.mark.parametrize(("num_envs", "n_step"), [(1, 1), (3, 1), (2, 3)])
def test_each_frame_is_stored_once_and_the_number_of_transitions_is_the_capacity(
    num_envs: int, n_step: int
) -> None:
    replay = make(UniformReplay(capacity=300), EnvSpec((4, 3, 3), 5, "uint8", 4), num_envs, n_step)
    for step in long_run(num_envs, 700, 100):
        add(replay, step)
    frames = replay._storage._frames.ring
    assert frames.stop == num_envs * 7 * (100 + 2)  # the first frame of an episode, and a blank one
    assert len(replay) == 300


@pytest.mark.parametrize(("num_envs", "n_step"), [(1, 1), (3, 2)])
def test_with_short_episodes_a_replay_of_frames_holds_fewer_transitions_than_its_capacity(
    num_envs: int, n_step: int
) -> None:
    """Two transitions have four frames, and a transition is dropped with the first of its frames."""
    spec, plain_spec = EnvSpec((4, 3, 3), 5, "uint8", 4), EnvSpec((4, 3, 3), 5, "uint8")
    part = UniformReplay(capacity=400)
    replay, plain = make(part, spec, num_envs, n_step), make(part, plain_spec, num_envs, n_step)
    for index, step in enumerate(long_run(num_envs, 1500 // num_envs, 2)):
        add(replay, step)
        add(plain, step)
        if index % 40 == 0:
            assert stored_transitions(replay) == stored_transitions(plain)[len(plain) - len(replay) :]
    assert 200 < len(replay) < 400
    counts = np.bincount(replay.sample(100 * len(replay), 0).indices, minlength=400)
    assert set(np.flatnonzero(counts)) == set(stored_slots(replay))


@pytest.mark.parametrize("n_step", [1, 3])
def test_priorities_belong_to_their_transitions_also_after_transitions_were_dropped(n_step: int) -> None:
    """Compared with a plain dictionary of the priorities of all rows."""
    part = PrioritizedReplay(capacity=400, alpha=1.0)
    replay, random_ = make(part, EnvSpec((4, 3, 3), 5, "uint8", 4), 2, n_step), stream(0, "test")
    ring, known, largest = replay._storage.ring, dict[int, float](), 1.0
    for index, step in enumerate(long_run(2, 400, 3)):
        add(replay, step)
        known |= {row: largest for row in range(ring.start, ring.stop) if row not in known}
        if index % 4 == 3 and len(replay):
            batch = replay.sample(8, 0)
            start = ring.start
            rows = start + (batch.indices - start) % ring.capacity
            assert (rows < ring.stop).all()
            errors = random_.exponential(size=8).astype(np.float32)
            replay.update(batch.indices, torch.from_numpy(errors))
            known |= dict(zip(rows.tolist(), (errors.astype(float) + part.eps).tolist(), strict=True))
            largest = max(largest, float(errors.max()) + part.eps)
            expected = [known[row] for row in range(ring.start, ring.stop)]
            assert replay.state_dict()["priorities"].tolist() == expected
    assert len(replay) < 400


def test_a_transition_that_was_dropped_since_it_was_drawn_gets_no_priority() -> None:
    replay = make(PrioritizedReplay(capacity=60), EnvSpec((4, 3, 3), 5, "uint8", 4))
    steps = list(long_run(1, 400, 1))
    for step in steps[:200]:
        add(replay, step)
    batch = replay.sample(32, 0)
    for step in steps[200:210]:
        add(replay, step)
    assert not np.isin(batch.indices, stored_slots(replay)).all()
    replay.update(batch.indices, torch.full((32,), 1e9))
    assert np.isin(replay.sample(512, 0).indices, stored_slots(replay)).all()


@pytest.mark.parametrize("obs_dtype", ["uint8", "float32"])
@pytest.mark.parametrize("reload_at", [0, 7, 150, 390])
def test_a_replay_of_frames_restored_from_a_checkpoint_file_continues_identically(
    reload_at: int, obs_dtype: str, tmp_path: Path
) -> None:
    spec, part = EnvSpec((4, 3, 3), 5, obs_dtype, 4), PrioritizedReplay(capacity=100)
    steps = [
        s._replace(obs=s.obs.astype(obs_dtype), next_obs=s.next_obs.astype(obs_dtype))
        for s in long_run(2, 200, 7)
    ]

    def add_and_sample(replay: ReplayBuffer, steps: list[Step]) -> list[Any]:
        found: list[Any] = []
        for number, step in enumerate(steps):
            add(replay, step)
            if len(replay):
                batch = replay.sample(4, number)
                replay.update(batch.indices, batch.transition.reward)
                found += [column.tolist() for column in (*batch.transition.columns(), batch.weight)]
        return found

    replay = make(part, spec, 2, 3)
    add_and_sample(replay, steps[:reload_at])
    state = file_round_trip(replay.state_dict(), tmp_path)
    expected = add_and_sample(replay, steps[reload_at:])
    resumed = make(part, spec, 2, 3, seed=1)
    resumed.load_state_dict(state)
    assert add_and_sample(resumed, steps[reload_at:]) == expected
    assert stored_transitions(resumed) == stored_transitions(replay)


@pytest.mark.parametrize("part", [UniformReplay, PrioritizedReplay])
def test_num_bytes_of_a_replay_of_frames_is_the_size_of_its_arrays(part: Any) -> None:
    spec, capacity = EnvSpec((4, 84, 84), 6, "uint8", 4), 5000
    replay = make(part(capacity=capacity), spec)
    storage = replay._storage
    arrays = [*storage.ring.columns.values(), *storage._frames.ring.columns.values()]
    arrays += getattr(getattr(replay._sampler, "_tree", None), "_levels", [])
    assert part(capacity=capacity).num_bytes(spec) == sum(array.nbytes for array in arrays)
    for capacity in (5000, 1_000_000):
        assert part(capacity=capacity).num_bytes(spec) / capacity < 7500
