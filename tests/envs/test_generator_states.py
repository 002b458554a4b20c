"""States of the global random generators in checkpoints."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner.envs.generator_states import restore_states, stored_states
from dqn_runner.envs.generators import OwnGenerators


def draws() -> list[float]:
    """One normal variate of each generator; two of them draw a second one at once and keep it."""
    return [random.gauss(0, 1), float(np.random.normal()), float(torch.randn(()))]  # noqa: NPY002


@pytest.mark.parametrize("before", range(3))
def test_stored_states_continue_the_generators(before: int, tmp_path: Path) -> None:
    with OwnGenerators(5):
        for _ in range(before):
            draws()
        torch.save(stored_states(), tmp_path / "states")
        expected = [draws() for _ in range(700)]
        restore_states(torch.load(tmp_path / "states", weights_only=False))
        assert [draws() for _ in range(700)] == expected


def test_states_are_those_of_the_block_also_from_outside() -> None:
    outer, own, other = random.getstate(), OwnGenerators(1), OwnGenerators(2)
    with own:
        draws()
    other.load_state_dict(own.state_dict())
    assert random.getstate() == outer
    found: list[list[float]] = []
    for each in (own, other):
        with each:
            found.append(draws())
    assert found[0] == found[1]


def test_another_bit_generator_of_numpy_is_left_as_it_is() -> None:
    with OwnGenerators(0):
        np.random.set_bit_generator(np.random.PCG64(3))  # pyright: ignore
        states = stored_states()
        np.random.normal()  # noqa: NPY002
        restore_states(states)
        assert isinstance(np.random.get_bit_generator(), np.random.PCG64)  # pyright: ignore


@pytest.mark.parametrize(
    "damage",
    [
        lambda states: states["python"].update(words=np.zeros(7, np.uint8)),
        lambda states: states["python"].update(position=625),
        lambda states: states["numpy"].update(words=np.zeros((4, 624), np.uint8)),
        lambda states: states.update(torch=np.zeros(3, np.uint8)),
        lambda states: states.update(torch=np.full_like(states["torch"], 255)),
    ],
)
def test_what_cannot_be_a_state_is_rejected(damage: Callable[[Any], Any]) -> None:
    with OwnGenerators(0):
        states = stored_states()
        damage(states)
        with pytest.raises(ValueError, match="global_generators"):
            restore_states(states)
