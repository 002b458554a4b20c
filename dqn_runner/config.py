"""The root of the configuration tree. Importing this module registers every part with Hydra."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from dqn_runner import agent, atari, distributional, envs, evaluator, trackers, training
from dqn_runner.registry import import_path, options, slots, store_root
from dqn_runner.types import UserError

_HERE = Path(__file__).parent
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
"""The YAML files: inside the installed package, or beside it in a checkout."""

PART = "_target_"


class Mode(Enum):
    """What the program does with the configuration."""

    train = "train"
    eval = "eval"


@dataclass(kw_only=True)
class Checkpoint:
    """Which checkpoint to take, and how."""

    path: str | None = None
    """For mode=eval: a checkpoint, or a run directory for its latest; `checkpoint=PATH` sets it."""
    inexact: bool = False
    """Go on although an environment does not come back to where it was, with that episode cut short."""


@dataclass(kw_only=True)
class Study:
    """The sweep that this run is a job of; the sweeper sets it."""

    storage: str | None = None
    """Where the study lives."""
    name: str | None = None
    """Its name there."""
    trial: int | None = None
    """The trial that the run belongs to."""
    run: int = 0
    """The how manyth of its seeds it has; beyond the last one it is a run that validates the trial."""


@dataclass(kw_only=True)
class RunConfig:
    """Everything a run is a function of."""

    mode: Mode = Mode.train
    """`train`, or `eval` to evaluate `checkpoint`."""
    seed: int = 0
    """Everything random derives from it; `agent.seed` follows it."""
    threads: int = 1
    """Torch threads; small networks are fastest with one."""
    resume: str = "auto"
    """`auto` goes on where the run directory holds this run already; `never` begins anew, in a fresh
    directory; a checkpoint, or a run directory for its latest, goes on there with its configuration."""
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    study: Study = field(default_factory=Study)
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

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        if self.threads < 1:
            raise UserError(f"threads must be at least 1, got {self.threads}")


PART_MODULES = (agent, atari, distributional, envs, evaluator, trackers, training)
"""Importing them registers every part; the agent's own parts come with the agent."""

store_root("base_config", RunConfig)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain dicts and values, as checkpoints keep it."""
    return OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)  # pyright: ignore[reportReturnType]


def accept_env(cfg: DictConfig, overridden: Collection[str]) -> None:
    """What a user means who puts another environment in the place of a gym environment.

    `env._target_=my_pkg.MyEnv` names a class to make, and is handed on as `env.id`; the threshold of the
    environment that was replaced does not stay.
    """
    gym = import_path(envs.GymEnv)
    if OmegaConf.get_type(cfg.env) and "kwargs" in cfg.env and cfg.env[PART] != gym:
        cfg.env.id, cfg.env[PART] = cfg.env[PART], gym
    if {"env.id", "env._target_"} & set(overridden) and "env.reward_threshold" not in overridden:
        cfg.env.reward_threshold = None


def refuse_other_than_parts(cfg: DictConfig) -> None:
    """Raise where a plain value stands in the place of a part, as after `agent.loss=3`."""
    by_path = {import_path(cls): cls for cls in options()}
    waiting = ["agent", "env", "trainer", "evaluator", *(f"logging.{name}" for name in cfg.logging)]
    for key in waiting:
        node: Any = OmegaConf.select(cfg, key)
        if not isinstance(node, DictConfig) or PART not in node:
            raise UserError(f"{key} must be a part, chosen as in {key.replace('.', '/')}=NAME")
        cls = by_path.get(node[PART])
        waiting += [f"{key}.{name}" for name in (slots(cls) if cls else ())]
