"""Composes configurations as the command line does."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from dqn_runner.config.schema import CONF

YAML_FILES = sorted(CONF.rglob("*.yaml"))


def compose_config(*overrides: str, conf: Path = CONF, with_hydra: bool = False) -> DictConfig:
    """The configuration of a command line; `conf` replaces the directory of the YAML files."""
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=with_hydra)


def choose(group: str, name: str) -> str:
    """The override that selects option `name` of `group`; a logger is selected alone."""
    return f"{group}=[{name}]" if group == "logging" else f"{group}={name}"


def file_id(path: Path) -> str:
    """A test id for a YAML file."""
    return str(path.relative_to(CONF).with_suffix(""))
