"""Checks the values of a stored state: lengths that must agree, and numbers that must be in a range."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from dqn_runner.agent.learner import UPDATE_METRICS
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import State
from dqn_runner.core.types import EnvSpec
from dqn_runner.envs.generators import NAMES
from dqn_runner.training import user_metrics
from dqn_runner.training.evaluator import Evaluation
from dqn_runner.training.history import problem_with
from dqn_runner.training.metrics import EVAL_KEYS, RECENT


def inconsistencies(stored: State, ours: State, spec: EnvSpec, own_optimizer: bool = False) -> Iterator[str]:
    """What is wrong with a state that has the structure of `ours`; `spec` is that of the environment.

    The moments of an optimizer of the user's own (`own_optimizer`) may have any values.
    """
    yield from _in_agent(stored["agent"], ours["agent"], own_optimizer)
    if len(stored["collector"]["envs"]["episodes"]) == len(ours["collector"]["envs"]["episodes"]):
        yield from _in_collector(stored["collector"], ours["collector"], spec.num_actions)
    yield from _in_replay(stored["replay"], spec)
    finished = stored["finished"]
    for progress in [stored["progress"], *([finished["before"]] if finished else [])]:
        if progress["early_stopping"]["best_step"] > stored["step"]:
            yield "state.progress.early_stopping.best_step is later than the state"
        yield from _in_metrics(progress["metrics"], ours["progress"]["metrics"], stored["episode"])
        yield from _in_evaluations(progress["metrics"]["eval"], stored["step"], stored["episode"])


def _in_agent(stored: State, ours: State, own_optimizer: bool) -> Iterator[str]:
    normalizer = stored["normalizer"]
    if normalizer is not None and ours["normalizer"] is not None:
        for key, lowest in (("mean", -math.inf), ("squares", 0.0)):
            if tuple(normalizer[key].shape) != np.shape(ours["normalizer"][key]):
                yield f"state.agent.normalizer.{key} has another shape"
            elif not (np.isfinite(values := np.asarray(normalizer[key])).all() and values.min() >= lowest):
                yield f"state.agent.normalizer.{key} has a value that it cannot have"
    for key in ("online", "target"):
        if not np.isfinite(np.asarray(stored["learner"][key])).all():
            yield f"state.agent.learner.{key} has values that are not finite"
    for key, moment in stored["learner"]["moments"].items():
        if not own_optimizer and torch.isnan(moment).any():
            yield f"state.agent.learner.moments.{key} has values that are not numbers"


def _in_collector(stored: State, ours: State, num_actions: int) -> Iterator[str]:
    envs, num_envs = stored["envs"], len(stored["envs"]["episodes"])
    chosen: list[Any] = stored["actions"] or [0] * num_envs
    if any(len(each) != num_envs for each in (stored["returns"], stored["lengths"], envs["ended"], chosen)):
        yield f"state.collector does not hold {num_envs} environments everywhere"
        return
    if tuple(envs["obs"].shape) != np.shape(ours["envs"]["obs"]):
        yield f"state.collector.envs.obs has shape {tuple(envs['obs'].shape)}"
    if "masks" in envs and not _are_masks(envs["masks"], (num_envs, num_actions)):
        yield f"state.collector.envs.masks are not {num_envs} action masks"
    ended: list[State] = envs["ended"]
    episodes: list[State] = [*envs["episodes"], *ended]
    if not all(_are_attributes(each["attributes"]) for each in [envs, *episodes]):
        yield "state.collector.envs has attributes that no callback can set"
    if any(_outside(each, num_actions) for each in [*(e["actions"] for e in episodes), _integers(chosen)]):
        yield f"state.collector has an action that is not one of the {num_actions}"
    for length, episode in zip([*stored["lengths"], *map(_length, ended)], episodes, strict=True):
        steps = [len(episode["actions"]), len(episode["rewards"]), _length(episode)]
        if steps != [length] * 3:
            yield f"state.collector has an episode of {length} steps that does not hold as many"
        if episode["generators"] is not None and not {*episode["generators"]} <= {*NAMES}:
            yield "state.collector has an episode with a generator that does not exist"


def _in_replay(stored: State, spec: EnvSpec) -> Iterator[str]:
    num_actions, length = spec.num_actions, 4 if spec.has_action_mask else 3
    if "demonstrations" in stored:
        yield from _in_demonstrations(stored["demonstrations"], spec)
    if "own" in stored:  # of the user's own, which checks it
        return
    rows = stored["rows"].stop - stored["rows"].start
    if rows > stored["capacity"]:
        yield f"state.replay holds {rows} rows, more than its capacity"
    if stored["n_step"]["lengths"] != [len(window) for window in stored["n_step"]["windows"]]:
        yield "state.replay.n_step.windows have other lengths than stored"
    for window in stored["n_step"]["windows"]:
        for step in window:
            if not (_is_list(step, length) and _is_finite(step[2]) and type(step[1]) is int) or not all(
                _are_masks(mask, (num_actions,)) for mask in step[3:]
            ):
                yield "state.replay.n_step.windows has a step that is not one"
            elif _outside(_integers([step[1]]), num_actions):
                yield f"state.replay.n_step.windows has an action that is not one of the {num_actions}"
    if "priorities" in stored:
        priorities = np.asarray(stored["priorities"])
        if len(priorities) != rows or not (np.isfinite(priorities) & (priorities > 0)).all():
            yield f"state.replay.priorities are not {rows} positive numbers"
        if not 0 < stored["max_priority"] < math.inf:
            yield f"state.replay.max_priority is {stored['max_priority']}"


def _in_demonstrations(stored: State, spec: EnvSpec) -> Iterator[str]:
    if "rows" in stored and stored["capacity"] != stored["rows"].stop - stored["rows"].start:
        yield f"state.replay.demonstrations are not {stored['capacity']} transitions"
    yield from _in_replay(stored, spec)


def _in_metrics(stored: State, ours: State, episode: int) -> Iterator[str]:
    where = "state.progress.metrics"
    for table in ("episodes", "train"):
        if problem := problem_with(stored[table], ours[table]):
            yield f"{where}.{table} {problem}"
            return
    if stored["episodes"].stop != episode:
        yield f"{where}.episodes does not hold {episode} episodes"
    if len({len(column) for column in stored["eval"].values()}) > 1:
        yield f"{where}.eval has columns of different lengths"
    rows = {"train": stored["train"].stop, "eval": len(stored["eval"]["step"])}
    yield from user_metrics.inconsistencies(stored["user"], rows, f"{where}.user")
    kinds = ((int,), (int, float), (int,))
    if not all(_is_list(item, 3) and _are(item, kinds) for item in stored["recent"]):
        yield f"{where}.recent has an episode that is not one"
    last = stored["episodes"].read(max(0, episode - RECENT), episode)
    if stored["recent"] != [list(row) for row in zip(*(c.tolist() for c in last.values()), strict=True)]:
        yield f"{where}.recent are not the last of the episodes"
    sums = stored["sums"]
    if not (_is_list(sums, len(UPDATE_METRICS)) and all(map(_is_finite, sums))) or (
        any(sums) and stored["updates"] == 0
    ):
        yield f"{where}.sums does not belong to {stored['updates']} updates"


def _in_evaluations(table: dict[str, list[Any]], step: int, episode: int) -> Iterator[str]:
    """The summary of an evaluation follows from its returns, except for the mean length."""
    where = "state.progress.metrics.eval"
    for name, last in (("step", step), ("episode", episode)):
        column = table[name]
        if (
            not all(type(value) is int for value in column)
            or [*column, last] != sorted([0, *column, last])[1:]
        ):
            yield f"{where}.{name} has a value that is not a number from 0 to {last}, in order"
    for number, returns in enumerate(table["returns"]):
        if not (_is_list(returns) and returns and all(map(_is_finite, returns))):
            yield f"{where}.returns has a value that is not a number"
            continue
        row = {key: table[key][number] for key in EVAL_KEYS}
        if not _is_finite(row["length_mean"]) or row["length_mean"] < 1:
            yield f"{where}.length_mean has a value that is not a length"
        elif row != {**Evaluation(returns, [1]).summary(), "length_mean": row["length_mean"]}:
            yield f"{where} has values that do not follow from the returns"


def _are_masks(stored: Any, shape: tuple[int, ...]) -> bool:
    """Whether an array holds action masks, each of which allows an action."""
    masks = np.asarray(stored)
    return masks.shape == shape and masks.dtype == bool and bool(masks.any(-1).all())


def _are_attributes(stored: Any) -> bool:
    values: list[Any] = list(cast("State", stored).values()) if isinstance(stored, dict) else [None]
    items = [
        item for value in values for item in (cast("list[Any]", value) if type(value) is list else [value])
    ]
    return all(type(item) in (bool, int, float, str) for item in items)


def _length(episode: State) -> int:
    """The steps of an episode; of one that never began, none."""
    return max(0, len(episode["checksums"]) - 1)


def _outside(actions: Any, num_actions: int) -> bool:
    values = np.asarray(actions)
    return values.size > 0 and not 0 <= values.min() <= values.max() < num_actions


def _integers(values: list[Any]) -> Any:
    """The values as an array, in which anything that is not an integer is -1."""
    return np.array([value if type(value) is int and value < 2**62 else -1 for value in values])


def _is_list(value: Any, length: int | None = None) -> bool:
    return isinstance(value, list) and (length is None or len(value) == length)  # pyright: ignore[reportUnknownArgumentType]


def _are(values: list[Any], kinds: tuple[tuple[type, ...], ...]) -> bool:
    return all(type(value) in accepted for value, accepted in zip(values, kinds, strict=True))


def _is_finite(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)
