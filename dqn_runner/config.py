"""The root of the configuration tree. Importing this module registers every part with Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from dqn_runner import agent, envs, evaluator, trackers, training
from dqn_runner.registry import import_path, store_root

PART = "_target_"


class Mode(Enum):
    """What the program does with the configuration."""

    train = "train"
    eval = "eval"


@dataclass(kw_only=True)
class RunConfig:
    """Everything a run is a function of."""

    mode: Mode = Mode.train
    """`train`, or `eval` to evaluate `checkpoint`."""
    seed: int = 0
    """Everything random derives from it; `agent.seed` follows it."""
    threads: int = 1
    """Torch threads; small networks are fastest with one."""
    resume: str | None = None
    """A checkpoint, or a run directory for its latest: go on in its directory with its configuration."""
    checkpoint: str | None = None
    """For mode=eval: a checkpoint, or a run directory for its latest."""
    agent: Any = MISSING
    """What learns: network, loss, exploration, optimizer, replay."""
    env: Any = MISSING
    """Where it acts."""
    trainer: Any = MISSING
    """How long, and how often to evaluate, save and log."""
    evaluator: Any = MISSING
    """How mode=eval evaluates."""
    logging: dict[str, Any] = field(default_factory=dict[str, Any])
    """Where records go: one entry per logger."""


PART_MODULES = (agent, envs, evaluator, trackers, training)
"""Importing them registers every part; the agent's own parts come with the agent."""

store_root("base_config", RunConfig)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain dicts and values, as checkpoints keep it."""
    return OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)  # pyright: ignore[reportReturnType]


def accept_env_target(cfg: DictConfig) -> None:
    """`env._target_=my_pkg.MyEnv` on a gym environment names a class to make; hand it on as `env.id`."""
    gym = import_path(envs.GymEnv)
    if OmegaConf.get_type(cfg.env) and "kwargs" in cfg.env and cfg.env[PART] != gym:
        cfg.env.id, cfg.env[PART] = cfg.env[PART], gym


Leaf = tuple[str, ...]


def leaves(config: Mapping[str, Any], prefix: Leaf = ()) -> dict[Leaf, Any]:
    """Every value of a plain configuration by its path; empty mappings count as values."""
    found: dict[Leaf, Any] = {}
    for key, value in config.items():
        path = (*prefix, key)
        if isinstance(value, Mapping) and value:
            found.update(leaves(value, path))  # pyright: ignore[reportUnknownArgumentType]
        else:
            found[path] = value
    return found
