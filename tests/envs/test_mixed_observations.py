"""Dict and Tuple observations: which spaces are accepted, and what environments may return."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.observation_layout import Entry
from dqn_runner.envs.base import spec_of
from dqn_runner.envs.checked_env import CheckedEnv
from dqn_runner.envs.gym import GymEnv
from dqn_runner.envs.mixed_observations import batch_size, layout_of, pack
from dqn_runner.envs.stored_spaces import load_spaces, store_spaces
from tests.support.mixed import Answers, Keys, Stacked

BOX = spaces.Box(-1, 1, (2,), np.float32)
TWO = spaces.Dict({"a": BOX, "b": spaces.Discrete(3)})
GOOD = {"a": np.zeros(2, np.float32), "b": 1}
MIXED = "tests.support.mixed"


def entries(space: Any) -> dict[str, Entry]:
    return {entry.name: entry for entry in layout_of(space, "Env").entries}


def test_entries_are_stored_in_the_smallest_dtype_that_holds_them() -> None:
    space = spaces.Dict(
        {
            "byte": spaces.Box(0, 4, (2,), np.uint8),
            "double": spaces.Box(0, 1, (2,), np.float64),
            "integers": spaces.Box(0, 9, (2,), np.int64),
            "few": spaces.Discrete(256),
            "some": spaces.Discrete(257),
            "many": spaces.Discrete(40_000, start=-7),
            "choices": spaces.MultiDiscrete([3, 300], start=[1, 2]),
            "bits": spaces.MultiBinary((2, 2)),
            "flag": spaces.Box(0, 1, (1,), np.bool_),
        }
    )
    found = entries(space)
    dtypes = {name: entry.dtype for name, entry in found.items()}
    assert dtypes == {
        "byte": "uint8", "double": "float32", "integers": "float32", "few": "uint8", "some": "int16",
        "many": "int32", "choices": "int16", "bits": "bool", "flag": "bool",
    }  # fmt: skip
    assert found["byte"].divisor == 4
    assert (found["many"].sizes, found["many"].start) == ((40_000,), (-7,))
    assert (found["choices"].sizes, found["choices"].start) == ((3, 300), (1, 2))


def test_names_of_nested_entries_are_joined_by_dots() -> None:
    nested = spaces.Dict({"a/b": BOX, "c": spaces.Dict({"d": BOX}), "e": spaces.Tuple([BOX, TWO])})
    assert set(entries(nested)) == {"a/b", "c.d", "e.0", "e.1.a", "e.1.b"}
    assert set(entries(spaces.Tuple([BOX, spaces.Discrete(2)]))) == {"0", "1"}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Dict({}), "without entries"),
        (spaces.Dict({"a": spaces.Dict({})}), "without entries"),
        (
            spaces.Dict({"a": BOX, "b": spaces.Box(0, 1, (0, 3))}),
            r"b \(Box\); .*env\.observation_keys=\[a\]$",
        ),
        (spaces.Dict({"a": spaces.Text(5)}), r"a \(Text\)$"),
        (spaces.Dict({"a": BOX, "b": BOX, "t": spaces.Text(5)}), r"\[a,b\] and agent/network=multi_input"),
        (spaces.Dict({"a": spaces.Sequence(BOX)}), r"a \(Sequence\)"),
        (
            spaces.Dict({"a.b": BOX, "a": spaces.Dict({"b": BOX})}),
            "two observation entries with the name 'a.b'",
        ),
        (spaces.Dict({"a": spaces.Discrete(2**40)}), r"a \(Discrete\)"),
    ],
)
def test_spaces_without_a_layout_are_rejected_in_one_line(space: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        spec_of(Answers(space))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"a": GOOD["a"]}, "without the key 'b'"),
        ({**GOOD, "c": 1}, "with the unknown key 'c'"),
        ({**GOOD, "b": 3}, "whose entry 'b' has 3, which is not one of the categories"),
        ({**GOOD, "a": np.zeros(3)}, r"whose entry 'a' has shape \(3,\)"),
        ({**GOOD, "a": np.full(2, np.inf)}, "whose entry 'a' has inf, which is not a finite"),
        (np.zeros(3), "that is not a dictionary: ndarray"),
        (None, "that is not a dictionary: NoneType"),
    ],
)
def test_answers_that_do_not_fit_are_rejected_in_one_line(answer: Any, message: str) -> None:
    env = CheckedEnv(Answers(TWO, GOOD, answer))
    env.reset(0)
    with pytest.raises(UserError, match=rf"Answers: step\(\) returned an observation {message}"):
        env.step(0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"x": (np.zeros(2),)}, "without the element 'x.1'"),
        ({"x": (np.zeros(2), 0, 0)}, "with 3 elements in 'x'"),
        ({"x": {"0": 1}}, "without the key 'x.0'"),
    ],
)
def test_tuples_of_another_length_are_rejected(answer: Any, message: str) -> None:
    space = spaces.Dict({"x": spaces.Tuple([BOX, spaces.Discrete(2)])})
    with pytest.raises(UserError, match=message):
        CheckedEnv(Answers(space, answer)).reset(0)


def test_keys_of_a_dict_may_be_numbers() -> None:
    space = spaces.Dict({1: BOX, 2: spaces.Discrete(3)})  # pyright: ignore[reportArgumentType]
    good = {1: np.ones(2, np.float32), 2: 2}
    env = CheckedEnv(Answers(space, good))
    assert set(entries(space)) == {"1", "2"}
    assert env.reset(0).tolist() == pack(layout_of(space, "Env"), good).tolist()
    with pytest.raises(UserError, match="without the key '2'"):
        CheckedEnv(Answers(space, {1: good[1]})).reset(0)


def test_the_order_of_keys_makes_no_difference() -> None:
    env = CheckedEnv(Answers(TWO, GOOD, dict(reversed(GOOD.items()))))
    assert env.reset(0).tolist() == env.step(0)[0].tolist()


def test_a_frame_stack_of_a_dict_stacks_rows() -> None:
    part = GymEnv(id=f"{MIXED}:Stacked", frame_stack=3)
    env = CheckedEnv(part.make())
    layout = env.spec.layout
    assert layout is not None
    assert (env.spec.frame_stack, env.spec.obs_shape) == (3, (3, layout.row_bytes))
    first, second = env.reset(0), env.step(0)[0]
    assert np.array_equal(first[1:], second[:2])
    single = CheckedEnv(Stacked())
    assert np.array_equal(single.reset(0), first[-1])
    assert np.array_equal(single.step(0)[0], second[-1])


def test_selected_keys_remain_a_dict_if_they_are_separate() -> None:
    part = GymEnv(id=f"{MIXED}:Keys", observation_keys=["image", "category"], separate_keys=True)
    layout = spec_of(part.make()).layout
    assert layout is not None
    assert {entry.name for entry in layout.entries} == {"image", "category"}
    part.separate_keys = None
    assert spec_of(part.make()).layout is None


class Talking(Answers):
    """Its observations have a text."""

    def __init__(self) -> None:
        space = spaces.Dict({"a": BOX, "mission": spaces.Text(99), "color": spaces.Discrete(2)})
        super().__init__(space, {"a": np.zeros(2), "mission": "Get the KEY, the red key!", "color": 1})


HERE = __name__


class Silent(Talking):
    """Declares a Dict with a text, and returns an array."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2), {}


