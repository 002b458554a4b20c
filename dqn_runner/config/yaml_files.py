"""Checks of the YAML files that a command line chooses: each mistake is named with its file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import options

_GLOBAL = ("experiment", "search")
"""Groups whose files set keys of the whole tree."""
_FREE = {"params", "kwargs", "env_set"}
"""Mappings whose keys are free, also with dots."""
_HINTS = {
    "\\t": "indent with blanks instead of tabs",
    "mapping values are not allowed": "check the indentation, and put a text that contains ': ' in quotes",
    "expected <block end>": "check the indentation",
}


def check_chosen_files(overrides: Sequence[Override], directories: Sequence[Path]) -> None:
    """Raise UserError for the first mistake in a file that the overrides choose from `directories`."""
    for override in overrides:
        if override.is_delete() or override.is_sweep_override():
            continue
        value = override.value()
        for name in value if isinstance(value, list) else [value]:
            _check_option(override.key_or_group, str(name), directories)


def _check_option(group: str, name: str, directories: Sequence[Path]) -> None:
    """Check the file of an option and those in its defaults list."""
    file = Path(group) / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    path = next((found for each in directories if (found := each / file).is_file()), None)
    if path is None:
        return
    text = _text_of(path)
    tree = _mapping_of(path, text)
    package = re.match(r"\s*#\s*@package\s+(\S+)", text)  # Hydra finds it only at the start
    if group in _GLOBAL and package is None:
        raise UserError(
            f"{path} needs the first line '# @package _global_'; without it, its settings would be those of "
            f"'{group}'"
        )
    is_global = package is not None and package[1] == "_global_"
    defaults = tree.pop("defaults", [])
    for chosen_group, chosen in _choices(path, defaults, is_global):
        if chosen_group != group or chosen != name:
            _check_option(chosen_group, chosen, directories)
    _check_keys(path, text, tree, is_global)


def _text_of(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path} is in UTF-16; save it as UTF-8")
    if content.startswith(b"\xef\xbb\xbf"):
        raise UserError(
            f"{path} begins with a byte-order mark, which hides its first line; save it without one"
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: a character is not in UTF-8; save the file as UTF-8"
        ) from error


def _mapping_of(path: Path, text: str) -> dict[str, Any]:
    """The content of a file: settings by key."""
    try:
        config = OmegaConf.create(text)
        tree: Any = OmegaConf.to_container(config, resolve=False)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        problem = f"{error.problem}"
        hint = next((f"; {hint}" for word, hint in _HINTS.items() if word in problem), "")
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: {problem}{hint}") from error
    except (YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    is_text = isinstance(tree, dict) and bool(_code(text).split()) and not re.search(r":(\s|$)", _code(text))
    if not isinstance(tree, dict) or is_text or not tree:
        kind = "a list" if isinstance(tree, list) else "text" if is_text else "empty"
        raise UserError(f"{path} is {kind}; it must contain settings, one a line, as in 'seed: 3'")
    return {str(key): value for key, value in cast("dict[Any, Any]", tree).items()}


def _code(text: str) -> str:
    """The text without the lines that are comments."""
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _choices(path: Path, defaults: Any, is_global: bool) -> Iterator[tuple[str, str]]:
    """The options that a defaults list chooses, as (group, name); raises UserError for a malformed list."""
    if not isinstance(defaults, list):
        raise UserError(f"{path}: defaults must be a list; write '- ' before each entry")
    groups = {group for group, _ in options().values()}
    for entry in cast("list[Any]", defaults):
        if not isinstance(entry, Mapping):
            continue
        for key, name in cast("Mapping[Any, Any]", entry).items():
            group = re.sub(r"^(override|optional)\s+", "", str(key)).partition("@")[0]
            if is_global and group.strip("/") in groups and not str(key).startswith("override /"):
                raise UserError(
                    f"{path}: write '- override /{group.strip('/')}: {name}' instead of '- {key}: {name}'"
                )
            if isinstance(name, str):
                yield group.strip("/"), name


def _check_keys(path: Path, text: str, tree: Mapping[str, Any], is_global: bool) -> None:
    """Reject keys that say in one line what YAML says by indentation or in the defaults list."""
    groups = {group for group, _ in options().values()}
    for key, value in _keys(tree):
        line = next((n for n, row in enumerate(text.splitlines(), 1) if row.strip().startswith(key)), None)
        where = f"{path}, line {line}" if line else f"{path}"
        chosen = isinstance(value, str) and "/" not in value
        if "/" in key or (is_global and key in groups and key in tree and chosen):
            raise UserError(
                f"{where}: '{key}: {value}' chooses a part; write '- override /{key}: {value}' under "
                "'defaults:'"
            )
        if "." in key:
            nested = f"{key.replace('.', ': {')}: {value}{'}' * key.count('.')}"
            raise UserError(f"{where}: the key '{key}' has dots; write '{nested}', or a line per key")
        if is_global and key in groups and key in tree and value is None:
            raise UserError(f"{where}: '{key}:' has no settings; indent those below it")


def _keys(tree: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Every key that is not free, with its value."""
    for key, value in tree.items():
        yield str(key), value
        if isinstance(value, Mapping) and key not in _FREE:
            yield from _keys(cast("Mapping[Any, Any]", value))
