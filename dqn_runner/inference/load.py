"""Loads a trained agent from a checkpoint, without Hydra and without making its environment."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, cast, get_type_hints

import numpy as np

from dqn_runner import agent, replay
from dqn_runner.agent import losses, networks
from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.config import DQNConfig
from dqn_runner.agent.networks.architectures import Custom
from dqn_runner.agent.own_parts import building_parts
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.checkpointing.names import BEST, CHECKPOINTS
from dqn_runner.checkpointing.recovery import find_checkpoint, nonsense_is_damage
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_object
from dqn_runner.core.registry import TARGET, class_of, import_parts
from dqn_runner.core.state import State
from dqn_runner.envs.stored_spaces import StoredSpaces, load_spaces
from dqn_runner.inference.trained_agent import TrainedAgent
from dqn_runner.io.json_io import as_json
from dqn_runner.run.provenance import config_hash
from dqn_runner.training.stored_state import check_structure


def load_agent(path: str | Path, *, trust: bool = False, seed: int = 0) -> TrainedAgent:
    """Load the agent of a checkpoint, or of the best one in a run directory, if it has one, else the latest.

    Nothing that the file names is imported, unless `trust` is true: an agent with a network or another part
    of your own needs it. `seed` determines the random actions of `predict(deterministic=False)`. Raises
    UserError if the checkpoint is missing, damaged, or names what is not trusted.
    """
    for package in (agent, losses, networks, replay):
        import_parts(package)
    file = _find(Path(path))
    document = load_checkpoint(file)
    with nonsense_is_damage(file):
        source = document["source"]
        tree = source.get("config", source)["agent"]
        if not trust and (imports := imports_of(tree)):
            raise UserError(
                f"{file} asks to import {', '.join(imports)}; if you know who wrote it, use "
                "load_agent(..., trust=True)"
            )
        with building_parts(tree.get("seed", 0)):
            config = _build(tree)
        if not isinstance(config, DQNConfig):
            raise ValueError("its agent is not a DQN agent")
        return restore_agent(file, document, config, seed)


def restore_agent(file: Path, document: State, config: DQNConfig, seed: int = 0) -> TrainedAgent:
    """The agent with the settings `config` and the state of the checkpoint `file`, which holds `document`.

    Raises UserError if the two do not fit.
    """
    with nonsense_is_damage(file):
        state = document["state"]
        spaces = load_spaces(state["spaces"])
        _check_sizes(spaces, state)
        trained = DQNAgent(
            dataclasses.replace(
                config,
                device="cpu",
                state_dim=spaces.layout or list(spaces.obs_shape),
                action_dim=spaces.actions.num_actions,
                normalize_observations=state["agent"]["normalizer"] is not None,
            )
        )
        check_structure(state["agent"], trained.state_dict(), "state.agent")
        trained.load_state_dict(state["agent"])
        return TrainedAgent(trained, spaces, _provenance(file, document), seed)


def _check_sizes(spaces: StoredSpaces, state: State) -> None:
    """Raise ValueError unless the arrays of the checkpoint have these sizes: nothing larger is allocated."""
    obs = np.asarray(state["collector"]["envs"]["obs"])
    fits = (obs.shape[1:], str(obs.dtype)) == (spaces.obs_shape, spaces.obs_dtype)
    if not fits or spaces.actions.num_actions > len(state["agent"]["learner"]["online"]):
        raise ValueError("state.spaces do not fit the arrays of the state")


def _provenance(file: Path, document: State) -> dict[str, Any]:
    """Where an agent comes from, without paths of this machine."""
    best, folder = document["state"]["progress"]["early_stopping"], file.absolute().parent
    source = document["source"]
    try:
        version = importlib.metadata.version("dqn_runner")
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        version = None
    found = {
        "dqn_runner": version,
        "run": folder.parent.name if folder.name == CHECKPOINTS else None,  # not of a copied file
        "checkpoint": file.name,
        "step": document["step"],
        "config_hash": config_hash(source.get("config", source)),
        "best_return_mean": best["best_mean"],
        "best_step": best["best_step"],
    }
    return as_json(found)


def _find(path: Path) -> Path:
    """The best checkpoint of a run directory, if it has one."""
    for directory in (path / CHECKPOINTS, path):
        if (directory / BEST).is_file():
            return directory / BEST
    return find_checkpoint(path)


def imports_of(agent: Any) -> list[str]:
    """The import paths of parts that are not of this program, in the stored configuration of an agent."""
    return sorted({*_imports(agent)})


def _imports(tree: Any) -> Iterator[str]:
    """The import paths in a stored configuration."""
    if isinstance(tree, list):
        for item in cast("list[Any]", tree):
            yield from _imports(item)
    if not isinstance(tree, Mapping):
        return
    settings = cast("Mapping[str, Any]", tree)
    if (target := settings.get(TARGET)) is not None:
        cls = class_of(str(target))
        if cls is None:
            yield str(target)
        if cls is Custom:
            yield str(settings.get("target"))
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
