"""The root of the configuration tree. Importing this module registers every part with Hydra."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf, open_dict

from dqn_runner import agent, envs, loggers, replay
from dqn_runner.agent import losses, networks
from dqn_runner.agent.networks.multi_input import MultiInput
from dqn_runner.agent.own_parts import building_parts
from dqn_runner.config.environment import as_stored
from dqn_runner.config.error_messages import unknown_key
from dqn_runner.config.own_targets import drop_replaced_settings
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import (
    TARGET,
    class_of,
    import_parts,
    import_path,
    options,
    slots,
    store_root,
    to_public_names,
)
from dqn_runner.core.settings import check_settings, fitted_defaults, setting
from dqn_runner.envs import env_ids
from dqn_runner.envs.gym import GymEnv
from dqn_runner.inference.load import imports_of
from dqn_runner.training import callback_parts

_PACKAGE = Path(__file__).parent.parent
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The directory of the YAML files: inside the installed package, or next to it in a checkout."""

DEFAULT_CONFIG = "config"
"""The name of the primary configuration if a command gives none."""


class Mode(Enum):
    """What the program does with the configuration."""

    train = "train"
    eval = "eval"
    export = "export"
    play = "play"
    publish = "publish"
    record = "record"
    report = "report"


@dataclass(kw_only=True)
class Checkpoint:
    """Which checkpoint to evaluate, and how to resume."""

    path: str | None = None
    """For all modes but `train`: a checkpoint, or a run directory for its latest; for `report`, also a
    directory of a sweep or of several runs. `checkpoint=PATH` sets it."""
    allow_inexact_resume: bool = False
    """Resume even if an environment does not reproduce its open episode (which is then truncated), or the
    episode before that."""


@dataclass(kw_only=True)
class Study:
    """The sweep that this run is a job of. Set by the sweeper."""

    storage: str | None = None
    """Storage of the study that the run belongs to; the sweeper sets it."""
    name: str | None = None
    """Name of the study; the sweeper sets it."""
    trial: int | None = None
    """The trial that the run belongs to; the sweeper sets it."""
    seed_index: int = 0
    """Index of the seed within the trial; later indices are validation runs. The sweeper sets it."""
    imports: list[str] = field(default_factory=list[str])
    """Import paths of a pruner of your own; the sweeper sets them."""


@dataclass(kw_only=True)
class RunConfig:
    """All settings of a run."""

    mode: Mode = Mode.train
    """`train`; for a `checkpoint`: `eval` evaluates it, `play` shows it in a window, `export` writes its
    network for other programs, `publish` writes a folder to share, `record` writes the transitions of greedy
    episodes, and `report` writes a page about it."""
    seed: int = setting(0, at_least=0, below=2**63)
    """Source of all random numbers; `agent.seed` follows it."""
    threads: int = setting(1, at_least=1, largest=1024)
    """Torch threads; small networks are fastest with one."""
    compile: bool | str = "auto"
    """Whether updates are compiled: `auto`, `on` or `off`; `agent.compile` follows it."""
    device: str = "auto"
    """Where the network learns: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; `agent.device` follows it."""
    resume: str = "auto"
    """`auto` resumes if the run directory already holds this run; `never` starts over in a fresh directory;
    the path of a checkpoint or a run directory resumes that run with its configuration."""
    trust: bool = False
    """Import and read also what only a stored run or a `best_config.yaml` names (docs/security.md)."""
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    export: list[str] = field(default_factory=lambda: ["onnx"])
    """Formats of mode=export: `onnx`, `torch` (torch.export) and `safetensors` (the weights alone)."""
    study: Study = field(default_factory=Study)
    agent: Any = MISSING
    """Network, loss, exploration, optimizer, replay."""
    env: Any = MISSING
    """The environment."""
    trainer: Any = MISSING
    """Budget, and how often to evaluate, save and log."""
    evaluator: Any = MISSING
    """Settings of mode=eval."""
    logging: dict[str, Any] = field(default_factory=dict[str, Any])
    """One entry per logger."""
    callbacks: dict[str, Any] = field(default_factory=dict[str, Any])
    """One entry per callback; `callbacks.NAME._target_=my_pkg.MyCallback` adds one of your own."""

    __post_init__ = check_settings


for _package in (networks, losses, replay, agent, envs, loggers, callback_parts):
    import_parts(_package)

store_root("base_config", RunConfig, open_fields=("callbacks",))


