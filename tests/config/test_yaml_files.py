"""The YAML files in conf/: each composes to a run, and states only values that differ from the defaults."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from dqn_runner.agent.config import DQNConfig
from dqn_runner.config.build import build_agent
from dqn_runner.config.schema import CONF, RunConfig, fit_defaults
from dqn_runner.run.compatibility import leaves
from dqn_runner.training import checks
from dqn_runner.training.config import TrainingConfig
from tests.conftest import Outcome
from tests.support.composition import YAML_FILES, choose, compose_config, file_id

RECIPES = [path.stem for path in YAML_FILES if path.parent.name == "experiment"]


@pytest.mark.parametrize("path", [p for p in YAML_FILES if p.parent != CONF], ids=file_id)
def test_every_yaml_file_of_a_group_composes_to_a_run(path: Path) -> None:
    group = path.parent.relative_to(CONF).as_posix()
    run = instantiate(compose_config(choose(group, path.stem)), _convert_="object")
    assert isinstance(run, RunConfig)
    assert isinstance(run.agent, DQNConfig)
    assert isinstance(run.trainer, TrainingConfig)


@pytest.mark.parametrize("path", YAML_FILES, ids=file_id)
def test_no_yaml_file_restates_a_value_that_holds_without_it(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    values = OmegaConf.load(path)
    assert isinstance(values, DictConfig)
    own: dict[str, Any] = OmegaConf.to_container(values)  # pyright: ignore[reportAssignmentType]
    defaults = own.pop("defaults", [])
    package = re.search(r"^# @package (\S+)", text, flags=re.MULTILINE)
    group = path.parent.relative_to(CONF).as_posix()
    if path.parent == CONF or (package and package[1] == "_global_"):
        package_path: list[str] = []
    else:
        package_path = (package[1] if package else group.replace("/", ".")).split(".")
    without = tmp_path / "conf"
    shutil.copytree(CONF, without)
    header = f"# @package {package[1]}\n" if package else ""
    stripped = header + OmegaConf.to_yaml(OmegaConf.create({"defaults": defaults}))
    (without / path.relative_to(CONF)).write_text(stripped)

    overrides = [] if path.parent == CONF else [choose(group, path.stem)]
    cfg = compose_config(*overrides, conf=without, with_hydra=True)

    values_without = leaves(OmegaConf.to_container(cfg, enum_to_str=True))  # pyright: ignore[reportArgumentType]
    for leaf, value in leaves(own).items():
        key = (*package_path, *leaf)
        assert values_without.get(key, ...) != value, f"{path.name} restates {'.'.join(key)}: {value}"


@pytest.mark.filterwarnings("ignore:builtin type .* has no __module__:DeprecationWarning")  # Box2D's SWIG
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_passes_the_checks_for_its_env(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "available_memory", lambda: 2**40)  # independent of this machine
    cfg = compose_config(f"experiment={name}")
    fit_defaults(cfg)
    run = instantiate(cfg, _convert_="object")
    spec = build_agent(run.agent, run.env).spec
    assert run.agent.seed == cfg.seed
    checks.check(run.agent, spec, run.trainer, spec)


def test_a_command_line_override_takes_precedence_over_a_recipe() -> None:
    cfg = compose_config(f"experiment={RECIPES[0]}", "agent.learning_rate=0.125")
    assert cfg.agent.learning_rate == 0.125


def test_the_defaults_list_of_a_file_can_refer_to_another_choice(
    tmp_path: Path, program: Callable[..., Outcome]
) -> None:
    (tmp_path / "mine" / "tuned").mkdir(parents=True)
    (tmp_path / "mine" / "lab.yaml").write_text("defaults:\n  - config\n  - tuned: for_${env}\n  - _self_\n")
    for env, gamma in (("cartpole", 0.5), ("acrobot", 0.25)):
        content = f"# @package _global_\nagent:\n  gamma: {gamma}\n"
        (tmp_path / "mine" / "tuned" / f"for_{env}.yaml").write_text(content)
    command = ["--config-dir=mine", "--config-name=lab", "--cfg=job", "--package=agent"]
    assert "gamma: 0.5" in program(*command).out
    assert "gamma: 0.25" in program(*command, "env=acrobot").out
