"""Options of config groups: each becomes the object that its Python dataclass describes."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import MISSING, OmegaConf

from dqn_runner.agent.config import DQNConfig
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.agent.losses.targets import DoubleTarget
from dqn_runner.agent.networks.architectures import Auto, Custom
from dqn_runner.agent.optimizers import Adam
from dqn_runner.agent.schedules import Constant
from dqn_runner.config.command_line import long_form
from dqn_runner.config.overrides import parse_overrides
from dqn_runner.config.schema import CONF, apply_targets, check_keys, to_plain_config
from dqn_runner.core.registry import options, slots
from dqn_runner.envs.gym import GymEnv
from dqn_runner.training.callback_parts.stop_on_metric import StopOnMetric
from tests.support.composition import choose, compose_config
from tests.support.probes import compose_run


def option_id(value: Any) -> str | None:
    """A test id for the group and name of an option."""
    return "/".join(value) if isinstance(value, tuple) else None


@pytest.mark.parametrize(("cls", "place"), list(options().items()), ids=option_id)
def test_every_option_becomes_an_object_with_its_python_defaults(cls: type, place: tuple[str, str]) -> None:
    group, name = place
    path = group.replace("/", ".") + (f".{name}" if group in ("logging", "callbacks") else "")
    fields = dataclasses.fields(cls)
    required = {f.name: "given" for f in fields if isinstance(f.default, str) and f.default == MISSING}
    required |= {StopOnMetric: {"at_least": 1.0}}.get(cls, {})
    values = [f"{path}.{field}={value}" for field, value in required.items()]
    env = [] if group == "env" else ["env=gym"]  # without a reward_threshold, trainer.target_return is None

    cfg = compose_config(*env, choose(group, name), *values)
    part = instantiate(OmegaConf.select(cfg, path), _convert_="object")

    assert type(part) is cls
    assert part == cls(**required)


def test_parts_become_objects_and_lists_and_mappings_stay_plain() -> None:
    run = compose_run(["+env.kwargs.size={a: [1]}"])
    assert run.agent == DQNConfig()
    for name, default in slots(DQNConfig).items():
        assert type(getattr(run.agent, name)) is default
    values = (run.env.kwargs, run.env.kwargs["size"]["a"], run.env.wrappers)
    assert [type(value) for value in values] == [dict, list, list]


def test_a_part_of_a_part_can_be_chosen_and_its_settings_changed() -> None:
    run = compose_run(["agent/exploration/schedule=constant", "agent.exploration.schedule.value=0.1"])
    assert run.agent.exploration == EpsilonGreedy(schedule=Constant(value=0.1))


def test_double_dqn_differs_from_dqn_only_in_the_target() -> None:
    assert compose_run(["agent=double_dqn"]).agent == DQNConfig(loss=QLearning(target=DoubleTarget()))


def test_agent_seed_follows_seed_and_target_return_follows_the_reward_threshold_of_the_env() -> None:
    cfg = compose_config("seed=7", "env.reward_threshold=12.5")
    assert cfg.agent.seed == 7
    assert cfg.trainer.target_return == 12.5
    assert compose_config("env=gym").trainer.target_return is None


def test_a_custom_network_is_given_by_its_import_path_and_arguments() -> None:
    run = compose_run(
        ["agent/network=custom", "agent.network.target=my_pkg.Net", "+agent.network.kwargs.size=5"]
    )
    assert run.agent.network == Custom(target="my_pkg.Net", kwargs={"size": 5})


def test_every_config_gets_new_objects_for_its_default_parts() -> None:
    assert DQNConfig().loss is not DQNConfig().loss
    assert (DQNConfig().network, DQNConfig().optimizer) == (Auto(), Adam())


def test_env_target_becomes_the_env_id_and_keeps_the_other_settings() -> None:
    cfg = compose_config("env._target_=my_pkg.MyEnv", "env.num_envs=3", "+env.kwargs.size=5")
    apply_targets(cfg, [])
    env = instantiate(cfg.env, _convert_="object")
    threshold = env.reward_threshold
    assert env == GymEnv(id="my_pkg.MyEnv", num_envs=3, kwargs={"size": 5}, reward_threshold=threshold)


def composed_target(*command: str) -> Any:
    overrides = long_form(command)
    cfg = compose_config(*overrides)
    check_keys(cfg)
    apply_targets(cfg, {override.key_or_group for override in parse_overrides(overrides)})
    return cfg


def test_a_target_in_the_place_of_a_part_has_the_settings_of_the_command_only() -> None:
    cfg = composed_target("agent.loss._target_=my_pkg.MyLoss", "agent.loss.limit=3", "agent.loss.error=huber")
    assert cfg.agent.loss == {"_target_": "my_pkg.MyLoss", "limit": 3, "error": "huber"}
    assert cfg.agent.optimizer == compose_config().agent.optimizer


def test_a_target_keeps_a_part_that_the_command_chooses_for_it() -> None:
    parts = "agent/exploration/schedule=exponential", "agent.learning_rate_schedule._target_=my_pkg.Mine"
    cfg = composed_target("agent.exploration._target_=my_pkg.Mine", *parts)
    assert cfg.agent.exploration.schedule == compose_config(parts[0]).agent.exploration.schedule
    assert cfg.agent.learning_rate_schedule == {"_target_": "my_pkg.Mine"}
    nested = composed_target(
        "agent.exploration.schedule._target_=my_pkg.Mine", "agent.exploration.schedule.x=1"
    )
    assert nested.agent.exploration.schedule == {"_target_": "my_pkg.Mine", "x": 1}
    assert nested.agent.exploration._target_ == compose_config().agent.exploration._target_


def test_a_setting_that_no_part_has_is_an_unknown_key_without_a_target() -> None:
    with pytest.raises(ConfigCompositionException):
        composed_target("agent.loss.limit=3")
    with pytest.raises(ConfigCompositionException):
        composed_target("agent.loss._target_=my_pkg.MyLoss", "agent.optimizer.limit=3")


def test_an_option_of_a_file_keeps_its_settings_with_another_target(tmp_path: Path) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / "agent" / "loss").mkdir(exist_ok=True)
    (tmp_path / "conf" / "agent" / "loss" / "mine.yaml").write_text("_target_: my_pkg.Mine\nlimit: 3\n")
    overrides = ["agent/loss=mine", "agent.loss._target_=my_pkg.Other"]
    cfg = compose_config(*overrides, conf=tmp_path / "conf")
    apply_targets(cfg, {override.key_or_group for override in parse_overrides(overrides)})
    assert cfg.agent.loss == {"_target_": "my_pkg.Other", "limit": 3}


@pytest.mark.parametrize("overrides", [[], ["env=minatar"]], ids=["gym", "minatar"])
def test_a_configuration_without_an_env_target_is_not_changed(overrides: list[str]) -> None:
    cfg = compose_config(*overrides)
    before = to_plain_config(cfg)
    apply_targets(cfg, [])
    assert to_plain_config(cfg) == before
