"""Registry of configurable parts: one dataclass is the schema, the defaults and the class of a Hydra option.

`@option("agent/loss", "q_learning")` adds a dataclass to Hydra's ConfigStore. Its fields become the schema
of the option, with a `_target_` that names the class, so that instantiating the composed node creates an
object of the class. A field created by `slot(...)` holds another registered part: in Python its default is
an instance of the default part, in Hydra it is an entry in the defaults list of the option.

Files on disk name a registered class by its option, `agent/loss=q_learning`, never by its module. Modules
can therefore be renamed without making stored runs unusable.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from types import ModuleType
from typing import Any, TypeVar, cast, get_origin

import numpy as np
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from dqn_runner.core.exceptions import UserError

T = TypeVar("T")

TARGET = "_target_"
"""The key under which a configuration names the class of a part."""

PROVIDER = "dqn_runner"
"""Name that Hydra shows as the source of these options."""

_SLOT, _INTERFACE = "dqn_runner.slot", "dqn_runner.interface"
_OPTIONS: dict[type, tuple[str, str]] = {}
_PLACES: dict[type, str] = {}
"""Where a registered class is in the configuration tree."""
_PUBLIC_NAMES: dict[str, str] = {}
"""Public names of registered classes, by import path."""
_CLASSES: dict[str, type] = {}
"""Registered classes by public name."""

_store = ConfigStore.instance()


def _share_store(_: object) -> ConfigStore:
    return ConfigStore.instance()


# Hydra deep-copies the whole store for every config group that it lists, and copies each node again when it
# loads one. Sharing the store instead makes `--help` half a second faster.
vars(_store)["__deepcopy__"] = _share_store


def slot(default: type, interface: type | None = None) -> Any:
    """Dataclass field that holds an exchangeable part; its default is an instance of the class `default`.

    `check_settings` rejects a part without the methods of `interface`, a Protocol.
    """
    return dataclasses.field(default_factory=default, metadata={_SLOT: default, _INTERFACE: interface})


def option(group: str, name: str, package: str | None = None) -> Callable[[type[T]], type[T]]:
    """Decorator that registers a dataclass as the option `name` of the Hydra config group `group`."""

    def register(cls: type[T]) -> type[T]:
        _OPTIONS[cls] = (group, name)
        _PLACES[cls] = package or group.replace("/", ".")
        _publish(cls, f"{group}={name}")
        _store.store(
            group=group, name=name, node=open_mappings(_schema(cls)), package=package, provider=PROVIDER
        )
        return cls

    return register


def import_parts(package: ModuleType) -> None:
    """Import every module of `package`, but no subpackage, so that the parts in them are registered."""
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:
            importlib.import_module(f"{package.__name__}.{module.name}")


def store_root(name: str, cls: type, open_fields: tuple[str, ...] = ()) -> None:
    """Register the dataclass of the root of the configuration tree under `name`.

    `open_fields` are mappings that accept new keys without a plus sign.
    """
    _publish(cls, name)
    _PLACES[cls] = ""
    node = OmegaConf.structured(_schema(cls))
    for field in open_fields:
        OmegaConf.set_struct(node[field], False)
    _store.store(name=name, node=node, provider=PROVIDER)


def options() -> dict[type, tuple[str, str]]:
    """Return every registered class with its (group, name)."""
    return dict(_OPTIONS)


def place_of(cls: type) -> str:
    """Return the key of a registered class, or of its base, such as `agent.loss`; else the name of `cls`."""
    return next((_PLACES[base] for base in cls.__mro__ if base in _PLACES), cls.__name__)


def import_path(cls: type) -> str:
    """Return the dotted path by which Hydra finds `cls`."""
    return f"{cls.__module__}.{cls.__qualname__}"


def class_of(target: str) -> type | None:
    """Return the registered class with this import path or public name; None if there is none."""
    return _CLASSES.get(_PUBLIC_NAMES.get(target, target))


def slots(cls: type) -> dict[str, type]:
    """Return the exchangeable parts of a registered class: field name to class of the default part."""
    return {f.name: f.metadata[_SLOT] for f in _fields(cls) if _SLOT in f.metadata}


def interface_of(field: dataclasses.Field[Any]) -> type | None:
    """Return the Protocol of the parts in a slot; None if it has none."""
    return field.metadata.get(_INTERFACE)


def to_public_names(tree: Any) -> Any:
    """Replace import paths of registered classes in a plain configuration by their public names."""
    return _map_targets(tree, lambda target: _PUBLIC_NAMES.get(target, target))


def to_import_path(target: Any) -> str:
    """Return the import path of a `_target_` in a stored configuration.

    Raises UserError if it is not a text, or a public name that is not registered.
    """
    if not isinstance(target, str):
        raise UserError(f"the stored configuration uses {target!r:.50} as a part, which is not a name")
    if target in _CLASSES:
        return import_path(_CLASSES[target])
    if "=" in target:
        raise UserError(
            f"the stored configuration uses {target}, which this version of dqn_runner does not have"
        )
    return target


def to_plain(value: Any, nested: bool = False) -> Any:
    """Convert a part built in Python to plain values: its public name and its settings.

    The settings of an object that is not a dataclass are its public attributes. An object within such an
    object (`nested`) is given by its class alone: it can be a cache, an environment or the owner.
    """
    if isinstance(value, Enum):
        return value.name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls: type = type(value)
        return _describe(cls, {field.name: getattr(value, field.name) for field in _fields(cls)}, nested)
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, nested) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item, nested) for item in cast("list[Any]", value)]
    if isinstance(value, (set, frozenset)):
        return sorted((to_plain(item, nested) for item in cast("set[Any]", value)), key=repr)
    if isinstance(value, (np.generic, np.ndarray)):
        return cast("Any", value).tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    kind: type = type(cast("object", value))
    public = {} if nested else {k: v for k, v in getattr(value, "__dict__", {}).items() if k[:1] != "_"}
    return _describe(kind, public, nested=True)


def with_defaults(tree: Any) -> Any:
    """Add settings that a stored configuration lacks, such as later additions, with their defaults."""
    if isinstance(tree, list):
        return [with_defaults(item) for item in cast("list[Any]", tree)]
    if not isinstance(tree, Mapping):
        return tree
    settings: dict[str, Any] = {**tree}
    found = {key: with_defaults(value) for key, value in settings.items()}
    cls = class_of(str(settings.get(TARGET)))
    for field in _fields(cls) if cls is not None else ():
        if field.name not in found and (default := _default_of(field)) is not dataclasses.MISSING:
            found[field.name] = to_plain(default)
    return found


def _publish(cls: type, name: str) -> None:
    _PUBLIC_NAMES[import_path(cls)] = name
    _CLASSES[name] = cls


def _describe(cls: type, settings: Mapping[str, Any], nested: bool) -> dict[str, Any]:
    path = import_path(cls)
    name = _PUBLIC_NAMES.get(path, path)
    return {TARGET: name, **{key: to_plain(item, nested) for key, item in settings.items()}}


def _map_targets(tree: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(tree, list):
        return [_map_targets(item, rename) for item in cast("list[Any]", tree)]
    if not isinstance(tree, Mapping):
        return tree
    items = cast("Mapping[str, Any]", tree).items()
    return {
        key: rename(value) if key == TARGET and isinstance(value, str) else _map_targets(value, rename)
        for key, value in items
    }


def _default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return dataclasses.MISSING if field.default == MISSING else field.default


def _fields(cls: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]


def open_mappings(schema: type) -> DictConfig:
    """Return the node of a schema; its free-form mappings accept new keys without a plus sign."""
    node = OmegaConf.structured(schema)
    for field in _fields(schema):
        if get_origin(field.default_factory) is dict:
            OmegaConf.set_struct(node[field.name], False)
    return node


def _schema(cls: type) -> type:
    """Add a `_target_` to `cls`; slots are MISSING, because a default instance would reject other parts."""
    fields: list[Any] = [(TARGET, str, dataclasses.field(default=import_path(cls)))]
    parts = slots(cls)
    fields += [(name, Any, dataclasses.field(default=MISSING)) for name in parts]
    if parts:
        entries = [*({name: _OPTIONS[part][1]} for name, part in parts.items()), "_self_"]
        fields.append(("defaults", list[Any], dataclasses.field(default_factory=lambda: entries)))
    return _subclass(cls, fields)


def _subclass(cls: type, fields: list[Any]) -> type:
    """Create a dataclass that adds `fields` to `cls`, as an attribute of the module of `cls`.

    A composed configuration contains the type of each node, and pickle (Hydra's PickleJobInfoCallback,
    launchers) finds a type by its module and name.
    """
    schema = dataclasses.make_dataclass(f"{cls.__name__}Schema", fields, bases=(cls,), kw_only=True)
    schema.__module__ = cls.__module__
    setattr(sys.modules[cls.__module__], schema.__name__, schema)
    return schema
