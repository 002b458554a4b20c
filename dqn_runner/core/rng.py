"""Independent random streams, each named by its purpose; the global generators stay as they are."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch


def as_seed(value: Any) -> int:
    """A seed that a caller gave, as an int; raises UserError unless it is an integer of at least 0."""
    try:
        seed = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        seed = -1
    if seed >= 0:
        return seed
    raise UserError(f"seed={value!r} is not an integer of at least 0")


def _digest(seed: int, names: tuple[str | int, ...]) -> int:
    return int.from_bytes(hashlib.sha256(repr((seed, *names)).encode()).digest(), "little")


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Generator for one purpose of a run; different `names` give independent streams."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(_digest(seed, names))))


def seed_for(seed: int, *names: str | int) -> int:
    """31-bit seed for one purpose, for code that takes an integer (environments, torch)."""
    return _digest(seed, names) % 2**31


def eval_seeds(purpose: str, seed: int = 0) -> Callable[[int], int]:
    """Function from the index of an evaluation episode to its seed; the same for every run."""
    return lambda episode: seed_for(seed, purpose, episode)


@contextmanager
def torch_seeded(seed: int) -> Generator[None]:
    """Seed the global generator of torch within the block, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
