"""One dataclass is schema, defaults, documentation, Hydra option and object at once.

`@option("agent/loss", "q_learning")` puts a dataclass into Hydra's ConfigStore. Its fields become the
schema of the option, with a `_target_` that leads back to the class, so that instantiating the composed
node gives an object of that class. A field made by `slot(...)` holds another registered part: Python
gets an instance of the default part, Hydra gets an entry in the option's defaults list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_origin

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

T = TypeVar("T")

_SLOT = "dqn_runner.slot"
_OPTIONS: dict[type, tuple[str, str]] = {}

_store = ConfigStore.instance()


def _share_store(_: object) -> ConfigStore:
    return ConfigStore.instance()


# Hydra deep-copies the whole store for every config group it lists, though it copies each node again when
# it loads one. Sharing the store instead takes half a second off `--help`.
vars(_store)["__deepcopy__"] = _share_store


def slot(default: type) -> Any:
    """A field for an open part; `default` is the registered class whose instance fills it."""
    return dataclasses.field(default_factory=default, metadata={_SLOT: default})


def option(group: str, name: str, package: str | None = None) -> Callable[[type[T]], type[T]]:
    """Register a dataclass as the choice `name` of the Hydra config group `group`."""

    def register(cls: type[T]) -> type[T]:
        _OPTIONS[cls] = (group, name)
        _store.store(group=group, name=name, node=_node(cls), package=package, provider="dqn_runner")
        return cls

    return register


def store_root(name: str, cls: type) -> None:
    """Register the dataclass at the root of the configuration tree under `name`."""
    _store.store(name=name, node=_schema(cls), provider="dqn_runner")


def store_plugin(group: str, name: str, cls: type, target: str, parts: Mapping[str, str]) -> None:
    """Register `cls` as the settings of the Hydra plugin `target`, which has open `parts` of its own.

    Hydra wants plugins below its own namespace, and hands them their parts' settings, not the objects.
    """
    entries = [*({part: choice} for part, choice in parts.items()), "_self_"]
    fields: list[Any] = [
        ("_target_", str, dataclasses.field(default=target)),
        ("_recursive_", bool, dataclasses.field(default=False)),
        ("defaults", list[Any], dataclasses.field(default_factory=lambda: entries)),
    ]
    schema = dataclasses.make_dataclass(cls.__name__, fields, bases=(cls,), kw_only=True)
    _store.store(group=group, name=name, node=_opened(schema), provider="dqn_runner")


def options() -> dict[type, tuple[str, str]]:
    """Every registered class with its (group, name)."""
    return dict(_OPTIONS)


def import_path(cls: type) -> str:
    """The dotted path by which Hydra finds `cls`."""
    return f"{cls.__module__}.{cls.__qualname__}"


def slots(cls: type) -> dict[str, type]:
    """The open parts of a registered class: field name to default part."""
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
    return {f.name: f.metadata[_SLOT] for f in fields if _SLOT in f.metadata}


def _node(cls: type) -> DictConfig:
    """The schema as Hydra takes it."""
    return _opened(_schema(cls))


def _opened(schema: type) -> DictConfig:
    """A schema whose free-form mappings accept new keys without a plus sign."""
    node = OmegaConf.structured(schema)
    for field in dataclasses.fields(schema):  # pyright: ignore[reportArgumentType]
        if get_origin(field.default_factory) is dict:
            OmegaConf.set_struct(node[field.name], False)
    return node


def _schema(cls: type) -> type:
    """`cls` with a `_target_`; slots are MISSING, for a default instance would refuse its siblings."""
    fields: list[Any] = [("_target_", str, dataclasses.field(default=import_path(cls)))]
    parts = slots(cls)
    fields += [(name, Any, dataclasses.field(default=MISSING)) for name in parts]
    if parts:
        entries = [*({name: _OPTIONS[part][1]} for name, part in parts.items()), "_self_"]
        fields.append(("defaults", list[Any], dataclasses.field(default_factory=lambda: entries)))
    return dataclasses.make_dataclass(cls.__name__, fields, bases=(cls,), kw_only=True)
