"""Checks of the YAML files that Hydra loads for a command: each mistake is named with its file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from dqn_runner.config.schema import CONF, DEFAULT_CONFIG
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


def check_file(path: Path, name: str, primary: str | None) -> None:
    """Raise UserError for the first mistake in a YAML file, which Hydra knows by its `name` (`env/my_env`).

    `primary` is the name that the command gives with --config-name. Files of the program have no mistakes.
    """
    if path.is_relative_to(CONF):
        return
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    text = _text_of(shown)
    tree = _mapping_of(shown, text)
    group, _, option = name.rpartition("/")
    package = re.match(r"\s*#\s*@package\s+(\S+)", text)  # Hydra finds it only at the start
    if group.partition("/")[0] in _GLOBAL and package is None:
        raise UserError(
            f"{shown} needs the first line '# @package _global_'; without it, its settings would be those of "
            f"'{group}'"
        )
    is_global = package[1] == "_global_" if package else not group
    defaults = tree.pop("defaults", [])
    if not isinstance(defaults, list):
        raise UserError(f"{shown}: defaults must be a list; write '- ' before each entry")
    entries = cast("list[Any]", defaults)
    if name == primary:
        _check_primary(shown, group, option, entries)
    for entry in entries:
        if not isinstance(entry, str):
            _check_choice(shown, name, entry, is_global and (bool(group) or DEFAULT_CONFIG in entries))
    _check_keys(shown, text, tree, is_global)


def _check_primary(path: Path, group: str, option: str, defaults: Sequence[Any]) -> None:
    """Reject a file that --config-name names, and that is an option or holds its own settings alone."""
    if group.partition("/")[0] in {*_GLOBAL, *_groups()}:
        raise UserError(f"{path} is an option and no whole configuration; choose it by {group}={option}")
    if all(entry == "_self_" for entry in defaults):
        raise UserError(
            f"{path} has only some settings; begin it with 'defaults: [{DEFAULT_CONFIG}, _self_]'"
        )


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
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply, or an anchor in it contains itself") from error
    except (YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    is_text = isinstance(tree, dict) and bool(_code(text).split()) and not re.search(r":(\s|$)", _code(text))
    if not isinstance(tree, dict) or is_text or not tree:
        kind = "a list" if isinstance(tree, list) else "text" if is_text else "empty"
        raise UserError(f"{path} is {kind}; it must contain settings, one a line, as in 'seed: 3'")
    return {str(key): value for key, value in cast("dict[Any, Any]", tree).items()}


def _code(text: str) -> str:
    """The text without the lines that are comments."""
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _check_choice(path: Path, name: str, entry: Any, only_overrides: bool) -> None:
    """Check an entry of the defaults list that chooses an option, as in `- override /agent: c51`."""
    pairs = [*cast("Mapping[Any, Any]", entry).items()] if isinstance(entry, Mapping) else []
    if len(pairs) != 1 or not _names_options(pairs[0][1]):
        raise UserError(
            f"{path}: '- {entry}' in defaults is not a choice; write one a line, as in '- env: gym'"
        )
    key, option = str(pairs[0][0]), pairs[0][1]
    group = re.sub(r"^((override|optional)\s+)*", "", key).partition("@")[0].strip("/")
    if (
        only_overrides
        and group in _groups()
        and not re.match(r"override\s+/" if "/" in name else "override", key)
    ):
        raise UserError(f"{path}: write '- override /{group}: {option}' instead of '- {key}: {option}'")
    if key.startswith("override") and name.startswith(f"{group}/"):
        raise UserError(
            f"{path}: '- {key}: {option}' cannot replace this file; write '- {option}' to add its settings"
        )


def _names_options(value: Any) -> bool:
    names = cast("list[Any]", value) if isinstance(value, list) else [value]
    return value is None or all(isinstance(name, str) for name in names)


def _groups() -> set[str]:
    return {group for group, _ in options().values()}


def _check_keys(path: Path, text: str, tree: Mapping[str, Any], is_global: bool) -> None:
    """Reject keys that say in one line what YAML says by indentation or in the defaults list."""
    groups = _groups()
    places = {group.partition("/")[0] for group in groups}
    for key, value in _keys(tree):
        line = next((n for n, row in enumerate(text.splitlines(), 1) if row.strip().startswith(key)), None)
        where = f"{path}, line {line}" if line else f"{path}"
        chosen = isinstance(value, str) and "/" not in value
        if ("/" in key and key.partition("/")[0] in places) or (
            is_global and key in groups and key in tree and chosen
        ):
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
