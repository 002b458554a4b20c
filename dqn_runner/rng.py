"""Random streams named by what they are for; the global generators are never touched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from contextlib import contextmanager

import numpy as np

from dqn_runner.lazy import torch


def _sequence(seed: int, names: tuple[str | int, ...]) -> np.random.SeedSequence:
    digest = hashlib.sha256(repr(names).encode()).digest()
    return np.random.SeedSequence([seed, *np.frombuffer(digest, dtype=np.uint32).tolist()])


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The generator for one purpose of a run; other names give independent numbers."""
    return np.random.Generator(np.random.PCG64(_sequence(seed, names)))


def seed_for(seed: int, *names: str | int) -> int:
    """A 31-bit seed for one purpose, for code that takes an integer (environments, torch)."""
    return int(_sequence(seed, names).generate_state(1)[0]) >> 1


def eval_seeds(purpose: str, seed: int = 0) -> Callable[[int], int]:
    """Seeds of evaluation episodes: episode index to seed, the same for every run."""
    return lambda episode: seed_for(seed, purpose, episode)


@contextmanager
def torch_seeded(seed: int) -> Generator[None]:
    """Let code that only knows torch's global generator draw from `seed`, and leave no trace."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
