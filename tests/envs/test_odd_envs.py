"""Environments as people write them: broken ones are rejected in one line, unusual ones work."""

from __future__ import annotations

import logging
import math
import sys
import types
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from dqn_runner.core.exceptions import RunFailedError, UserError
from dqn_runner.envs.actions import MAX_JOINT_ACTIONS, action_space
from dqn_runner.envs.base import spec_of
from dqn_runner.envs.checked_env import CheckedEnv, make_env
from dqn_runner.envs.gym import GymEnv
from dqn_runner.envs.observation_check import ObservationCheck
from dqn_runner.envs.vector_env import VectorEnv
from dqn_runner.envs.worker import LocalWorker
from dqn_runner.training.evaluator import Evaluator
from tests.support.stepped import stepped

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (2, 3), np.uint8)
MASK = spaces.Box(0, 1, (4,), np.bool_)


class Odd(gymnasium.Env[Any, Any]):
    """Returns what it is given."""

    def __init__(
        self,
        space: Any = VECTOR,
        obs: Any = None,
        later: Any = None,
        reward: Any = 1.0,
        flags: tuple[Any, Any] = (False, False),
        info: Any = None,
        answer: Callable[[Any], Any] | None = None,
        first: Callable[[Any], Any] | None = None,
        action_space: Any = None,
    ) -> None:
        self.observation_space = space
        self.action_space = spaces.Discrete(2) if action_space is None else action_space
        self.obs = np.zeros(space.shape, space.dtype) if obs is None else obs
        self.later = self.obs if later is None else later
        self.values = (reward, *flags, {} if info is None else info)
        self.answer = answer or (lambda obs: (obs, *self.values))
        self.first = first or (lambda obs: (obs, {}))
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.first(self.obs)

    def step(self, action: Any) -> Any:
        self.actions.append(action)
        return self.answer(self.later)


class Nothing:
    """Stands for None, which the arguments of Odd use as 'not given'."""


def image(value: Any, dtype: Any) -> Any:
    return np.full((2, 3), value, dtype)


