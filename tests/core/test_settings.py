"""Settings: every field of every part rejects what no run could mean, in one line that names it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_type_hints

import numpy as np
import pytest

from dqn_runner import DQNConfig, TrainingConfig, UserError
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.losses.categorical import Categorical
from dqn_runner.agent.losses.q_learning import QLearning, TDError
from dqn_runner.agent.losses.quantile import Quantile
from dqn_runner.agent.networks.architectures import Custom, Mlp
from dqn_runner.agent.optimizers import Adam
from dqn_runner.agent.schedules import Linear, LinearDecay
from dqn_runner.config.schema import RunConfig
from dqn_runner.core.registry import options, place_of
from dqn_runner.core.settings import check_settings, fit_to_budget
from dqn_runner.replay.prioritized import PrioritizedReplay
from dqn_runner.replay.uniform import UniformReplay
from dqn_runner.training.config import FrequencyUnit

REQUIRED = {Custom: {"target": "my_pkg.Net"}}
"""Settings without a default."""


def fields_of(*types: Any) -> list[Any]:
    """Every field of a part that accepts one of the types, as (class, name)."""
    found = [
        pytest.param(cls, field.name, id=f"{place_of(cls)}.{field.name}-{cls.__name__}")
        for cls in (*options(), RunConfig)
        for field in dataclasses.fields(cls)
        if any(str(kind) in str(get_type_hints(cls)[field.name]) for kind in types)
    ]
    assert found
    return found


def error_of(cls: type, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        cls(**REQUIRED.get(cls, {}) | settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("cls", "name"), fields_of("float'>", "float |"))
def test_a_number_that_is_not_finite_is_rejected(cls: type, name: str) -> None:
    for value in (math.nan, math.inf, -math.inf):
        assert error_of(cls, **{name: value}).startswith(f"{place_of(cls)}.{name} must be a finite number")


@pytest.mark.parametrize(("cls", "name"), fields_of("float'>", "float |", "<class 'int'>", "int |"))
def test_what_is_no_number_is_rejected(cls: type, name: str) -> None:
    key = f"{place_of(cls)}.{name}".removeprefix(".")
    for value in ("big", [1], {}, 1j, True, object()):
        message = error_of(cls, **{name: value})
        assert message.startswith((f"{key} must be an integer", f"{key} must be a number"))


@pytest.mark.parametrize(("cls", "name"), fields_of("<class 'int'>", "int |"))
def test_a_fraction_or_a_negative_number_in_the_place_of_a_count_is_rejected(cls: type, name: str) -> None:
    key = f"{place_of(cls)}.{name}".removeprefix(".")
    for value in (1.5, 2.0, np.float32(3)):
        assert " must be an integer" in error_of(cls, **{name: value})
    for value in (-1, -(10**30)):
        assert error_of(cls, **{name: value}).startswith(f"{key} must be ")


@pytest.mark.parametrize(("cls", "name"), fields_of("<class 'bool'>"))
def test_what_is_neither_true_nor_false_is_rejected(cls: type, name: str) -> None:
    for value in (1, "yes", None, 0.0):
        assert "must be true or false" in error_of(cls, **{name: value})


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (DQNConfig, {"batch_size": "big"}, "agent.batch_size must be an integer, got 'big'"),
        (DQNConfig, {"batch_size": 64.0}, "agent.batch_size must be an integer, got 64.0; write 64"),
        (TrainingConfig, {"max_steps": 1e5}, "must be an integer or null, got 100000.0; write 100000"),
        (DQNConfig, {"seed": 2**63}, "agent.seed must be "),
        (DQNConfig, {"gamma": 1.01}, "agent.gamma must be between 0 and 1, got 1.01"),
        (DQNConfig, {"loss": "quantile"}, "agent.loss must be a part, such as QLearning(), got 'quantile'"),
        (DQNConfig, {"loss": Quantile}, "agent.loss must be an object; write Quantile() instead of Quantile"),
        (DQNConfig, {"replay": None}, "agent.replay must be a part, such as UniformReplay(), got null"),
        (Adam, {"beta1": 2}, "agent.optimizer.beta1 must be at least 0 and below 1, got 2"),
        (Adam, {"eps": 0.0}, "agent.optimizer.eps must be above 0, got 0.0"),
        (Mlp, {"hidden": [64, 0]}, "agent.network.hidden[1] must be at least 1, got 0"),
        (Mlp, {"hidden": 64}, "agent.network.hidden must be a list, got 64; write [64]"),
        (Mlp, {"hidden": [64, "x"]}, "agent.network.hidden[1] must be an integer, got 'x'"),
        (Custom, {"target": "???"}, "agent.network.target must be given"),
        (QLearning, {"error": "hubert"}, "agent.loss.error must be one of huber, squared, got 'hubert'"),
        (TrainingConfig, {"frequency_unit": "hours"}, "must be one of episodes, steps, got 'hours'"),
        (Categorical, {"v_min": 1.0, "v_max": 1.0}, "agent.loss.v_min must be below v_max"),
        (UniformReplay, {"capacity": 10**400}, "agent.replay.capacity must be a finite number"),
    ],
)
def test_the_line_names_the_setting_and_what_it_accepts(
    cls: type, settings: dict[str, Any], message: str
) -> None:
    assert message in error_of(cls, **settings)


def test_equivalent_values_become_those_of_the_annotated_type() -> None:
    config = DQNConfig(batch_size=np.int64(32), gamma=np.float32(0.5), learning_rate=1)  # pyright: ignore[reportArgumentType]
    assert (type(config.batch_size), type(config.gamma)) == (int, float)
    assert config.learning_rate == 1
    assert Mlp(hidden=(8, 8)).hidden == [8, 8]  # pyright: ignore[reportArgumentType]
    assert QLearning(error="squared").error is TDError.squared  # pyright: ignore[reportArgumentType]
    assert TrainingConfig(frequency_unit="steps").frequency_unit is FrequencyUnit.steps  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(kw_only=True)
class MyLoss:
    """A part of a user, which is not registered."""

    power: float = 2.0
    kind: Any = None

    __post_init__ = check_settings


def test_the_settings_of_a_part_of_a_user_are_checked_under_its_name() -> None:
    assert error_of(MyLoss, power="x") == "MyLoss.power must be a number, got 'x'"
    assert MyLoss(kind=object()).power == 2.0


@pytest.mark.parametrize(
    ("max_steps", "expected"),
    [(None, (1000, 10_000, 100_000)), (100_000, (1000, 10_000, 100_000)), (5000, (500, 2500, 5000))],
)
def test_settings_that_follow_the_budget_fit_into_it(
    max_steps: int | None, expected: tuple[int, int, int]
) -> None:
    config = fit_to_budget(DQNConfig(replay=PrioritizedReplay()), max_steps)
    assert (config.learning_starts, config.exploration.schedule.steps, config.replay.beta_steps) == expected


def test_given_numbers_of_steps_do_not_follow_the_budget() -> None:
    config = DQNConfig(
        learning_starts=7,
        exploration=EpsilonGreedy(schedule=Linear(steps=8)),
        learning_rate_schedule=LinearDecay(steps=9),
    )
    assert fit_to_budget(config, 5) is config
