"""Writes the configuration of a trial as an experiment, which composes without the command of the sweep."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dqn_runner.config.chosen_files import BEST_CONFIG
from dqn_runner.config.command_line import expand_arguments, long_form
from dqn_runner.config.hydra_internals import make_config_loader, parse_arguments
from dqn_runner.config.overrides import parse_overrides, quote
from dqn_runner.config.schema import DEFAULT_CONFIG, apply_targets
from dqn_runner.io.files import make_directory, write_atomically
from dqn_runner.run.compatibility import SESSION_KEYS, changes, leaves
from dqn_runner.sweep.jobs import Command

Choices = dict[str, str | list[str] | None]
"""The options chosen for config groups."""


def write_best_config(
    command: Command, overrides: Sequence[str], directory: Path, header: Sequence[str]
) -> list[str]:
    """Write `directory`/experiment/best_config.yaml: the configuration of `command` and `overrides`.

    The comment lines `header` identify the trial; a file that has them, and is as it was written, is not
    written again. Options from the --config-dir or hydra.searchpath of the command are copied into
    `directory`, so that `--config-dir DIRECTORY experiment=best_config` composes on any installation. Call it
    within a Hydra run.

    Returns the differences between the trial and the file, as `key: trial -> file`. There are none, unless
    the sweep removed settings, or added settings that a YAML file cannot add.
    """
    file = directory / "experiment" / f"{BEST_CONFIG}.yaml"
    head = "".join(f"# {' '.join(line.split())}\n" for line in ("@package _global_", *header))
    if _is_written(file, head):
        return []
    ours = GlobalHydra.instance().config_loader()
    arguments = parse_arguments(list(command.flags))
    kept = [o for o in (*command.fixed, *overrides) if not is_session_override(o)]
    requested = expand_arguments(long_form(kept))
    path = command.search_path()
    trial = _Composition(ours, arguments.config_name or DEFAULT_CONFIG, [*requested, *path])
    cfg = trial.compose()
    apply_targets(cfg, {override.key_or_group for override in parse_overrides(requested)})
    entries, base = _choose(ours, trial.choices, path)
    values = _difference(_values(cfg), _values(base.compose()))
    for option in base.options:
        _copy_option(option, cfg, directory)
    parts: list[dict[str, Any]] = [{"defaults": [*entries, "_self_"]}, *([values] if values else [])]
    text = "\n".join(OmegaConf.to_yaml(OmegaConf.create(part)) for part in parts)
    make_directory(file.parent)
    write_atomically(file, _with_checksum(head, text.encode()))
    written = _Composition(_loader(ours, directory), DEFAULT_CONFIG, [f"experiment={BEST_CONFIG}"]).compose()
    return changes(leaves(_values(cfg)), leaves(_values(written)))


def _is_written(file: Path, head: str) -> bool:
    """Whether the file has this beginning and is not damaged."""
    try:
        content = file.read_bytes()
    except OSError:
        return False
    return content == _with_checksum(head, content[len(_with_checksum(head, b"")) :])


def _with_checksum(head: str, body: bytes) -> bytes:
    return f"{head}# sha256 of the following lines: {hashlib.sha256(body).hexdigest()}\n".encode() + body


def is_session_override(override: str) -> bool:
    """Whether an override applies to one session only, and is not part of the configuration of a run."""
    return parse_overrides([override])[0].key_or_group.partition(".")[0] in SESSION_KEYS


class _Composition:
    """The options that a configuration is composed of, and the configuration."""

    def __init__(self, loader: Any, name: str, overrides: Sequence[str]) -> None:
        """Resolve the options; reads only their defaults lists."""
        self._load: Callable[[], DictConfig] = lambda: loader.load_configuration(
            name, list(overrides), RunMode.RUN
        )
        found = loader.compute_defaults_list(name, list(overrides), RunMode.RUN)
        defaults = [d for d in found.defaults if not d.config_path.startswith("hydra/") and not d.primary]
        self.options: list[str] = [default.config_path for default in defaults]
        """As paths relative to a directory of options."""
        recipes = {default.config_path for default in defaults if default.package == ""}
        self.choices: Choices = {
            group: name
            for group, name in found.overrides.known_choices.items()
            if not group.startswith("hydra/") and f"{group.partition('@')[0]}/{name}" not in recipes
        }
        """Without recipes (options of the package _global_): the groups that they set are included."""
        lists: dict[str, list[str]] = {}
        for default in defaults:  # Hydra records no choice for a group with a list
            group, _, option = default.config_path.rpartition("/")
            if group and default.parent == name and default.config_path not in recipes:
                lists.setdefault(group, []).append(option)
        self.choices |= {g: options for g, options in lists.items() if g not in found.overrides.known_choices}

    def compose(self) -> DictConfig:
        """The configuration."""
        return self._load()


def _values(cfg: DictConfig) -> dict[str, Any]:
    """The settings of a run, with unresolved interpolations."""
    values: Any = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)
    return {key: value for key, value in values.items() if key not in ("hydra", *SESSION_KEYS)}


def _choose(loader: Any, wanted: Choices, path: Sequence[str]) -> tuple[list[Choices], _Composition]:
    """The entries of a defaults list that differ from the defaults, and their composition.

    An option selects options of the groups below it, so these are compared after it is chosen.
    """
    entries: list[Choices] = []
    overrides: list[str] = []
    seen: set[str] = set()
    while True:
        composition = _Composition(loader, DEFAULT_CONFIG, [*path, *overrides])
        given = composition.choices
        groups = {group for group in {**given, **wanted} if given.get(group) != wanted.get(group)} - seen
        if not groups:
            return entries, composition
        for group in sorted(groups):
            if any(group.startswith(f"{above}/") for above in groups):
                continue
            seen.add(group)
            chosen = wanted.get(group, [] if isinstance(given.get(group), list) else None)
            entries.append({f"override /{group}" if group in given else f"/{group}": chosen})
            overrides.append(_as_override(group, chosen, group in given))


def _difference(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that must be merged into `old` to get `new`."""
    found: dict[str, Any] = {}
    known = leaves(old)
    for path, value in leaves(new).items():
        if repr(value) != repr(known.get(path, ...)):  # 1 is not 1.0, and not True
            node = found
            for key in path[:-1]:
                node = node.setdefault(key, {})
            node[path[-1]] = value
    return found


def _copy_option(option: str, cfg: DictConfig, directory: Path) -> None:
    """Copy an option into `directory` if it comes from a directory of the user."""
    for source in cfg.hydra.runtime.config_sources:
        file = Path(source.path) / f"{option}.yaml"
        if source.schema != "file" or not file.is_file():
            continue
        if source.provider == "command-line" or source.provider.startswith("hydra.searchpath"):
            copied = directory / f"{option}.yaml"
            make_directory(copied.parent)
            write_atomically(copied, file.read_bytes())
        return


def _loader(ours: Any, directory: Path) -> Any:
    """The loader of a command with `directory` as --config-dir."""
    path = copy.deepcopy(ours.get_search_path())
    path.get_path()[:] = [entry for entry in path.get_path() if entry.provider != "command-line"]
    where = f"file://{directory.absolute()}"
    path.prepend(provider="command-line", path=where, anchor=SearchPathQuery(provider="schema"))
    return make_config_loader(path)


def _as_override(group: str, chosen: str | list[str] | None, is_there: bool) -> str:
    if chosen is None:
        return f"~{group}"
    names = quote(chosen) if isinstance(chosen, str) else f"[{','.join(map(quote, chosen))}]"
    return f"{'' if is_there else '+'}{group}={names}"
