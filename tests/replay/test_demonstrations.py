"""A replay with demonstrations: they have their share of each batch, and are never overwritten."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner.core.rng import stream
from dqn_runner.core.types import EnvSpec
from dqn_runner.replay.demonstrations import ReplayWithDemonstrations, reserved
from dqn_runner.replay.frame_store import count_frames
from dqn_runner.replay.prioritized import PrioritizedReplay
from dqn_runner.replay.uniform import UniformReplay

SPEC = EnvSpec((1,), 2)
DEMONSTRATIONS = 5


def make(part: Any, share: float = 0.25, spec: EnvSpec = SPEC, capacity: int = 8) -> ReplayWithDemonstrations:
    def build(number: int, num_frames: int) -> Any:
        return part(capacity=number).build(spec, 1, 0.9, 1, stream(1, "demonstrations"), num_frames)

    own = part(capacity=capacity).build(spec, 1, 0.9, 1, stream(0, "replay"))
    return ReplayWithDemonstrations(own, build, share)


def add(replay: Any, values: Any) -> None:
    for value in values:
        replay.add(0, np.full(1, value, np.float32), 0, 0.0, False, True, np.zeros(1, np.float32))


def filled(part: Any, share: float = 0.25, own: int = 30) -> ReplayWithDemonstrations:
    """Demonstrations are negative, transitions of the run positive."""
    replay = make(part, share)
    add(replay.reserve(DEMONSTRATIONS, 1), range(-DEMONSTRATIONS, 0))
    add(replay, range(1, own + 1))
    return replay


@pytest.mark.parametrize("part", [UniformReplay, PrioritizedReplay])
@pytest.mark.parametrize(("share", "count"), [(0.25, 4), (0.5, 8), (0.1, 2), (1.0, 16)])
def test_batches_have_their_share_of_all_demonstrations(part: Any, share: float, count: int) -> None:
    replay = filled(part, share)
    assert reserved(share, 16) == count
    seen: set[float] = set()
    for step in range(60):
        obs = replay.sample(16, step).transition.obs[:, 0]
        assert (obs < 0).tolist() == [False] * (16 - count) + [True] * count
        seen |= set(obs.tolist())
    own = set(range(23, 31)) if share < 1 else set[int]()
    assert seen == own | set(range(-DEMONSTRATIONS, 0))


def test_without_a_transition_of_the_run_all_are_demonstrations() -> None:
    replay = filled(UniformReplay, own=0)
    assert len(replay) == DEMONSTRATIONS
    batch = replay.sample(8, 0)
    assert (batch.transition.obs < 0).all()
    assert batch.weight.tolist() == pytest.approx([1 / 8] * 8)
    replay.update(batch.indices, torch.ones(8))


def test_uniform_weights_are_those_of_one_batch() -> None:
    assert filled(UniformReplay).sample(16, 0).weight.tolist() == pytest.approx([1 / 16] * 16)


def test_priorities_and_weights_are_those_of_each_part() -> None:
    """Alone, each sampler gives weights relative to its own smallest probability."""
    replay = filled(PrioritizedReplay)
    batch = replay.sample(16, 0)
    own, demonstrations = (filled(PrioritizedReplay) for _ in range(2))
    one, two = own.own.sample(12, 0), demonstrations.demonstrations.sample(4, 0)
    assert batch.indices.tolist() == [*one.indices.tolist(), *two.indices.tolist()]
    priority = torch.arange(1.0, 17.0)
    replay.update(batch.indices, priority)
    own.own.update(one.indices, priority[:12])
    demonstrations.demonstrations.update(two.indices, priority[12:])
    mixed = replay.sample(16, 50_000)
    one, two = own.own.sample(12, 50_000), demonstrations.demonstrations.sample(4, 50_000)
    assert mixed.indices.tolist() == [*one.indices.tolist(), *two.indices.tolist()]
    expected = [*(one.weight * 12 / 16).tolist(), *(two.weight * 4 / 16).tolist()]
    assert mixed.weight.tolist() == pytest.approx(expected)
    assert len(set(expected)) > 2


@pytest.mark.parametrize("part", [UniformReplay, PrioritizedReplay])
def test_a_restored_replay_draws_the_same_batches(part: Any) -> None:
    first, second = filled(part), make(part)
    for step in range(3):
        batch = first.sample(16, step)
        first.update(batch.indices, torch.rand(16) + 0.1)
    second.load_state_dict(first.state_dict())
    assert len(second) == len(first)
    for step in range(3, 6):
        one, two = first.sample(16, step), second.sample(16, step)
        assert one.indices.tolist() == two.indices.tolist()
        assert torch.equal(one.transition.obs, two.transition.obs)
        assert torch.equal(one.weight, two.weight)


@pytest.mark.parametrize("n_step", [1, 3])
def test_frames_of_all_demonstrations_are_kept(n_step: int) -> None:
    """Episodes of two steps have many more frames than transitions; an online replay drops some of them."""
    spec = EnvSpec((3, 2), 2, "uint8", 3)
    rng = np.random.default_rng(0)
    steps: list[Any] = []
    for _ in range(20):
        frames = rng.integers(0, 256, (5, 2)).astype(np.uint8)
        stacks = [frames[i : i + 3] for i in range(3)]
        steps += [(stacks[0], False, stacks[1]), (stacks[1], True, stacks[2])]
    count = count_frames((obs for first, _, last in steps for obs in (first, last)), spec)
    assert count == 100
    replay = UniformReplay(capacity=len(steps)).build(spec, 1, 0.9, n_step, stream(0, "r"), count)
    for first, over, last in steps:
        replay.add(0, first, 0, 1.0, over, False, last)
    assert len(replay) == len(steps)
    known = {first.tobytes() for first, _, _ in steps}
    drawn = replay.sample(200, 0).transition
    assert {obs.numpy().tobytes() for obs in drawn.obs} == known