@pytest.mark.parametrize(
    "settings",
    [
        {"vocabulary": {"mission": ["the"]}},
        {"observation_keys": ["a", "color"], "separate_keys": True},
    ],
)
def test_an_array_in_the_place_of_a_dict_is_rejected_behind_wrappers(settings: Any) -> None:
    env = CheckedEnv(GymEnv(id=f"{HERE}:Silent", **settings).make())
    with pytest.raises(UserError, match="that is not a dictionary: ndarray"):
        env.reset(0)


def test_texts_become_counts_of_words() -> None:
    part = GymEnv(id=f"{HERE}:Talking", vocabulary={"mission": ["the", "key", "blue"]})
    env = part.make()
    assert env.reset(seed=0)[0]["mission"].tolist() == [2, 2, 0, 2]
    assert env.step(0)[0]["color"] == 1
    layout = spec_of(env).layout
    assert layout is not None
    assert layout.entry_shapes["mission"] == (4,)


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ({"color": ["red"]}, "color is not a text entry of the observation; it has mission"),
        ({"goal": ["red"]}, "goal is not a text entry"),
        ({"mission": []}, "mission needs a list of different single words"),
        ({"mission": ["red key"]}, "different single words"),
        ({"mission": ["red", "RED"]}, "different single words"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_rejected(vocabulary: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GymEnv(id=f"{HERE}:Talking", vocabulary=vocabulary).make()


def test_batches_are_told_from_single_observations() -> None:
    layout = layout_of(TWO, "Env")
    batch = {"a": np.zeros((4, 2)), "b": np.array([0, 1, 2, 0])}
    assert (batch_size(layout, GOOD), batch_size(layout, batch)) == (None, 4)
    assert pack(layout, batch, (4,)).shape == (4, layout.row_bytes)


def test_stored_spaces_have_the_layout_and_reject_another() -> None:
    text = store_spaces(Keys())
    assert load_spaces(text).layout == spec_of(Keys()).layout
    changes = {
        '"frames": 1': '"frames": 0',
        '"uint8"': '"uint9"',
        '"name": "image"': '"name": "vector"',
        "[4]": "[0]",
        '"obs_shape"': '"obs_shapes"',
    }
    for one, two in changes.items():
        assert one in text
        with pytest.raises(ValueError, match=r"spaces|Object"):
            load_spaces(text.replace(one, two))
