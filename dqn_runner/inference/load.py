"""Loads a trained agent from a checkpoint, without Hydra and without making its environment."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, cast, get_type_hints

from dqn_runner import agent, replay
from dqn_runner.agent import losses, networks
from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.config import DQNConfig
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.checkpointing.names import BEST
from dqn_runner.checkpointing.recovery import find_checkpoint, nonsense_is_damage
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_object
from dqn_runner.core.registry import TARGET, class_of, import_parts
from dqn_runner.core.state import State
from dqn_runner.envs.stored_spaces import load_spaces
from dqn_runner.inference.trained_agent import TrainedAgent
from dqn_runner.run.provenance import config_hash
from dqn_runner.training.stored_state import check_structure

NETWORK_TARGET = "target"
"""The setting of `agent/network=custom` that is an import path."""


def load_agent(path: str | Path, *, trust: bool = False, seed: int = 0) -> TrainedAgent:
    """Load the agent of a checkpoint, or of the best one in a run directory, if it has one, else the latest.

    Nothing that the file names is imported, unless `trust` is true: an agent with a network or another part
    of your own needs it. `seed` determines the random actions of `predict(deterministic=False)`. Raises
    UserError if there is no such checkpoint, or if it is damaged.
    """
    for package in (agent, losses, networks, replay):
        import_parts(package)
    file = _find(Path(path))
    document = load_checkpoint(file)
    with nonsense_is_damage(file):
        source, state = document["source"], document["state"]
        tree = source.get("config", source)["agent"]
        if not trust and (imports := sorted({*_imports(tree)})):
            raise UserError(
                f"{file} asks to import {', '.join(imports)}; if you know who wrote it, use "
                "load_agent(..., trust=True)"
            )
        spaces = load_spaces(state["spaces"])
        settings = {
            **tree,
            "state_dim": list(spaces.obs_shape),
            "action_dim": spaces.actions.num_actions,
            "normalize_observations": state["agent"]["normalizer"] is not None,
        }
        config = _build(settings)
        if not isinstance(config, DQNConfig):
            raise ValueError("its agent is not a DQN agent")
        trained = DQNAgent(config)
        check_structure(state["agent"], trained.state_dict(), "state.agent")
        trained.load_state_dict(state["agent"])
        provenance = _provenance(file, document)
    return TrainedAgent(trained, spaces, provenance, seed)


def _provenance(file: Path, document: State) -> dict[str, Any]:
    """Where an agent comes from, without paths of this machine."""
    best = document["state"]["progress"]["early_stopping"]
    source = document["source"]
    try:
        version = importlib.metadata.version("dqn_runner")
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        version = None
    return {
        "dqn_runner": version,
        "run": file.absolute().parent.parent.name,
        "checkpoint": file.name,
        "step": document["step"],
        "config_hash": config_hash(source.get("config", source)),
        "best_return_mean": best["best_mean"],
        "best_step": best["best_step"],
    }


def _find(path: Path) -> Path:
    """The best checkpoint of a run directory, if it has one."""
    for directory in (path / "checkpoints", path):
        if (directory / BEST).is_file():
            return directory / BEST
    return find_checkpoint(path)


def _imports(tree: Any) -> Iterator[str]:
    """The import paths in a stored configuration."""
    if isinstance(tree, list):
        for item in cast("list[Any]", tree):
            yield from _imports(item)
    if not isinstance(tree, Mapping):
        return
    settings = cast("Mapping[str, Any]", tree)
    target = settings.get(TARGET)
    if target is not None and class_of(str(target)) is None:
        yield str(target)
    if target == "agent/network=custom":
        yield str(settings.get(NETWORK_TARGET))
    for value in settings.values():
        yield from _imports(value)


def _build(tree: Any) -> Any:
    """The object that a stored configuration describes."""
    if isinstance(tree, list):
        return [_build(item) for item in cast("list[Any]", tree)]
    if not isinstance(tree, Mapping):
        return tree
    settings = {str(key): _build(value) for key, value in cast("Mapping[Any, Any]", tree).items()}
    if TARGET not in settings:
        return settings
    target = str(settings.pop(TARGET))
    cls: Any = class_of(target) or import_object(target, TARGET)
    return cls(**_with_enums(cls, settings))


def _with_enums(cls: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, in which the names of enum members are those members."""
    if not dataclasses.is_dataclass(cls):
        return settings
    hints = get_type_hints(cls)
    enums = {name: hint for name, hint in hints.items() if isinstance(hint, type) and issubclass(hint, Enum)}
    return {key: enums[key][value] if key in enums else value for key, value in settings.items()}
