"""Callbacks: objects that are called at the events of a run, and may stop it.

A callback has any of the methods in EVENTS. What it keeps in `state_dict` is part of each checkpoint, so that
a resumed run calls it as an uninterrupted one would. The trainer's own stopping rules, the pruner of a sweep
and videos are callbacks too.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np

from dqn_runner.checkpointing.user_state import check_state_methods, pack_user_state, restored_state
from dqn_runner.core.exceptions import CallbackError, UserError
from dqn_runner.core.registry import import_path
from dqn_runner.core.state import State
from dqn_runner.envs.given_observations import as_batch, as_masks
from dqn_runner.io.schema import problem_with
from dqn_runner.io.signals import as_error

EVENTS = ("on_run_start", "on_step_end", "on_episode_end", "on_evaluation", "on_checkpoint", "on_run_end")
"""The methods that are called, each with the run first; `docs/howto/callbacks.md` says when."""

OWED = ("on_checkpoint", "on_run_end")
"""Those that follow a checkpoint."""


class StopReason(NamedTuple):
    """Why a run is over."""

    text: str
    pruned: bool = False
    """Whether the pruner of a sweep ended it."""


class _State(TypedDict):
    stop: tuple[str, bool] | None
    owed: list[str]
    states: dict[str, Any]


class Callbacks:
    """The callbacks of a run by name, called in their order."""

    def __init__(self, callbacks: Mapping[str, Any]) -> None:
        """Raises UserError for an object that no event of a run would call."""
        self.request: StopReason | None = None
        """The first request to stop the run."""
        self.owed: list[str] = []
        """Events that follow the checkpoint with this state: a resume from it begins with them."""
        self.is_running = False
        """Whether a callback is running, or has failed: no state can be saved then."""
        self._callbacks = dict(callbacks)
        self._stored: State = {}
        self._methods: dict[str, list[tuple[str, Callable[..., None]]]] = {event: [] for event in EVENTS}
        for name, callback in callbacks.items():
            check_state_methods(f"callbacks.{name}={import_path(type(cast('object', callback)))}", callback)
            for event in _events_of(name, callback):
                self._methods[event].append((name, getattr(callback, event)))

    def has(self, event: str) -> bool:
        """Whether a callback wants to know of this event."""
        return bool(self._methods[event])

    def owe(self, event: str, is_due: bool) -> None:
        """Note that an event follows the next checkpoint, if it is due and a callback wants to know of it."""
        if is_due and self.has(event) and event not in self.owed:
            self.owed.append(event)

    def call(self, event: str, *arguments: Any) -> None:
        """Call every callback of an event. Raises CallbackError, which names the callback that failed."""
        for name, method in self._methods[event]:
            self._guarded(name, method, *arguments)

    def state_dict(self) -> State:
        """The states of the callbacks, by name; those not used in this session keep their last state."""
        states: State = {}
        for name, callback in self._callbacks.items():
            if hasattr(callback, "state_dict"):
                state = self._guarded(name, callback.state_dict)
                states[name] = pack_user_state(f"callbacks.{name}", state)
        return {
            "stop": None if self.request is None else list(self.request),
            "owed": list(self.owed),
            "states": self._stored | states,
        }

    def load_state_dict(self, state: State) -> None:
        """Restore them.

        Raises ValueError for what no run stores, UserError if a callback rejects its state.
        """
        if problem := problem_with(state, _State):
            raise ValueError(f"state.progress.callbacks.{problem}")
        if unknown := {*state["owed"]} - {*OWED}:
            raise ValueError(f"state.progress.callbacks.owed names {sorted(unknown)[0]!r:.50}")
        self.request = None if state["stop"] is None else StopReason(*state["stop"])
        self.owed = list(state["owed"])
        self._stored = state["states"]
        for name, callback in self._callbacks.items():
            if name in self._stored and hasattr(callback, "load_state_dict"):
                try:
                    callback.load_state_dict(restored_state(self._stored[name]))
                except Exception as error:
                    raise UserError(
                        f"callbacks.{name} cannot load its stored state: {type(error).__name__}: {error}"
                    ) from error

    def _guarded(self, name: str, method: Callable[..., Any], *arguments: Any) -> Any:
        self.is_running = True
        try:
            result = method(*arguments)
        except BaseException as raised:
            error = as_error(raised)
            if isinstance(error, UserError):
                raise UserError(f"callbacks.{name}: {error}") from error
            kind = type(cast("object", self._callbacks[name]))
            where = f"{import_path(kind)}.{getattr(method, '__name__', '')}"
            raise CallbackError(
                f"callbacks.{name} ({where}) raised {type(error).__name__}: {error}"
            ) from error
        self.is_running = False
        return result


class Run:
    """What a callback sees of a run, and what it may ask of it."""

    def __init__(self, trainer: Any, callbacks: Callbacks) -> None:
        """A view of a Trainer, and its callbacks."""
        self._trainer = trainer
        self.callbacks = callbacks
        """For the trainer: all callbacks of the run."""
        self.over: StopReason | None = None
        """The budget that is used up, if one is."""

    @property
    def step(self) -> int:
        """Env steps so far."""
        return self._trainer.step

    @property
    def episode(self) -> int:
        """Training episodes that ended."""
        return self._trainer.episode

    @property
    def position(self) -> int:
        """Env steps or training episodes, as `trainer.frequency_unit` says."""
        return self._trainer.config.position(self.step, self.episode)

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self._trainer.output_dir

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings of the run as plain values; do not change them."""
        return self._trainer.directory.config

    @property
    def resumed(self) -> bool:
        """Whether this process continues a stored run."""
        return self._trainer.directory.resumed

    @property
    def best_mean(self) -> float:
        """Best mean return of an evaluation so far; minus infinity before the first."""
        return self._trainer.stopping.early_stopping.best_mean

    @property
    def history(self) -> Mapping[str, Any]:
        """The tables of metrics.json so far: `episodes`, `train`, `evaluations`."""
        return self._trainer.recorder.metrics.history()

    @property
    def stop_reason(self) -> str | None:
        """Why the run is about to end; None while it continues."""
        reason = self.over or self.callbacks.request
        return None if reason is None else reason.text

    def greedy(self, obs: Any, mask: Any = None) -> Any:
        """The greedy action, counted from zero, for an observation; actions [n] for a batch of them.

        Observations are those that the environment returns. `mask` [actions], or [n, actions] for a batch,
        says which actions are allowed; None allows all. Raises UserError for observations and masks that
        the environment cannot have returned.
        """
        spec = self._trainer.collector.envs.spec
        batch, is_single = as_batch(spec, obs)
        allowed = as_masks(spec.num_actions, mask, len(batch), is_single)
        actions = self._trainer.agent.greedy(batch, allowed)
        return actions[0] if is_single else actions

    def q_values(self, obs: Any) -> Any:
        """The values of the actions for an observation [actions], or for a batch [n, actions]."""
        batch, is_single = as_batch(self._trainer.collector.envs.spec, obs)
        values = self._trainer.agent.q_values(batch)
        return values[0] if is_single else values

    def request_stop(self, reason: str, pruned: bool = False) -> None:
        """End the run after this iteration as a used-up budget does; the first request counts.

        `pruned` is for the pruner of a sweep.
        """
        if self.stop_reason is None:
            self.callbacks.request = StopReason(" ".join(str(reason).split()), pruned)

    def set_env_attribute(self, name: str, value: Any) -> None:
        """Set an attribute of every training environment, from the start of its next episode on.

        The value is a number, a boolean, a text or a list of them. It is stored with the run and set again
        when the run resumes. Raises UserError if the environment has no such attribute.
        """
        if isinstance(value, np.generic):
            value = cast("Any", value).item()
        items: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
        if not all(type(item) in (bool, int, float, str) for item in items):
            raise UserError(f"{name}={value!r:.60} is not a number, a boolean, a text or a list of them")
        self._trainer.collector.envs.set_attribute(name, value)


