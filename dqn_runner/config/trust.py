"""What a stored document may decide, and what only the command may.

A checkpoint and a configuration that a sweep wrote can come from someone else. They decide among what is
registered in this program: its parts, and the environments in gymnasium's registry. Everything else that they
name is a *request*: code to import, a file to read, a resolver to call. A request is granted if the command
itself, or the user's own configuration, makes the same one, or with `trust=true`.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dqn_runner.config.hydra_internals import compose_command, parse_arguments
from dqn_runner.config.overrides import bare_key, parse_override, parse_overrides, unquote
from dqn_runner.config.schema import CONF, DEFAULT_CONFIG, apply_targets
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import TARGET, class_of
from dqn_runner.envs.env_ids import is_own_env, is_registered
from dqn_runner.run.compatibility import SESSION_KEYS

IMPORTED = (("env", "id"), ("env", "wrappers"), ("agent", "network", "target"))
"""Settings that are import paths, beside each `_target_`: their text, or the texts in their list."""
KWARGS = ("env", "kwargs")
FILES = (("agent", "replay", "preload"),)
"""Settings that name data to read when a run begins; a resume does not read it."""
NOT_STORED = ("hydra", "search", *SESSION_KEYS)
"""First parts of the keys that no checkpoint stores."""

_PLAIN_NAME = re.compile(r"[\w-]+(/[\w-]+)*", re.ASCII)
_WORD = re.compile(r"[\w -]*", re.ASCII)
_LONGEST = 100

Leaf = tuple[str, ...]


@dataclass(frozen=True, order=True)
class Request:
    """A setting whose value names something outside of this program."""

    key: str
    value: str

    def __str__(self) -> str:
        """Return the request as an override, on one line."""
        text = self.value.encode("unicode_escape").decode()
        return f"{self.key}={text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}"


def in_tree(tree: Any) -> set[Request]:
    """The requests of a plain configuration."""
    return _find(_scalars(tree))


def in_overrides(overrides: Iterable[Override]) -> set[Request]:
    """The requests of overrides, by their texts alone."""
    return _find(leaf for o in overrides for leaf in _scalars(unquote(o.value()), _split(o.key_or_group)))


def in_config(cfg: DictConfig) -> set[Request]:
    """The requests of a composed configuration: as it is written, and with its interpolations resolved.

    It must not contain a resolver that has not been granted. What cannot be resolved counts as it is written.
    """
    written: Any = OmegaConf.to_container(cfg, enum_to_str=True)
    found = in_tree(written)
    try:
        resolved: Any = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    except OmegaConfBaseException:
        return found
    return found | {request for request in in_tree(resolved) if not calls_resolver(request.value)}


def files_in(tree: Any) -> set[Request]:
    """The data that a plain configuration names."""
    return {_request(path, value) for path, value in _scalars(tree) if path in FILES and value is not None}


def resolver_calls(requests: Iterable[Request]) -> set[Request]:
    """Those that call a resolver, as `${oc.env:X}` does."""
    return {request for request in requests if calls_resolver(request.value)}


def calls_resolver(text: str) -> bool:
    """Whether a text may call a resolver when it is resolved; an escaped one counts too."""
    _, interpolation, rest = text.partition("${")
    return bool(interpolation) and ":" in rest


def check_stored(config_name: str, overrides: Sequence[str], source: str) -> None:
    """Reject what no run stores: overrides of Hydra or of a session, and a path in the place of a name."""
    if not _PLAIN_NAME.fullmatch(config_name):
        raise UserError(
            f"{source} is not as it was written, do not use it: it stores --config-name={config_name!r}"
        )
    for text in overrides:
        override = parse_override(text)
        places = (override.key_or_group, override.package or "")
        option: Any = unquote(override.value())
        options = cast("list[Any]", option) if isinstance(option, list) else [option]
        names = [name for name in options if isinstance(name, str)]
        if any(place.partition(".")[0].partition("/")[0] in NOT_STORED for place in places):
            problem = "a run never stores such a setting"
        elif "_global_" in places:
            problem = "a run never stores such a package"
        elif _is_option(override) and not all(map(_PLAIN_NAME.fullmatch, names)):
            problem = "its value is not the name of an option"
        else:
            continue
        raise UserError(f"{source} is not as it was written, do not use it: it stores {text!r}; {problem}")


class Command:
    """What the command itself names, from its overrides and the configuration that it composes alone."""

    def __init__(self, argv: Sequence[str]) -> None:
        """`argv` is the command line without the overrides of a stored run."""
        self._arguments = parse_arguments(argv)
        self._overrides = parse_overrides(self._arguments.overrides)

    @property
    def keys(self) -> set[str]:
        """The keys of its overrides."""
        return {override.key_or_group for override in self._overrides}

    @property
    def is_trusting(self) -> bool:
        """Whether it sets `trust=true`."""
        given = [o.value() for o in self._overrides if o.key_or_group == "trust"]
        return given[-1] is True if given else bool(self.config.trust)

    def requests(self) -> set[Request]:
        """Its own requests, for data too."""
        config = without_hydra(self.config)
        files = files_in(OmegaConf.to_container(config, enum_to_str=True))
        return in_overrides(self._overrides) | in_config(config) | files

    @cached_property
    def config(self) -> DictConfig:
        """The configuration of the command alone, without settings that only a stored run makes possible."""
        try:
            cfg = compose_command(self._arguments, CONF, DEFAULT_CONFIG)
        except Exception:  # such as a setting of a part that only the stored run chooses
            kept = [o.input_line for o in self._overrides if _is_option(o) or _is_of_command(o)]
            arguments = Namespace(**{**vars(self._arguments), "overrides": kept})
            cfg = compose_command(arguments, CONF, DEFAULT_CONFIG)
        apply_targets(cfg, self.keys)
        return cfg


def _is_option(override: Override) -> bool:
    return "." not in override.key_or_group


def _is_of_command(override: Override) -> bool:
    return override.key_or_group.partition(".")[0] in NOT_STORED


def without_hydra(cfg: DictConfig) -> DictConfig:
    """A composed configuration without its section of Hydra."""
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def grant(source: str, requests: set[Request], own: Callable[[], set[Request]]) -> None:
    """Raise UserError, with one line that lists them, for requests that the command does not make itself."""
    rejected = sorted(requests - own()) if requests else []
    if rejected:
        raise UserError(
            f"{source} asks for {', '.join(map(str, rejected))}, which is not part of dqn_runner; nothing of "
            "it was imported or read. If you trust the origin of the file, add trust=true, or repeat these "
            "settings in the command"
        )


def _find(leaves: Iterable[tuple[Leaf, Any]]) -> set[Request]:
    items = list(leaves)
    env_id = next((value for path, value in items if path == IMPORTED[0]), None)
    return {_request(path, value) for path, value in items if _is_outside(path, value, env_id)}


def _request(path: Leaf, value: Any) -> Request:
    key = IMPORTED[0] if path == ("env", TARGET) else path  # see apply_targets
    return Request(".".join(key), str(value))


def _is_outside(path: Leaf, value: Any, env_id: Any) -> bool:
    if path[-1:] == (TARGET,):
        return not isinstance(value, str) or class_of(value) is None
    if not isinstance(value, str):
        return False
    if calls_resolver(value):
        return True
    if path == IMPORTED[0]:
        return not is_registered(value)
    if path[: len(KWARGS)] == KWARGS:
        return not _is_harmless_argument(value, env_id)
    place = path[:-1] if path[-1:] and path[-1].isdecimal() else path
    return place in IMPORTED and value != "???"


def _is_harmless_argument(value: str, env_id: Any) -> bool:
    """Whether a text can be an argument of an environment: some of them import a module or read a file by it.

    The arguments of an environment that is not registered come with the request for its id.
    """
    if isinstance(env_id, str) and not is_registered(env_id):
        return True
    return (env_id is None or is_own_env(env_id)) and _WORD.fullmatch(value) is not None


def _scalars(value: Any, path: Leaf = ()) -> Iterator[tuple[Leaf, Any]]:
    """The values of a nested configuration by path; a key with dots or brackets is a path."""
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[Any, Any]", value).items():
            yield from _scalars(item, (*path, *_split(str(key))))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(cast("Sequence[Any]", value)):
            yield from _scalars(item, (*path, str(index)))
    else:
        yield path, value


def _split(key: str) -> Leaf:
    return tuple(part for part in re.split(r"[.\[\]]+", bare_key(key)) if part)