F32 = np.float32
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "floats in a uint8 space": (
        {"space": IMAGE, "obs": image(0.5, F32)},
        r"reset\(\) returned 0.5 \(float32\) as element \(0, 0\), which uint8 cannot hold, but its obs",
    ),
    "floats in a uint8 space, later": ({"space": IMAGE, "later": image(0.5, float)}, "step.. returned 0.5"),
    "negative in a uint8 space": ({"space": IMAGE, "obs": image(-5, int)}, "returned -5 .int64"),
    "too large for uint8": ({"space": IMAGE, "later": image(299, int)}, r"step\(\) returned 299 .int64"),
    "nan in a uint8 space": ({"space": IMAGE, "obs": image(np.nan, float)}, "returned nan"),
    "two in a bool space": ({"space": MASK, "obs": np.array([0, 1, 2, 0])}, "returned 2 .* as element .2"),
    "out of the range of float32": ({"obs": np.array([0, 1e39, 0])}, r"1e\+39 .* which float32 cannot hold"),
    "out of the range of float32, later": ({"later": np.array([0, 0, -1e100])}, r"-1e\+100"),
    "nan": ({"later": np.array([0, np.nan, 0], F32)}, r"returned nan \(float32\) as element \(1,\)"),
    "inf": ({"obs": np.array([np.inf, 0, 0], F32)}, "returned inf"),
    "inf in python floats": ({"obs": [0.0, -math.inf, 0.0]}, "returned -inf"),
    "no observation": ({"first": lambda _: (None, {})}, r"reset\(\) returned None, but"),
    "no observation, later": ({"answer": lambda _: (None, 1.0, False, False, {})}, r"step\(\) returned None"),
    "dictionary": ({"obs": {"a": np.zeros(3)}}, "returned a dict"),
    "tuple of arrays": ({"obs": (np.zeros(3), np.zeros(2))}, "returned a tuple"),
    "text": ({"obs": "left"}, "returned a str"),
    "texts": ({"obs": np.array(["a", "b", "c"])}, "returned an array of dtype <U1"),
    "complex numbers": ({"obs": np.zeros(3, complex)}, "returned an array of dtype complex128"),
    "objects": ({"obs": np.array([None, 1, 2])}, "returned an array of dtype object"),
    "another shape": ({"obs": np.zeros(4, F32)}, "shape .4,., but its .* of shape .3,"),
    "one number that would be broadcast": ({"later": np.zeros(1, F32)}, r"observation of shape \(1,\)"),
    "0-d array": ({"obs": np.array(1.0)}, r"observation of shape \(\)"),
    "number": ({"obs": 1.0}, r"observation of shape \(\)"),
    "transposed": ({"space": IMAGE, "obs": np.zeros((3, 2), np.uint8)}, r"observation of shape \(3, 2\)"),
    "four values": ({"answer": lambda obs: (obs, 1.0, False, {})}, "returned 4 values, as .* gym; .*shimmy"),
    "three values": ({"answer": lambda obs: (obs, 1.0, False)}, "returned 3 values .ndarray, float, bool"),
    "six values": ({"answer": lambda obs: (obs, 1.0, False, False, {}, 1)}, r"step\(\) returned 6 values"),
    "only an observation": ({"answer": lambda obs: obs}, r"step\(\) returned an array of shape \(3,\)"),
    "nothing": ({"answer": lambda _: None}, r"step\(\) returned None; step\(\) must return"),
    "reset without info": ({"first": lambda obs: obs}, r"reset\(\) returned an array of shape \(3,\); reset"),
    "reset without info, of two numbers": (
        {"space": spaces.Box(-1, 1, (2,)), "first": lambda _: (0.5, 0.5)},
        r"reset\(\) returned 2 values \(float, float\); reset\(seed=..., options=...\) must return",
    ),
    "reset returns nothing": ({"first": lambda _: None}, r"reset\(\) returned None"),
    "reset with info None": ({"first": lambda obs: (obs, None)}, "reset.. returned 2 values"),
    "reward None": ({"answer": lambda obs: (obs, None, False, False, {})}, "None as reward; it must be"),
    "reward nan": ({"reward": math.nan}, "returned nan as reward"),
    "reward inf": ({"reward": np.float32("inf")}, "as reward"),
    "reward beyond float32": ({"reward": 1e300}, r"1e\+300 as reward; .* number that float32 can hold"),
    "reward of numpy beyond float32": ({"reward": np.float64(-1e39)}, "number that float32 can hold"),
    "life lost of several": ({"info": {"life_lost": np.zeros(3)}}, "life_lost.*it must be True or False"),
    "life lost text": ({"info": {"life_lost": "no"}}, "returned 'no' as info"),
    "reward text": ({"reward": "1.5"}, "returned '1.5' as reward"),
    "reward of several": ({"reward": np.zeros(2)}, r"returned an array of shape \(2,\) as reward"),
    "reward dictionary": ({"reward": {"a": 1.0}}, "as reward"),
    "reward complex": ({"reward": 1j}, "returned 1j as reward"),
    "terminated None": ({"flags": (None, False)}, "returned None as terminated; it must be True or False"),
    "truncated None": ({"flags": (False, None)}, "returned None as truncated"),
    "terminated text": ({"flags": ("no", False)}, "returned 'no' as terminated"),
    "terminated of several": ({"flags": (np.zeros(2, bool), False)}, "as terminated"),
    "truncated info": ({"flags": (False, {})}, "as truncated"),
    "terminated 2": ({"flags": (2, False)}, "returned 2 as terminated"),
    "info None": ({"answer": lambda obs: (obs, 1.0, False, False, None)}, "returned None as info, not a"),
    "info list": ({"info": [1]}, "as info, not a dictionary"),
}  # fmt: skip


def seeds(_env: int, episode: int) -> int:
    return episode


