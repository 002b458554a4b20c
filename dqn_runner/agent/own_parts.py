"""What the program does for parts that are not its own: it seeds the generators from which they draw."""

from __future__ import annotations

from dqn_runner.core.rng import seed_for
from dqn_runner.envs.generators import OwnGenerators


def building_parts(seed: int) -> OwnGenerators:
    """A block in which parts are built: what they draw from the global generators follows from `seed`.

    Torch is included if it is imported before the block.
    """
    return OwnGenerators(seed_for(seed, "parts"))
