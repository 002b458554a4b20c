"""What the program does for parts of the user's own: it seeds what they draw, and stores what they keep."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dqn_runner.checkpointing.user_state import check_state_methods, pack_user_state, restored_state
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import class_of, import_path, slots
from dqn_runner.core.rng import seed_for
from dqn_runner.core.state import State
from dqn_runner.envs.generators import OwnGenerators

if TYPE_CHECKING:
    from dqn_runner.agent.config import DQNConfig

_PLACES = ("learning_rate_schedule", "loss", "exploration", "optimizer")
"""Parts of an agent that may have a state; those of replay and network are stored with them."""


def building_parts(seed: int) -> OwnGenerators:
    """A block in which parts are built: what they draw from the global generators follows from `seed`.

    Torch is included if it is imported before the block.
    """
    return OwnGenerators(seed_for(seed, "parts"))


def is_ours(part: object) -> bool:
    """Whether the class of a part is a registered one of this package."""
    cls, package = type(part), __name__.partition(".")[0]
    return class_of(import_path(cls)) is not None and cls.__module__.partition(".")[0] == package


def check_actions(exploration: object, actions: Any, shape: tuple[int, int]) -> None:
    """Raise UserError unless an exploration chose n numbers of actions for `shape` = (n, actions)."""
    n, num_actions = shape
    if not isinstance(actions, np.ndarray):
        found = f"a {type(actions).__name__}"
    elif actions.shape != (n,) or actions.dtype.kind not in "iu":
        found = f"an array of {actions.dtype} {actions.shape}"
    elif n and not 0 <= actions.min() <= actions.max() < num_actions:
        found = f"the actions {actions.tolist()}"
    else:
        return
    raise UserError(
        f"agent.exploration={import_path(type(exploration))} returned {found}; it must return an array of "
        f"integers {(n,)} from 0 to {num_actions - 1}"
    )


def checked_moments(optimizer: object, moments: Any) -> Any:
    """The moments that an optimizer made; raises UserError unless they are tensors by name."""
    if isinstance(moments, dict):
        items = cast("dict[Any, Any]", moments).items()
        if all(isinstance(name, str) and isinstance(each, torch.Tensor) for name, each in items):
            return cast("Any", moments)
    raise UserError(
        f"agent.optimizer={import_path(type(optimizer))}: its init() returned {moments!r:.60}; it must "
        "return a dictionary of tensors by name, an empty one if it keeps nothing"
    )


def states_of_parts(config: DQNConfig) -> State:
    """The states of the parts that have `state_dict` and `load_state_dict`, by place and class.

    Raises UserError for one that a checkpoint cannot store.
    """
    states: State = {}
    for key, part in _parts(config):
        check_state_methods(f"agent.{key}", part)
    for key, part in _parts_with_state(config):
        states[key] = pack_user_state(f"agent.{key}", part.state_dict())
    return states


def load_states_of_parts(config: DQNConfig, states: Mapping[str, Any]) -> None:
    """Restore what `states_of_parts` returned; a part of another class starts without one.

    Raises UserError if a part rejects its state.
    """
    for key, part in _parts_with_state(config):
        if key not in states:
            continue
        try:
            part.load_state_dict(restored_state(states[key]))
        except Exception as error:
            raise UserError(
                f"agent.{key} cannot load its stored state: {type(error).__name__}: {error}"
            ) from error


def parts_without_state(config: DQNConfig) -> Iterator[tuple[str, Any]]:
    """The parts of the user's own that a checkpoint does not store, by place and class."""
    return ((key, part) for key, part in _parts(config) if not _has_state(part) and not is_ours(part))


@contextmanager
def unchanged_states(config: DQNConfig) -> Generator[None]:
    """A block after which the states of parts are what they were, whatever it asks them."""
    states = states_of_parts(config)
    try:
        yield
    finally:
        load_states_of_parts(config, states)


def _parts_with_state(config: DQNConfig) -> Iterator[tuple[str, Any]]:
    return ((key, part) for key, part in _parts(config) if _has_state(part))


def _has_state(part: Any) -> bool:
    return hasattr(part, "state_dict") and hasattr(part, "load_state_dict")


def _parts(config: DQNConfig) -> Iterator[tuple[str, Any]]:
    """All parts that may have a state."""
    pending: list[tuple[str, Any]] = [(name, getattr(config, name)) for name in _PLACES]
    while pending:
        place, part = pending.pop(0)
        cls = cast("type[Any]", type(part))
        yield f"{place}={import_path(cls)}", part
        if class_of(import_path(cls)) is not None:
            pending += [(f"{place}.{name}", getattr(part, name)) for name in slots(cls)]