@pytest.mark.parametrize("case", BROKEN)
def test_broken_env_is_rejected_in_one_line_in_training_and_evaluation(case: str) -> None:
    kwargs, message = BROKEN[case]
    with pytest.raises(UserError, match=message) as caught:
        VectorEnv([LocalWorker(Odd(**kwargs), 0)], seeds, 9).step([0])
    assert "Odd" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=message):
        Evaluator(Odd(**kwargs), lambda _: 0, 2).run(lambda obs: np.zeros(len(obs), np.int64), 1)


class Raising(Odd):
    """Its observation space cannot be asked for, and its spec is none."""

    spec: Any = "abc"

    @property
    def observation_space(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise RuntimeError("not yet")

    @observation_space.setter
    def observation_space(self, space: Any) -> None: ...


def test_a_space_that_raises_is_reported_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^Raising: its observation_space raised RuntimeError: not yet; set"):
        VectorEnv([LocalWorker(Raising(), 0)], seeds, 9)


def no_env() -> None: ...


def two_envs() -> Any:
    return gymnasium.make_vec("CartPole-v1", num_envs=2)


def not_an_env() -> Any:
    return types.SimpleNamespace(observation_space=MASK)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_env, "makes None, not an environment; its class must be a gymnasium.Env$"),
        (not_an_env, "makes a SimpleNamespace, not an environment"),
        (two_envs, "makes a vector environment .*; let it make a single one, and set env.num_envs$"),
    ],
)
def test_what_a_function_makes_must_be_an_environment(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GymEnv(id=f"{__name__}:{make.__name__}").make()


ACCEPTED: dict[str, dict[str, Any]] = {
    "outside of a float space": {"obs": np.array([5, -5, 1e30])},
    "python floats": {"obs": [0.5, 0.25, 1]},
    "tuple of floats": {"obs": (0.5, 0.25, 1.0)},
    "integers in a float space": {"obs": np.array([1, 0, -1])},
    "float16": {"obs": np.zeros(3, np.float16)},
    "large, but finite": {"obs": np.array([3e38, 3e38, 3e38])},
    "int64 in a uint8 space": {"space": IMAGE, "obs": image(255, int)},
    "whole floats in a uint8 space": {"space": IMAGE, "obs": image(17.0, float)},
    "zero and one in a bool space": {"space": MASK, "obs": np.array([0, 1, 1, 0])},
    "not contiguous": {"space": spaces.Box(-9, 9, (2, 3)), "obs": np.arange(6.0).reshape(3, 2).T},
    "reward of an array of one": {"reward": np.array([1.0])},
    "reward of a numpy scalar": {"reward": np.float32(1.0)},
    "reward int": {"reward": 1},
    "life not lost": {"info": {"life_lost": None}},
    "life lost of numpy": {"info": {"life_lost": np.bool_(True)}},
    "reward bool": {"reward": True},
    "numpy flags": {"flags": (np.bool_(False), np.array([False]))},
    "flags of integers": {"flags": (0, np.int64(0))},
    "list of five": {"answer": lambda obs: [obs, 1.0, False, False, {}]},
    "another mapping as info": {"info": types.MappingProxyType({})},
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_converts_without_loss_is_accepted(case: str) -> None:
    env = Odd(**ACCEPTED[case])
    envs = VectorEnv([LocalWorker(env, 0)], seeds, 9)
    result = stepped(envs, [0])
    assert result.reward == [1.0]
    assert (type(result.reward[0]), type(result.terminated[0]), type(result.truncated[0])) == (
        float,
        bool,
        bool,
    )
    assert result.next_obs[0].tolist() == np.asarray(env.obs).astype(envs.spec.obs_dtype).tolist()


@given(st.lists(st.integers(-300, 600) | st.floats(-10, 300), min_size=3, max_size=3))
def test_an_observation_is_stored_exactly_or_rejected(values: list[float]) -> None:
    space = spaces.Box(0, 255, (3,), np.uint8)
    check = ObservationCheck("Odd", space, spec_of(Odd(space=space))).check
    if all(0 <= value <= 255 and value == int(value) for value in values):
        assert check(values, "step").tolist() == values
    else:
        with pytest.raises(UserError):
            check(values, "step")


class TestSpaces:
    @pytest.mark.parametrize(
        ("space", "message"),
        [
            (
                spaces.Box(-1, 1, ()),
                r"of shape \(\); a network needs at least one axis. env.flatten_observation",
            ),
            (spaces.Box(-1, 1, (0,)), r"of shape \(0,\)"),
            (spaces.Discrete(3), "must be a Box"),
            (None, r"Odd has no observation_space; set self.observation_space"),
        ],
        ids=str,
    )
    def test_unusable_observation_space_is_rejected(self, space: Any, message: str):
        env = Odd()
        env.observation_space = space
        with pytest.raises(UserError, match=message):
            spec_of(env)

    def test_missing_spaces_are_named(self):
        class Bare(gymnasium.Env[Any, Any]):
            pass

        with pytest.raises(UserError, match="Bare has no observation_space"):
            spec_of(Bare())
        env = Odd()
        env.action_space = None
        with pytest.raises(UserError, match="Odd has no action_space"):
            spec_of(env)

    def test_env_of_the_old_gym_gets_a_line_that_says_how_to_wrap_it(self):
        old = type("Box", (), {"__module__": "gym.spaces.box"})

        class OldEnv:
            observation_space, action_space = old(), old()

        with pytest.raises(UserError, match=r"OldEnv is an environment of the old gym.*GymV26Environment-v0"):
            spec_of(OldEnv())

    def test_env_that_does_not_subclass_gymnasium_works(self):
        class Duck:
            observation_space, action_space = VECTOR, spaces.Discrete(2)

            def reset(self, seed: int | None = None, options: Any = None) -> Any:
                return np.zeros(3, np.float32), {}

        assert CheckedEnv(Duck()).reset(3).tolist() == [0, 0, 0]


class TestMethods:
    @pytest.mark.parametrize("argument", ["seed", "options"])
    def test_reset_that_does_not_accept_an_argument_is_named(self, argument: str):
        env = Odd()
        other = {"seed": "options", "options": "seed"}[argument]
        exec(f"def reset(*, {other}=None): return 1", scope := {})
        env.reset = scope["reset"]  # type: ignore[method-assign]
        if argument == "options":
            env = gymnasium.wrappers.TransformObservation(env, lambda obs: obs, VECTOR)
        with pytest.raises(UserError, match=rf"Odd: reset\(\) does not accept {argument}; reset\(seed="):
            CheckedEnv(env).reset(0)

    def test_error_in_the_first_reset_is_one_line_with_env_method_and_exception(self):
        def fail(_: Any) -> Any:
            raise ValueError("the map is missing")

        with pytest.raises(
            RunFailedError, match=r"Odd: the first reset\(\) raised ValueError: the map is mis"
        ):
            VectorEnv([LocalWorker(Odd(first=fail), 0)], seeds, 9)

    def test_error_in_the_constructor_is_one_line(self, monkeypatch: pytest.MonkeyPatch):
        module = types.ModuleType("odd_module")

        def make() -> Any:
            raise ValueError("no display")

        module.make = make  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "odd_module", module)
        with pytest.raises(
            RunFailedError, match="environment odd_module:make could not be created: ValueError"
        ):
            make_env(GymEnv(id="odd_module:make"), 0)

    @pytest.mark.parametrize(
        ("raised", "text"),
        [
            (OSError("already closed"), "OSError: already closed"),
            (SystemExit(0), "UnexpectedExit: SystemExit(0)"),
        ],
    )
    def test_close_that_raises_is_only_reported(
        self, caplog: pytest.LogCaptureFixture, raised: BaseException, text: str
    ):
        env = Odd()

        def close() -> None:
            raise raised

        env.close = close  # type: ignore[method-assign]
        with caplog.at_level(logging.WARNING, "dqn_runner"):
            VectorEnv([LocalWorker(env, 0)], seeds, 9).close()
            Evaluator(env, lambda _: 0, 2).close()
        assert len(caplog.messages) == 2
        assert text.partition(":")[2] in caplog.messages[0]

    def test_the_spaces_may_be_those_of_a_wrapper_alone(self):
        class Bare(gymnasium.Env[Any, Any]):
            def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
                return np.zeros(2, np.float32), {}

        class Outer(gymnasium.Wrapper[Any, Any, Any, Any]):
            observation_space = spaces.Box(-1, 1, (2,), np.float32)
            action_space = spaces.Discrete(2)

        assert CheckedEnv(Outer(Bare())).reset(3).tolist() == [0, 0]

    def test_an_environment_may_sample_from_its_spaces(self):
        """Its spaces are seeded with each episode; gymnasium seeds them from the system."""
        drawn: list[list[int]] = []
        for _ in range(2):
            env = CheckedEnv(gymnasium.make("CartPole-v1"))
            found: list[int] = []
            for seed in (3, 4, 3):
                env.reset(seed)
                found += [int(env.env.action_space.sample()) for _ in range(20)]
                found += [int(1e6 * x) for x in env.env.unwrapped.observation_space.sample()[[0, 2]]]
            drawn.append(found)
            assert found[:22] == found[44:]
        assert drawn[0] == drawn[1]


ACTION_SPACES = [
    spaces.Discrete(3),
    spaces.Discrete(3, start=-1),
    spaces.Discrete(5, start=10, dtype=np.int8),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([2, 3], start=[5, -1]),
    spaces.MultiDiscrete(np.array([[2, 3], [1, 2]]), dtype=np.int32),
    spaces.MultiBinary(3),
    spaces.MultiBinary((2, 2)),
]


class TestActions:
    @pytest.mark.parametrize("space", ACTION_SPACES, ids=lambda space: " ".join(str(space).split()))
    def test_each_number_is_another_action_of_the_space_with_its_type(self, space: Any):
        found = action_space(space, "Odd")
        convert = found.converter()
        actions = [convert(number) for number in range(found.num_actions)]
        assert all(space.contains(action) and action.dtype == space.dtype for action in actions)
        assert len({str(np.asarray(action).tolist()) for action in actions}) == len(actions)
        if isinstance(space, spaces.Discrete):
            assert [action.item() for action in actions] == list(range(space.start, space.start + space.n))
            assert all(isinstance(action, np.integer) for action in actions)

    @pytest.mark.parametrize("space", ACTION_SPACES, ids=lambda space: " ".join(str(space).split()))
    def test_env_gets_its_own_actions_and_the_state_counts_from_zero(self, space: Any):
        env = Odd(action_space=space)
        envs = VectorEnv([LocalWorker(env, 0)], seeds, 99)
        for number in range(envs.spec.num_actions):
            envs.step([number])
        assert all(space.contains(action) for action in env.actions)
        assert envs.state_dict()["episodes"][0]["actions"].tolist() == list(range(envs.spec.num_actions))
        found: list[Any] = []
        env.answer = lambda obs: (found.append(env.actions[-1]), (obs, 1.0, False, False, {}))[1]
        Evaluator(env, lambda _: 0, 3).run(lambda obs: np.ones(len(obs), np.int64), 1)
        assert all(space.contains(action) for action in found)

    def test_env_may_change_the_action_it_gets(self):
        convert = action_space(spaces.MultiBinary(2), "Odd").converter()
        convert(3)[:] = 0
        assert convert(3).tolist() == [1, 1]

    def test_a_space_without_choices_is_rejected(self):
        with pytest.raises(UserError, match=r"^the action space MultiDiscrete\(\[\]\) of Odd has no choices"):
            spec_of(Odd(action_space=spaces.MultiDiscrete([])))

    @pytest.mark.parametrize(
        "space", [spaces.MultiBinary(13), spaces.MultiDiscrete([100, 100]), spaces.Discrete(10**9)], ids=str
    )
    def test_too_many_combinations_are_rejected_in_one_line(self, space: Any):
        with pytest.raises(
            UserError, match=rf"of Odd has \d+ actions, .*at most {MAX_JOINT_ACTIONS}"
        ) as caught:
            spec_of(Odd(action_space=space))
        assert "\n" not in str(caught.value)