def settings_of(callbacks: Mapping[str, Any]) -> dict[str, str]:
    """The settings of the callbacks of a script: of a dataclass its fields, of other objects their class."""
    return {
        name: repr(callback)
        if dataclasses.is_dataclass(callback)
        else import_path(type(cast("object", callback)))
        for name, callback in callbacks.items()
    }


def named(callbacks: Mapping[str, Any] | Sequence[Any] | None) -> dict[str, Any]:
    """Callbacks by name; those of a list have the names of their classes, numbered from the second on."""
    if callbacks is None:
        return {}
    if isinstance(callbacks, Mapping):
        return dict(callbacks)
    if not isinstance(callbacks, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UserError(f"callbacks must be a list, as in callbacks=[...]; got a {type(callbacks).__name__}")
    found: dict[str, Any] = {}
    for callback in callbacks:
        name = kind = type(callback).__name__
        number = 1
        while name in found:
            number += 1
            name = f"{kind}_{number}"
        found[name] = callback
    return found


def _events_of(name: str, callback: Any) -> Iterator[str]:
    """The events that a callback has methods for; raises UserError for an unknown one, or none."""
    known = f"a callback has any of {', '.join(EVENTS)}"
    if isinstance(callback, type):
        raise UserError(f"callbacks.{name} is the class {callback.__name__}; give an object of it")
    methods = [each for each in dir(callback) if each.startswith("on_") and callable(getattr(callback, each))]
    for method in methods:
        if method not in EVENTS:
            close = difflib.get_close_matches(method, EVENTS, 1, 0.5)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"callbacks.{name} has a method {method}, which nothing calls{hint} ({known})")
    if not methods:
        raise UserError(f"callbacks.{name} is a {type(callback).__name__} without a method to call; {known}")
    yield from methods
