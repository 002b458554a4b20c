"""Wrappers that convert observations for a network. They import gymnasium: import them inside functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, TransformObservation

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import FloatArray
from dqn_runner.envs.base import env_name
from dqn_runner.envs.mixed_observations import layout_of
from dqn_runner.envs.space_check import SpaceCheck

Env = gymnasium.Env[Any, Any]


def select_entries(env: Env, keys: Sequence[str], separate: bool = False) -> Env:
    """Select entries of a Dict observation.

    One key gives its entry unchanged; several are flattened and concatenated, in the order of `keys`, into
    one float32 vector, or remain a Dict if they are to be `separate`. Raises UserError if the observation is
    not a Dict or has no such key.
    """
    space: Any = env.observation_space
    if not isinstance(space, spaces.Dict):
        raise UserError(f"env.observation_keys={list(keys)} needs Dict observations, got {space}")
    entries = cast("dict[str, Any]", space.spaces)
    if missing := [key for key in keys if key not in entries]:
        raise UserError(
            f"env.observation_keys: the observation has no {', '.join(missing)}; it has {', '.join(entries)}"
        )
    chosen = [entries[key] for key in keys]
    if len(keys) == 1:
        return TransformObservation(env, partial(_only, env_name(env), keys[0]), chosen[0])
    if separate:
        selected = spaces.Dict(dict(zip(keys, chosen, strict=True)))
        return TransformObservation(env, partial(_without_others, set(entries) - set(keys)), selected)
    _check_flat(entries, keys)
    flat = [_flat_space(part) for part in chosen]
    low = np.concatenate([part.low for part in flat]).astype(np.float32)
    high = np.concatenate([part.high for part in flat]).astype(np.float32)
    check = SpaceCheck(env_name(env), spaces.Dict(dict(zip(keys, chosen, strict=True))))

    def join(obs: Any) -> FloatArray:
        check(obs)
        parts: list[Any] = [spaces.flatten(part, obs[key]) for key, part in zip(keys, chosen, strict=True)]
        return np.concatenate(parts, dtype=np.float32)

    return TransformObservation(env, join, spaces.Box(low, high, dtype=np.float32))


def _only(env: str, key: str, obs: Any) -> Any:
    """The entry of a Dict observation; raises UserError if it is missing."""
    entries = cast("Mapping[str, Any]", obs if isinstance(obs, Mapping) else {})
    if key not in entries:
        raise UserError(
            f"{env} returned an observation without the key {key!r}; it must fit observation_space"
        )
    return entries[key]


def only_entry(env: Env) -> list[str]:
    """The key of a Dict observation that has one entry, else nothing."""
    space: Any = env.observation_space
    keys = list(cast("dict[str, Any]", space.spaces)) if isinstance(space, spaces.Dict) else []
    return keys if len(keys) == 1 else []


def count_words(env: Env, vocabulary: Mapping[str, Sequence[str]]) -> Env:
    """Replace text entries of a Dict observation by the counts [words + 1] of the words in `vocabulary`.

    The last count is that of all other words. Capitals and punctuation make no difference. Raises UserError
    if the text entry is missing, or if its words are not different single words.
    """
    space: Any = env.observation_space
    entries = cast("dict[str, Any]", space.spaces) if isinstance(space, spaces.Dict) else {}
    numeric = (
        spaces.Box,
        spaces.Discrete,
        spaces.MultiDiscrete,
        spaces.MultiBinary,
        spaces.Dict,
        spaces.Tuple,
    )
    texts = [key for key, entry in entries.items() if not isinstance(entry, numeric)]
    counts: dict[str, dict[str, int]] = {}
    for key, words in vocabulary.items():
        if key not in texts:
            found = ", ".join(texts) or "none"
            raise UserError(f"env.vocabulary: {key} is not a text entry of the observation; it has {found}")
        split = [_words(str(word)) for word in words]
        if (
            not words
            or any(len(each) != 1 for each in split)
            or len({each[0] for each in split}) < len(split)
        ):
            raise UserError(
                f"env.vocabulary: {key} needs a list of different single words, not {list(words)}"
            )
        counts[key] = {each[0]: number for number, each in enumerate(split)}
    vectors = {key: spaces.Box(0, np.inf, (len(each) + 1,), np.float32) for key, each in counts.items()}
    return TransformObservation(env, partial(_with_counts, counts), spaces.Dict({**entries, **vectors}))


def _with_counts(counts: Mapping[str, dict[str, int]], obs: Any) -> Any:
    if not isinstance(obs, Mapping):
        return obs  # the check reports it
    entries = cast("Mapping[str, Any]", obs)
    found = dict(entries)
    for key, numbers in counts.items():
        if not isinstance(entries.get(key), str):
            raise UserError(
                f"env.vocabulary: the observation has {entries.get(key)!r:.40} as {key}, not a text"
            )
        places = [numbers.get(word, len(numbers)) for word in _words(entries[key])]
        found[key] = np.bincount(places, minlength=len(numbers) + 1).astype(np.float32)
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _without_others(others: set[str], obs: Any) -> Any:
    """The observation without these keys; what else is missing or unknown is left to the check."""
    if not isinstance(obs, Mapping):
        return obs
    entries = cast("Mapping[str, Any]", obs)
    return {key: value for key, value in entries.items() if key not in others}


def flatten(env: Env) -> Env:
    """Flatten any observation into one vector; a Discrete observation becomes one-hot.

    Raises UserError if the vector has no fixed length.
    """
    space: Any = env.observation_space
    if isinstance(space, spaces.Dict):
        entries = cast("dict[str, Any]", space.spaces)
        _check_flat(entries, list(entries))
    check = SpaceCheck(env_name(env), space)
    return TransformObservation(env, lambda obs: spaces.flatten(space, check(obs)), _flat_space(space))


def stack_frames(env: Env, frames: int) -> Env:
    """Stack the last `frames` observations along a new first axis; those before the first one are zero.

    Images [height, width] become [frames, height, width], the channels of a convolution (Mnih et al. 2015).
    Of a Dict, all entries are stacked. Raises UserError unless observations are vectors, grey images or a
    Dict.
    """
    space: Any = env.observation_space
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        layout_of(space, env_name(env))  # raises for entries that cannot be stacked
    elif not isinstance(space, spaces.Box) or len(space.shape) > 2:
        raise UserError(
            f"env.frame_stack={frames} stacks vectors and grey images [height, width], but observations are "
            f"{space}. For colour images, add gymnasium.wrappers.GrayscaleObservation to env.wrappers"
        )
    check = SpaceCheck(env_name(env), space)
    # some environments reuse one observation buffer
    copied: Env = TransformObservation(env, lambda obs: _copy(space, check(obs)), cast("Any", space))
    return FrameStackObservation(copied, frames, padding_type="zero")


def _copy(space: Any, obs: Any) -> Any:
    """A copy of an observation, in arrays of the dtypes of the space: the wrapper that stacks needs them."""
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return np.array(obs, dtype=space.dtype)
    inner: Any = cast("Any", space).spaces
    if isinstance(space, spaces.Dict):
        return {key: _copy(part, obs[key]) for key, part in inner.items()}
    return tuple(map(_copy, inner, obs))


def _check_flat(entries: dict[str, Any], keys: Sequence[str]) -> None:
    """Raise UserError, which names the entries that can be flattened, if one of `keys` cannot."""
    flat = [key for key in entries if _flattened(entries[key]) is not None]
    if bad := [key for key in keys if key not in flat]:
        kinds = ", ".join(f"{key} ({type(entries[key]).__name__})" for key in bad)
        usable = ",".join(key for key in keys if key in flat) or ",".join(flat)
        hint = f"; use env.observation_keys=[{usable}]" if usable else ""
        raise UserError(f"the observation's {kinds} cannot be flattened into a vector of fixed length{hint}")


def _flat_space(space: Any) -> spaces.Box:
    flat = _flattened(space)
    if flat is None:
        raise UserError(f"observations {space} cannot be flattened into a vector of fixed length")
    return flat


def _flattened(space: Any) -> spaces.Box | None:
    """The space of flattened observations; None if their length is not fixed or gymnasium cannot."""
    try:
        flat = cast("Any", spaces.flatten_space(space))
    except NotImplementedError:  # a space that another package defines, such as MiniGrid's missions
        return None
    return cast("spaces.Box", flat) if isinstance(flat, spaces.Box) else None
