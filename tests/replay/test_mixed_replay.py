"""Replay stores each entry of a Dict observation in its own dtype, and stacked ones once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner.envs.checked_env import CheckedEnv
from dqn_runner.envs.gym import GymEnv
from dqn_runner.replay.prioritized import PrioritizedReplay
from dqn_runner.replay.storage import num_bytes
from dqn_runner.replay.uniform import UniformReplay

MIXED = "tests.support.mixed"


def filled(part: GymEnv, config: Any, steps: int, n_step: int = 1) -> tuple[Any, CheckedEnv, list[Any]]:
    """A replay with the steps of `part`, and its observations."""
    env = CheckedEnv(part.make())
    replay = config.build(env.spec, 1, 0.9, n_step, np.random.default_rng(0))
    obs = np.array(env.reset(0))
    seen = [obs]
    for step in range(steps):
        next_obs, reward, terminated, _, _ = env.step(step % 2)
        replay.add(0, obs, step % 2, reward, terminated, False, next_obs)
        obs = np.array(env.reset(step)) if terminated else next_obs
        seen += [next_obs, obs]
    return replay, env, seen


@pytest.mark.parametrize("config", [UniformReplay(capacity=20), PrioritizedReplay(capacity=20)])
@pytest.mark.parametrize("frames", [1, 3])
def test_batches_hold_observations_that_were_seen(config: Any, frames: int) -> None:
    part = GymEnv(id=f"{MIXED}:Stacked", frame_stack=frames)
    replay, env, seen = filled(part, config, 30, n_step=2)
    batch = replay.sample(16, 30)
    known = {obs.tobytes() for obs in seen}
    assert all(obs.numpy().tobytes() in known for obs in batch.transition.obs)
    layout = env.spec.layout
    assert layout is not None
    entries = layout.unpack(batch.transition.obs)
    assert entries["screen"].dtype == torch.uint8
    assert entries["body.speed"].dtype == torch.float32
    assert entries["body.on"].dtype == torch.bool
    again = config.build(env.spec, 1, 0.9, 2, np.random.default_rng(1))
    again.load_state_dict(replay.state_dict())
    assert np.array_equal(again.sample(16, 30).transition.obs, replay.sample(16, 30).transition.obs)


def test_memory_is_that_of_the_entries() -> None:
    spec = CheckedEnv(GymEnv(id=f"{MIXED}:Keys").make()).spec
    row = 40 + 3 * 4 + 1 + 3  # image, vector, category, padding
    assert spec.obs_shape == (row,)
    assert num_bytes(1000, spec) == 1000 * (2 * row + 16)


def test_frames_of_a_stack_are_stored_once() -> None:
    part = GymEnv(id=f"{MIXED}:Stacked", frame_stack=4, kwargs={"length": 1000})
    replay, env, _ = filled(part, UniformReplay(capacity=100), 50)
    assert len(replay.state_dict()["frames"].all()["frame"]) == 50 + 2  # the first, one of zeros, 50 steps
    assert env.spec.frame_stack == 4
