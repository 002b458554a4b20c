"""Recorded steps of an environment: what files hold, and what of it fits the environment of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import Array, BoolArray, EnvSpec, IntArray
from dqn_runner.envs.actions import ActionSpace
from dqn_runner.envs.mixed_observations import pack


class Origin(TypedDict):
    """Where the recorded steps of a run come from; part of its checkpoints and of run.json."""

    source: str
    """The setting `agent.replay.preload`."""
    sha256: str
    """Of the content of the file, or of all files of the dataset."""
    transitions: int
    episodes: int


class RawSteps(NamedTuple):
    """What a file holds, unchecked; every array may have any shape and dtype."""

    observations: Any
    """[m, ...]: an array, or for Dict observations nested containers of arrays."""
    at: IntArray
    """[n]: which of the observations a step begins with."""
    next_at: IntArray
    """[n]: which one it ends with."""
    actions: Any
    rewards: Any
    terminations: Any
    truncations: Any
    masks: Any
    """[m, actions]: the action masks of the observations; None if there are none."""


@dataclass(frozen=True)
class Recording:
    """The `n` steps of a recording, checked, in their order; `m` observations."""

    observations: Array
    """[m, *obs_shape] in the dtype of the environment."""
    at: IntArray
    next_at: IntArray
    actions: IntArray
    """[n]: their numbers, counted from zero."""
    rewards: Array
    """[n] float64: those of the environment, before they are scaled or clipped."""
    terminated: BoolArray
    truncated: BoolArray
    masks: BoolArray | None
    """[m, actions]; None if the environment has no action masks."""

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.at)

    @property
    def episodes(self) -> int:
        """Number of episodes; the last one may have no end."""
        ended = self.terminated | self.truncated
        return int(ended.sum()) + (not ended[-1])

    def step(self, index: int) -> tuple[Any, ...]:
        """One step as `Replay.add` takes it, from its observation on."""
        first, last = self.at[index], self.next_at[index]
        return (
            self.observations[first],
            int(self.actions[index]),
            float(self.rewards[index]),
            bool(self.terminated[index]),
            bool(self.truncated[index]),
            self.observations[last],
            *(() if self.masks is None else (self.masks[first], self.masks[last])),
        )


def checked(raw: RawSteps, spec: EnvSpec, actions: ActionSpace, n_step: int, source: str) -> Recording:
    """The steps in the form of an environment of shapes `spec`; raises UserError for what does not fit it.

    `source` begins the message. With `n_step` > 1, each step must continue the one before it, if that did not
    end an episode.
    """
    try:
        recording = _checked(raw, spec, actions)
        if n_step > 1:
            _require_order(recording, n_step)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    return recording


def _checked(raw: RawSteps, spec: EnvSpec, actions: ActionSpace) -> Recording:
    steps = len(raw.at)
    terminated = flags(raw.terminations, "terminations", steps)
    rewards = _rewards(raw.rewards, steps)
    if len(np.asarray(raw.actions)) != steps:
        raise ValueError(f"actions has {len(raw.actions)} entries, observations {steps}")
    try:
        numbers = actions.numbers(raw.actions)
    except ValueError as error:
        raise ValueError(f"the actions {error}") from None
    observations = _observations(raw, spec)
    if len(observations) != (expected := int(raw.next_at.max()) + 1):
        raise ValueError(f"there are {len(observations)} observations, not {expected}")
    return Recording(
        observations,
        raw.at,
        raw.next_at,
        numbers,
        rewards,
        terminated,
        flags(raw.truncations, "truncations", steps),
        _masks(raw, numbers, terminated, spec.num_actions) if spec.has_action_mask else None,
    )


def _observations(raw: RawSteps, spec: EnvSpec) -> Array:
    given = raw.observations
    if isinstance(given, (Mapping, tuple)) and not given:
        raise ValueError("the observations have no entries")
    if spec.layout is not None:
        nested = not isinstance(given, Mapping) or any(
            isinstance(value, (Mapping, tuple)) for value in cast("Any", given).values()
        )
        layout = spec.layout if nested else spec.layout.by_name()
        try:
            return pack(layout, given, (_length(given),))
        except ValueError as error:
            raise ValueError(
                f"there are observations {error}; those of the environment have the entries "
                f"{spec.layout.describe()}"
            ) from None
    if isinstance(given, (Mapping, tuple)):
        raise ValueError(
            f"the observations have several entries, but the agent sees arrays of shape {spec.obs_shape}"
        )
    array = np.asarray(given)
    if array.dtype.kind not in "fiub" or array.shape[1:] != spec.obs_shape:
        raise ValueError(
            f"the observations have shape {array.shape[1:]} and dtype {array.dtype}; those that the agent "
            f"sees have shape {spec.obs_shape} and dtype {spec.obs_dtype}"
        )
    with np.errstate(all="ignore"):
        kept = array.astype(spec.obs_dtype, copy=False)
    for index in range(len(array)):  # one by one: the whole comparison would need the memory again
        fits = np.isfinite(kept[index]) if kept.dtype.kind == "f" else kept[index] == array[index]
        if not fits.all():
            wrong = array[index][~fits].flat[0]
            where = _place(raw, index)
            raise ValueError(f"{where} has {wrong}, which is not a finite {spec.obs_dtype}")
    return kept


def _place(raw: RawSteps, index: int) -> str:
    """Which of the recorded observations has this index in all of them."""
    if index in raw.at:
        return f"observation {index}"
    return f"the observation after step {int(np.flatnonzero(raw.next_at == index)[0])}"


def _length(given: Any) -> int:
    """The length of the first array in nested containers."""
    while isinstance(given, (Mapping, tuple)):
        values = cast("Any", given)
        given = next(iter(values.values() if isinstance(given, Mapping) else values))
    return len(given)


def _rewards(given: Any, steps: int) -> Array:
    rewards = np.asarray(given)
    if rewards.dtype.kind not in "fiub" or rewards.shape != (steps,):
        raise ValueError(f"rewards must be {steps} numbers, got shape {rewards.shape}, dtype {rewards.dtype}")
    with np.errstate(all="ignore"):
        wrong = ~np.isfinite(rewards.astype(np.float32))
    if wrong.any():
        raise ValueError(f"the reward of step {wrong.argmax()} is {rewards[wrong][0]}, not a finite number")
    return rewards.astype(np.float64)


def flags(given: Any, name: str, steps: int) -> BoolArray:
    """Truth values [steps]; raises ValueError, which calls them `name`, for anything else."""
    array = np.asarray(given)
    if array.dtype.kind not in "fiub" or array.shape != (steps,) or not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"{name} must be {steps} values True or False, one for each step, got shape {array.shape}, dtype "
            f"{array.dtype}"
        )
    return array.astype(bool)


def _masks(raw: RawSteps, actions: IntArray, terminated: BoolArray, num_actions: int) -> BoolArray:
    """Masks [m, actions]; that of a terminal state, which learning does not use, allows every action."""
    if raw.masks is None:
        raise ValueError(
            "there are no action_masks, but the environment has action masks (env.action_mask): record the "
            "mask of each observation"
        )
    masks = np.asarray(raw.masks)
    expected = (max(int(raw.at.max()), int(raw.next_at.max())) + 1, num_actions)
    if masks.dtype.kind not in "fiub" or masks.shape != expected or not np.isin(masks, (0, 1)).all():
        raise ValueError(
            f"the action masks must have a 0 or 1 for each of the {num_actions} actions, got shape "
            f"{masks.shape[1:]}, dtype {masks.dtype}"
        )
    masks = masks.astype(bool)
    masks[raw.next_at[terminated]] = True
    if not masks.any(1).all():
        raise ValueError(f"action mask {(~masks.any(1)).argmax()} allows no action")
    forbidden = ~masks[raw.at, actions]
    if forbidden.any():
        raise ValueError(f"the action of step {forbidden.argmax()} is not allowed by its action mask")
    return masks


def _require_order(recording: Recording, n_step: int) -> None:
    ended = recording.terminated | recording.truncated
    for index in np.flatnonzero((recording.next_at[:-1] != recording.at[1:]) & ~ended[:-1]):
        last = recording.observations[recording.next_at[index]]
        if not np.array_equal(last, recording.observations[recording.at[index + 1]]):
            raise ValueError(
                f"step {index} does not end an episode, and step {index + 1} begins with another observation "
                f"than it ends with; agent.n_step={n_step} needs the steps of an episode in their order, and "
                "its end marked in terminations or truncations"
            )
