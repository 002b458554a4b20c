"""Seeds the random generators of spaces, from which an environment may sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.random import PCG64

from dqn_runner.core.lazy_imports import gymnasium

_PLAIN = ("Box", "Discrete", "MultiBinary", "MultiDiscrete")
"""Spaces with one generator, that of `np_random`."""
_ODD = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""Spreads the bits of a seed over a state of 128 bits."""


def space_seeder(space: Any) -> Callable[[int], object]:
    """Return a function that seeds `space`.

    `Space.seed` takes 20 us, which short episodes would notice; to set the state of a generator takes 3.
    """
    if type(space) not in [getattr(gymnasium.spaces, name) for name in _PLAIN]:
        return space.seed

    def seed_generator(seed: int) -> None:
        bit_generator = space.np_random.bit_generator
        if not isinstance(bit_generator, PCG64):
            space.seed(seed)
            return
        numbers = {"state": seed * _ODD % 2**128, "inc": 1}
        state: Any = {"bit_generator": "PCG64", "state": numbers, "has_uint32": 0, "uinteger": 0}
        bit_generator.state = state

    return seed_generator