def to_plain_config(cfg: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """The configuration as it is stored and compared: plain values, and parts by their public names.

    Interpolations are replaced by their values, except for texts from the environment (environment.py), or
    all kept as they are written without `resolve`.
    """
    tree = as_stored(cfg).tree if resolve else OmegaConf.to_container(cfg, enum_to_str=True)
    return to_public_names(tree)


def to_typed_config(cfg: Mapping[str, Any]) -> RunConfig:
    """The objects that a composed configuration describes.

    Within the settings of a gym environment, a `_target_` is left to the environment part: a wrapper is built
    with each environment.
    """
    from hydra.utils import instantiate  # late: `--help` does without it

    tree = {str(key): value for key, value in cfg.items() if key != "hydra"}
    if (env := cfg["env"]).get(TARGET) == import_path(GymEnv):
        tree["env"] = OmegaConf.merge(OmegaConf.to_container(env, resolve=True), {"_recursive_": False})
    path = cfg["checkpoint"]["path"]
    tree["checkpoint"] = OmegaConf.merge(cfg["checkpoint"], {"path": None})
    if cfg["mode"] is not Mode.train:
        tree["callbacks"] = tree["logging"] = {}  # an agent can be used without the modules of its training
    parts = [node for node in tree.values() if isinstance(node, DictConfig)]
    if any(imports_of(OmegaConf.to_container(part)) for part in parts):
        importlib.import_module("torch")  # before the block: a part of the user's own may draw from it
    with building_parts(cfg["agent"]["seed"]):
        run = instantiate(tree, _convert_="object")
    run.checkpoint.path = path  # not before: OmegaConf would take `${` in it for an interpolation
    return run


def apply_targets(cfg: DictConfig, overridden: Collection[str]) -> None:
    """Accept classes in the place of parts: an environment, and the parts of the agent.

    `overridden` are the keys that the command sets.
    """
    _apply_env_target(cfg, overridden)
    drop_replaced_settings(cfg, overridden)


def _apply_env_target(cfg: DictConfig, overridden: Collection[str]) -> None:
    """Accept another environment in the place of a gym environment, and an id without its version.

    `env._target_=my_pkg.MyEnv` names a class to make, which becomes `env.id`. The reward threshold of the
    replaced environment does not apply to the new one.
    """
    gym = import_path(GymEnv)
    if OmegaConf.get_type(cfg.env) and "kwargs" in cfg.env and cfg.env[TARGET] != gym:
        cfg.env.id, cfg.env[TARGET] = cfg.env[TARGET], gym
    is_gym = cfg.env.get(TARGET) == gym
    if is_gym and not OmegaConf.is_interpolation(cfg.env, "id") and not {".", ":"} & {*cfg.env.id}:
        cfg.env.id = env_ids.resolve(cfg.env.id)
    if {"env.id", "env._target_"} & set(overridden) and "env.reward_threshold" not in overridden:
        cfg.env.reward_threshold = None


def fit_defaults(cfg: DictConfig) -> None:
    """Write values in the place of the settings that follow the budget or the network.

    They are stored with the run, so that a resume with another budget does not change them.
    """
    for key, cls in _parts(cfg):
        for name, value in fitted_defaults(cls, cfg.trainer.max_steps).items():
            if OmegaConf.select(cfg, f"{key}.{name}") is None:
                OmegaConf.update(cfg, f"{key}.{name}", value)
    if cfg.env.get("separate_keys", False) is None and cfg.agent.network[TARGET] == import_path(MultiInput):
        cfg.env.separate_keys = True


def check_keys(cfg: DictConfig) -> None:
    """Reject a plain value in the place of a part (`agent.loss=3`) and unknown keys (`+foo=1`)."""
    _check_known(cfg, "", RunConfig)
    _check_known(cfg, "checkpoint", Checkpoint)
    _check_known(cfg, "study", Study)
    for key, cls in _parts(cfg):
        _check_known(cfg, key, cls)


def _parts(cfg: DictConfig) -> Iterator[tuple[str, type]]:
    """The keys and classes of the registered parts; raises UserError for a value in the place of a part."""
    several = [f"{group}.{name}" for group in ("logging", "callbacks") for name in cfg[group]]
    pending = ["agent", "env", "trainer", "evaluator", *several]
    for key in pending:
        node: Any = OmegaConf.select(cfg, key)
        if not isinstance(node, DictConfig) or TARGET not in node:
            raise UserError(_not_a_part(key, node))
        cls = class_of(node[TARGET])
        if cls is not None:
            yield key, cls
            pending += [f"{key}.{name}" for name in slots(cls)]


def _not_a_part(key: str, node: Any) -> str:
    collection, _, name = key.partition(".")
    if name and collection in ("logging", "callbacks"):
        kind = collection.removesuffix("s").replace("logging", "logger")
        return f"{key} is not a {kind}; name its class, as in {key}.{TARGET}=my_pkg.My{kind.capitalize()}"
    group = key.replace(".", "/")
    parts = {name: cls for cls, (place, name) in options().items() if place == group}
    if not isinstance(node, DictConfig) or not parts:
        return f"{key} must be a part, chosen as in {group}=NAME"
    fits = {
        name: len(node.keys() & {field.name for field in dataclasses.fields(cls)})  # pyright: ignore[reportArgumentType]
        for name, cls in parts.items()
    }
    meant = [name for name, count in fits.items() if count == max(fits.values())]
    return (
        f"{key} has settings, but does not say of which part; begin its YAML file with 'defaults: "
        f"[{meant[0] if len(meant) == 1 else 'NAME'}, _self_]' (known: {', '.join(sorted(parts))})"
    )


def _check_known(cfg: DictConfig, place: str, cls: type) -> None:
    """Reject the keys at `place` that `cls` does not have: they were added with a plus sign."""
    known = {TARGET, *(field.name for field in dataclasses.fields(cls))}  # pyright: ignore[reportArgumentType]
    node: Any = OmegaConf.select(cfg, place) if place else cfg
    for key in node.keys() - known:
        with open_dict(node):
            node.pop(key)  # or it would be suggested itself
        raise UserError(unknown_key(f"{place}.{key}" if place else key, cfg))
