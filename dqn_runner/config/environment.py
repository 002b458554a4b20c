"""Settings that take a text from the environment (`${oc.env:X}`): stored as they are written, never by value.

Numbers, booleans and options are stored by value: they make the run what it is. A text is stored as it is
written, and a slow hash of its value beside it, by which a resumed run notices that the value has changed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from omegaconf import BooleanNode, Container, DictConfig, EnumNode, FloatNode, IntegerNode, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from dqn_runner.core.secrets import hide

_ENV = "oc.env"
_SCRYPT: dict[str, Any] = {"n": 2**14, "r": 8, "p": 1, "dklen": 16}
_ESCAPE = re.compile(r"(\\*)\$\{")


@dataclass
class StoredConfig:
    """A configuration as it is stored."""

    tree: Any = None
    """Plain values. A text with `${` is in OmegaConf's notation: an interpolation, or an escaped literal."""
    hidden: dict[str, str] = field(default_factory=dict[str, str])
    """The value of each setting that is stored as an interpolation, by dotted key."""


def as_stored(cfg: DictConfig) -> StoredConfig:
    """Resolve a configuration, except for texts from the environment."""
    stored = StoredConfig()
    real: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    stored.tree = _store(cfg, real, "", stored.hidden)
    return stored


def digests(hidden: Mapping[str, str], seed: int) -> dict[str, str]:
    """A hash of each hidden value, which depends on its setting and on the seed of the run too."""
    return {
        key: hashlib.scrypt(value.encode(), salt=f"{key}:{seed}".encode(), **_SCRYPT).hex()
        for key, value in hidden.items()
    }


def with_digests(tree: Any, found: Mapping[str, str]) -> Any:
    """A copy of a stored configuration in which a text from another value is another text."""
    if not found:
        return tree
    return _annotate(tree, found, "")


def _annotate(tree: Any, found: Mapping[str, str], place: str) -> Any:
    if isinstance(tree, Mapping):
        items = cast("Mapping[str, Any]", tree).items()
        return {key: _annotate(item, found, f"{place}{key}.") for key, item in items}
    if isinstance(tree, list):
        return [_annotate(item, found, f"{place}{i}.") for i, item in enumerate(cast("list[Any]", tree))]
    digest = found.get(place[:-1])
    return tree if digest is None else f"{tree} (a value with hash {digest[:8]})"


def _store(node: Container, real: Any, place: str, hidden: dict[str, str]) -> Any:
    """The stored form of a container, given its resolved content."""
    keys: Any = real if isinstance(real, dict) else range(len(real))  # pyright: ignore[reportUnknownVariableType]
    found: dict[Any, Any] = {}
    for key in keys:
        where, value = f"{place}{key}", cast("Any", real)[key]
        child: Any = node._get_node(key)  # pyright: ignore[reportPrivateUsage, reportArgumentType]
        written: Any = child._value()  # pyright: ignore[reportPrivateUsage]
        if isinstance(written, str) and "${" in written:
            found[key] = _store_interpolation(node, key, value, where, hidden)
        elif isinstance(value, (dict, list)):
            found[key] = _store(child, value, f"{where}.", hidden)
        else:
            found[key] = _escaped(value)
    return found if isinstance(real, dict) else list(found.values())


def _store_interpolation(node: Any, key: Any, value: Any, where: str, hidden: dict[str, str]) -> Any:
    written = str(node._get_node(key)._value())
    with _environment_as_text() as used:
        try:
            masked = node[key]
            masked = OmegaConf.to_container(masked, resolve=True) if OmegaConf.is_config(masked) else masked
        except OmegaConfBaseException:
            masked = None
    if not used or masked == value or not _has_text(value):
        return _escaped(value)
    hidden[where] = value if isinstance(value, str) else repr(value)
    for name in used:
        hide(os.environ.get(name, ""), f"${{{_ENV}:{name}}}")
    return masked if isinstance(masked, str) and _means(masked, value) else written


def _means(text: str, value: Any) -> bool:
    """Whether a text resolves to `value` by itself."""
    try:
        return OmegaConf.create({"text": text}).text == value
    except OmegaConfBaseException:
        return False


def _has_text(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_text, cast("dict[Any, Any]", value).values()))
    if isinstance(value, list):
        return any(map(_has_text, cast("list[Any]", value)))
    return isinstance(value, str)


def _escaped(value: Any) -> Any:
    """A resolved value in the notation of OmegaConf, so that it resolves to itself."""
    if isinstance(value, str):
        return _ESCAPE.sub(r"\1\1\\${", value)
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list):
        return [_escaped(item) for item in cast("list[Any]", value)]
    return value


@contextmanager
def _environment_as_text() -> Generator[set[str]]:
    """Within the block, `${oc.env:X}` resolves to this text itself; yields the names of the variables.

    A setting that is a number, a boolean or an option has its value.
    """
    used: set[str] = set()

    def as_written(name: str, *default: Any, _node_: Any) -> str | None:
        if isinstance(_node_, (IntegerNode, FloatNode, BooleanNode, EnumNode)):
            return oc.env(name, *default)
        used.add(name)
        return f"${{{_ENV}:{','.join([name, *map(repr, default)])}}}"

    OmegaConf.register_new_resolver(_ENV, as_written, replace=True)
    try:
        yield used
    finally:
        OmegaConf.register_new_resolver(_ENV, oc.env, replace=True)
