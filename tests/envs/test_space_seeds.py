"""Seeded spaces repeat their samples, which differ between seeds and are spread over the space."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from dqn_runner.core.rng import seed_for
from dqn_runner.envs.space_seeds import space_seeder


class Own(spaces.Discrete):
    """A space that notes how it is seeded."""

    seeded: int | None = None

    def seed(self, seed: Any = None) -> Any:
        self.seeded = seed
        return super().seed(seed)


SPACES = {
    "box": spaces.Box(-1, 1, (3,), np.float32),
    "discrete": spaces.Discrete(1000),
    "multi": spaces.MultiDiscrete([100, 100]),
    "binary": spaces.MultiBinary(20),
    "dict": spaces.Dict({"a": spaces.Discrete(1000), "b": spaces.Box(-1, 1, (3,), np.float32)}),
    "own": Own(1000),
}


@pytest.mark.parametrize("name", SPACES)
def test_samples_are_those_of_the_seed(name: str) -> None:
    space: Any = SPACES[name]
    seed_space = space_seeder(space)

    def samples(seed: int) -> str:
        seed_space(seed)
        return repr([space.sample() for _ in range(5)])

    seeds = [seed_for(0, index) for index in range(50)]
    first = [samples(seed) for seed in seeds]
    space.seed(7)  # as an environment may do
    assert [samples(seed) for seed in seeds] == first
    assert len(set(first)) == len(seeds)


def test_samples_of_first_draws_are_uniform_over_seeds() -> None:
    space = spaces.Box(0, 1, (2,), np.float64)
    seed_space = space_seeder(space)
    found = []
    for index in range(4000):
        seed_space(seed_for(1, index))
        found.append(space.sample())
    values = np.array(found)
    assert np.abs(values.mean(0) - 0.5).max() < 0.02
    assert np.abs(values.std(0) - np.sqrt(1 / 12)).max() < 0.01
    assert abs(np.corrcoef(values.T)[0, 1]) < 0.06


def test_a_space_with_a_seed_method_of_its_own_is_seeded_by_it() -> None:
    space = Own(3)
    space_seeder(space)(11)
    assert space.seeded == 11
