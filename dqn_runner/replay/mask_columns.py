"""The action masks of transitions in a ring buffer, eight actions in a byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.core.types import Array, EnvSpec
from dqn_runner.replay.ring_buffer import Layout, RingBuffer

_NAMES = ("mask", "next_mask")
"""As in `core.types.Transition`."""


def layout(spec: EnvSpec) -> Layout:
    """The columns for the masks; none for an environment without."""
    row = ((-(-spec.num_actions // 8),), "uint8")
    return dict.fromkeys(_NAMES, row) if spec.has_action_mask else {}


def pack(masks: Iterable[Array]) -> Iterator[Array]:
    """Masks [actions] as rows of the columns."""
    return map(np.packbits, masks)


def unpack(columns: dict[str, Array], num_actions: int) -> None:
    """Replace rows of the columns by masks [n, actions], if there are any."""
    for name in _NAMES:
        if name in columns:
            columns[name] = np.unpackbits(columns[name], axis=-1, count=num_actions).view(bool)


def check(ring: RingBuffer, part: slice, num_actions: int) -> None:
    """Raise DamagedError if a mask in the slots `part` allows no action."""
    rows = {name: ring.columns[name][part] for name in _NAMES if name in ring.columns}
    unpack(rows, num_actions)
    if not all(masks.any(-1).all() for masks in rows.values()):
        raise DamagedError("the stored replay has an action mask that allows no action")
