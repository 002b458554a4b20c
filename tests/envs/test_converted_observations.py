"""Observations that a wrapper flattens, selects or stacks are converted without loss, or rejected."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from dqn_runner.core.exceptions import UserError
from dqn_runner.envs.wrappers.observations import flatten, select_entries, stack_frames

BYTES = spaces.Box(0, 255, (2, 3), np.uint8)
FLOATS = spaces.Box(0, 1, (2, 3), np.float32)
NAMES = spaces.Text(4, charset="abc")


class Answers(gymnasium.Env[Any, Any]):
    """Returns `first` at the reset and `later` at each step."""

    def __init__(self, space: Any, first: Any, later: Any) -> None:
        self.observation_space, self.action_space = space, spaces.Discrete(2)
        self.first, self.later = first, later

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.first, {}

    def step(self, action: Any) -> Any:
        return self.later, 0.0, False, False, {}


def of_dict(convert: Callable[[Any], Any], space: Any, good: Any, bad: Any) -> Any:
    """The converted environment whose observation has the entry `x`, which is wrong at each step."""
    both = spaces.Dict({"x": space, "y": FLOATS})
    other = {"y": np.zeros((2, 3), np.float32)}
    return convert(Answers(both, {"x": good, **other}, {"x": bad, **other}))


CONVERSIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "flattened": lambda *case: flatten(Answers(*case)),
    "flattened Dict": lambda *case: of_dict(flatten, *case),
    "joined": lambda *case: of_dict(lambda env: select_entries(env, ["y", "x"]), *case),
    "stacked": lambda *case: stack_frames(Answers(*case), 2),
    "stacked Dict": lambda *case: of_dict(lambda env: stack_frames(env, 2), *case),
}
BAD: dict[str, tuple[Any, Any, Any, str]] = {
    "fractions in uint8": (
        BYTES,
        np.zeros((2, 3), np.uint8),
        np.full((2, 3), 0.5),
        "0.5, which is not a value",
    ),
    "beyond uint8": (BYTES, np.zeros((2, 3), np.uint8), np.full((2, 3), 300), "300, which is not a value"),
    "negative in uint8": (BYTES, np.zeros((2, 3), int), np.full((2, 3), -1), "-1, which is not a value"),
    "fractions in int32": (
        spaces.Box(0, 9, (2,), np.int32),
        np.zeros(2, int),
        np.array([1, 1.5]),
        "1.5, which int32 cannot hold",
    ),
    "nan in int32": (spaces.Box(0, 9, (2,), np.int32), np.zeros(2, int), np.array([1, np.nan]), "nan, which"),
    "another shape": (FLOATS, np.zeros((2, 3)), np.zeros((3, 2)), r"shape \(3, 2\) instead of \(2, 3\)"),
    "infinity": (FLOATS, np.zeros((2, 3)), np.full((2, 3), np.inf), "inf, which is not a finite number"),
    "None": (FLOATS, np.zeros((2, 3)), None, "None"),
    "fractions in bool": (
        spaces.MultiBinary(2),
        np.zeros(2),
        np.array([0.5, 1]),
        "0.5, which is not a value",
    ),
    "two in bool": (spaces.MultiBinary(2), np.ones(2), np.array([0, 2]), "2, which is not a value"),
    "negative category": (spaces.Discrete(3), 2, -1, "-1, which is not one of the categories"),
    "category too large": (spaces.Discrete(3, start=5), 7, 8, "8, which is not one of the categories"),
    "negative categories": (spaces.MultiDiscrete([3, 4]), [2, 3], [-1, -6], "-1, which is not one of"),
    "text for a category": (spaces.Discrete(3), 1, "left", "a str"),
}


@pytest.mark.parametrize(
    ("case", "conversion"),
    [
        (case, conversion)
        for case, conversion in itertools.product(BAD, CONVERSIONS)
        if conversion != "stacked"
        or isinstance(BAD[case][0], spaces.Box)  # others are stacked in a Dict only
    ],
)
def test_what_a_conversion_would_change_is_rejected(case: str, conversion: str) -> None:
    space, good, bad, message = BAD[case]
    env = CONVERSIONS[conversion](space, good, bad)
    env.reset()
    where = "whose entry 'x' has" if conversion in ("flattened Dict", "joined", "stacked Dict") else "with"
    with pytest.raises(UserError, match=f"^Answers returned an observation {where} .*{message}"):
        env.step(0)


@pytest.mark.parametrize("text", ["abz", "abcab", 3, None])
def test_text_outside_of_its_space_is_rejected(text: Any) -> None:
    env = flatten(Answers(NAMES, "ab", text))
    env.reset()
    with pytest.raises(UserError, match="which is not in Text"):
        env.step(0)


@pytest.mark.parametrize(
    "convert",
    [
        flatten,
        lambda env: stack_frames(env, 3),
        lambda env: select_entries(env, ["x"]),
        lambda env: select_entries(env, ["x", "y"]),
    ],
)
@pytest.mark.parametrize("bad", [{"y": np.zeros((2, 3))}, np.zeros((2, 3)), None])
def test_missing_entry_is_named(convert: Any, bad: Any) -> None:
    good = {"x": np.zeros((2, 3)), "y": np.zeros((2, 3))}
    env = convert(Answers(spaces.Dict({"x": FLOATS, "y": FLOATS}), good, bad))
    env.reset()
    with pytest.raises(
        UserError, match=r"^Answers returned an observation (without the key 'x'|that is not)"
    ):
        env.step(0)


SPACES = [
    BYTES,
    FLOATS,
    spaces.Box(-9, 9, (3,), np.int64),
    spaces.Box(0, 1, (3,), np.float64),
    spaces.Discrete(4, start=-2),
    spaces.MultiDiscrete([3, 4], start=[1, 0]),
    spaces.MultiBinary([2, 2]),
    NAMES,
    spaces.OneOf([spaces.Discrete(2), spaces.Box(0, 1, (2,))]),
    spaces.Tuple([BYTES, spaces.Dict({"a": spaces.Discrete(3), "b": FLOATS})]),
]


@settings(max_examples=60, deadline=None)
@given(space=st.sampled_from(SPACES), seed=st.integers(0, 2**31))
def test_observations_of_the_space_are_flattened_as_gymnasium_does(space: Any, seed: int) -> None:
    space.seed(seed)
    obs = space.sample()
    flat, _ = flatten(Answers(space, obs, obs)).reset()
    assert np.array_equal(flat, spaces.flatten(space, obs))


def test_stacked_numbers_of_another_dtype_are_accepted_if_they_fit() -> None:
    """gymnasium cannot put Python's integers into a stack of uint8."""
    env = stack_frames(Answers(BYTES, np.full((2, 3), 7), np.full((2, 3), 255.0)), 2)
    env.reset()
    stacked = env.step(0)[0]
    assert stacked.dtype == np.uint8
    assert stacked.tolist() == [[[7] * 3] * 2, [[255] * 3] * 2]
