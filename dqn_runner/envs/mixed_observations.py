"""Dict and Tuple observations: their layout, and the check that packs what an environment returns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.core.observation_layout import Entry, ObservationLayout
from dqn_runner.core.types import Array

Path = tuple[str | int, ...]
MAX_CATEGORIES = 2**31 - 1
"""Categories are stored in at most 32 bits."""
MAX_ROW_BYTES = 2**31


def is_mixed(space: Any) -> bool:
    """Whether observations of `space` have several entries."""
    return isinstance(space, (gymnasium.spaces.Dict, gymnasium.spaces.Tuple))


def layout_of(space: Any, env: str, frames: int = 1) -> ObservationLayout:
    """The layout of observations of a Dict or Tuple `space`.

    Raises UserError, which names the environment `env`, if an entry has no fixed size or no elements.
    """
    leaves = list(leaves_of(space, ()))
    if not leaves:
        raise UserError(f"{env} has observations without entries: {space}")
    names = [_name(path) for path, _ in leaves]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{env} has two observation entries with the name {twice!r}; rename one of the keys")
    entries = [entry_of(path, leaf) for path, leaf in leaves]
    if bad := [leaf for leaf, entry in zip(leaves, entries, strict=True) if entry is None]:
        usable = [str(path[0]) for (path, _), entry in zip(leaves, entries, strict=True) if entry]
        raise UserError(_unusable(env, bad, list(dict.fromkeys(usable))))
    layout = ObservationLayout.of([entry for entry in entries if entry is not None], frames)
    if layout.row_bytes > MAX_ROW_BYTES:
        raise UserError(f"{env} has observations of {layout.row_bytes} bytes, more than {MAX_ROW_BYTES}")
    return layout


def pack(layout: ObservationLayout, obs: Any, batch: tuple[int, ...] = ()) -> Array:
    """Pack an observation, or a batch of them, into rows [*batch, *layout.obs_shape].

    Keys that the layout does not have are ignored. Raises ValueError, which names the entry, if one is
    missing or does not fit.
    """
    return layout.pack(
        {entry.name: _stored(entry, obs, (*batch, *layout.lead)) for entry in layout.entries}, batch
    )


def batch_size(layout: ObservationLayout, obs: Any) -> int | None:
    """The length of a batch of observations; None if `obs` is a single one.

    Raises ValueError if the first entry is missing or is not an array.
    """
    entry = layout.entries[0]
    shape = np.shape(find(entry.path, obs))
    return None if len(shape) == len(layout.lead) + len(entry.shape) else (shape[0] if shape else None)


class MixedObservationCheck:
    """Returns an observation as the packed bytes of its entries."""

    def __init__(self, env: str, space: Any, layout: ObservationLayout) -> None:
        """`env` is the name of the environment in messages."""
        self._env, self._layout = env, layout
        self._keys = list(_containers(space, ()))

    def check(self, obs: Any, method: str) -> Array:
        """Return what `method` returned, packed [*obs_shape]; raises UserError if it does not fit."""
        try:
            packed = pack(self._layout, obs)
            self._check_keys(obs)
        except ValueError as error:
            raise UserError(
                f"{self._env}: {method}() returned an observation {error}; it must fit observation_space"
            ) from None
        return packed

    def _check_keys(self, obs: Any) -> None:
        """Raise ValueError if there is a key that the space does not have."""
        for path, keys in self._keys:
            found = obs
            for key in path:
                found = found[key]
            if len(found) == len(keys):
                continue
            if not isinstance(found, Mapping):
                raise ValueError(f"with {len(found)} elements in {_name(path) or 'a Tuple'!r}")
            unknown = next(key for key in cast("Mapping[Any, Any]", found) if key not in keys)
            raise ValueError(f"with the unknown key {_name((*path, unknown))!r}")


def _stored(entry: Entry, obs: Any, lead: tuple[int, ...]) -> Array:
    value = find(entry.path, obs)
    try:
        return entry.stored(value, lead)
    except ValueError as error:
        raise ValueError(f"whose entry {entry.name!r} has {error}") from None


def find(path: Path, obs: Any) -> Any:
    """The entry of an observation that these keys lead to; raises ValueError if there is none."""
    for depth, key in enumerate(path):
        name = _name(path[: depth + 1])
        if isinstance(obs, Mapping):
            if key not in obs:
                raise ValueError(f"without the key {name!r}")
        elif isinstance(key, int):
            if not isinstance(obs, (tuple, list)) or key >= len(cast("list[Any]", obs)):
                raise ValueError(f"without the element {name!r}")
        else:
            where = f" in {_name(path[:depth])!r}" if depth else ""
            raise ValueError(f"that is not a dictionary{where}: {type(obs).__name__}")
        obs = cast("Any", obs)[key]
    return obs


def leaves_of(space: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """The entries of a space, with the keys that lead to them."""
    if not is_mixed(space):
        yield path, space
        return
    for key, inner in _children(space):
        yield from leaves_of(inner, (*path, key))


def _containers(space: Any, path: Path) -> Iterator[tuple[Path, list[str | int]]]:
    """Each Dict and Tuple in a space, with its keys."""
    if is_mixed(space):
        children = _children(space)
        yield path, [key for key, _ in children]
        for key, inner in children:
            yield from _containers(inner, (*path, key))


def _children(space: Any) -> list[tuple[str | int, Any]]:
    inner: Any = space.spaces
    return list(inner.items()) if isinstance(inner, Mapping) else list(enumerate(inner))  # pyright: ignore[reportUnknownArgumentType]


def entry_of(path: Path, space: Any) -> Entry | None:
    """The entry of a space; None if it cannot be one."""
    spaces: Any = gymnasium.spaces
    name = _name(path)
    sizes: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...] = ()
    if isinstance(space, spaces.Box):
        return _box(name, path, space) if 0 not in space.shape else None
    if isinstance(space, spaces.MultiBinary):
        return Entry(name, tuple(space.shape), "bool", path) if math.prod(space.shape) else None
    if isinstance(space, spaces.Discrete):
        sizes, start = (int(space.n),), (int(space.start),)
    elif isinstance(space, spaces.MultiDiscrete):
        shape = tuple(space.nvec.shape)
        first = np.broadcast_to(getattr(space, "start", 0), shape)
        sizes, start = (tuple(int(n) for n in np.ravel(each)) for each in (space.nvec, first))
    else:
        return None
    if not sizes or max(sizes) > MAX_CATEGORIES:
        return None
    most = max(sizes) - 1
    dtype = "uint8" if most < 2**8 else "int16" if most < 2**15 else "int32"
    return Entry(name, shape, dtype, path, sizes, start)


def _box(name: str, path: Path, space: Any) -> Entry:
    dtype = str(space.dtype)
    if dtype == "uint8":
        return Entry(name, tuple(space.shape), dtype, path, divisor=float(max(1, space.high.max())))
    return Entry(name, tuple(space.shape), "bool" if dtype == "bool" else "float32", path)


def _name(path: Path) -> str:
    return ".".join(map(str, path))


def _unusable(env: str, bad: list[tuple[Path, Any]], usable: list[str]) -> str:
    kinds = ", ".join(f"{_name(path)} ({type(space).__name__})" for path, space in bad)
    left_out = {str(path[0]) for path, _ in bad}
    keys = ",".join(key for key in usable if key not in left_out)
    hint = f"; leave them out by env.observation_keys=[{keys}]" if keys else ""
    separate = " and agent/network=multi_input" if "," in keys else ""
    return f"observations of {env} have entries that are not arrays of a fixed size: {kinds}{hint}{separate}"
