"""The states of the global random generators as a checkpoint stores them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import State
from dqn_runner.core.types import Array

_WORDS = 624
"""Words of a Mersenne Twister."""
_VERSION = 3
"""Of the states of Python's generator."""

_numpy: Any = np.random
"""Its stubs lack the functions for bit generators."""


def stored_states() -> State:
    """The present states of the generators of `random`, numpy and torch (on the CPU).

    Of another bit generator than the one that numpy starts with, nothing is stored.
    """
    words, gauss = random.getstate()[1:]
    numpy = _numpy.get_state(legacy=False)
    is_default = numpy["bit_generator"] == "MT19937"
    key, position = (numpy["state"]["key"], numpy["state"]["pos"]) if is_default else (np.empty(0), 0)
    return {
        "python": _stored(np.array(words[:-1]), words[-1], gauss is not None, gauss or 0.0),
        "numpy": _stored(key, position, bool(numpy["has_gauss"]), numpy["gauss"]),
        "torch": torch.get_rng_state().numpy(),
    }


def restore_states(state: State) -> None:
    """Put stored states into effect; raises ValueError if they cannot be states of the generators."""
    words, position, gauss = _restored(state["python"])
    random.setstate((_VERSION, (*map(int, words), position), gauss))
    if len(state["numpy"]["words"]):
        words, position, gauss = _restored(state["numpy"])
        _numpy.set_state(("MT19937", words, position, int(gauss is not None), gauss or 0.0))
    try:
        torch.set_rng_state(torch.as_tensor(state["torch"]))
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"global_generators.torch is not the state of a generator: {error}") from None


def _stored(words: Array, position: int, has_gauss: bool, gauss: float) -> State:
    """A Mersenne Twister, and the second of the two normal variates that it draws at once."""
    stored = words.astype(np.uint32).view(np.uint8)
    return {"words": stored, "position": int(position), "has_gauss": has_gauss, "gauss": float(gauss)}


def _restored(state: State) -> tuple[Array, int, float | None]:
    words = torch.as_tensor(state["words"]).numpy()  # a tensor, as checkpoints return it
    if words.shape != (4 * _WORDS,) or not 0 <= state["position"] <= _WORDS:
        raise ValueError("global_generators has a state that no generator can have")
    return words.view(np.uint32), state["position"], state["gauss"] if state["has_gauss"] else None
