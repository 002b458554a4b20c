"""Turns what Hydra, OmegaConf and the parts raise into one readable message."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from collections.abc import Iterable
from pickle import UnpicklingError
from typing import Any

from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from yaml import YAMLError

from dqn_runner.config.other_names import what_to_write
from dqn_runner.config.overrides import grammar_error
from dqn_runner.core.exceptions import (
    DivergedError,
    JobLostError,
    PrunedError,
    RunFailedError,
    UserError,
)
from dqn_runner.core.registry import options
from dqn_runner.envs.env_ids import atari_game
from dqn_runner.io.files import NO_ROOM

LAUNCHERS = ("joblib", "submitit", "ray")
"""The modules of the launchers of the extra `launchers`, and the beginnings of their options."""


RERUN = "--experimental-rerun"


def explain(error: BaseException) -> str | None:
    """One message for an error that the user can fix; None for a bug."""
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, (UserError, RunFailedError, DivergedError, PrunedError, JobLostError)):
            return str(link) or type(link).__name__
        if isinstance(link, (ConfigKeyError, ConfigAttributeError)):
            return _unknown_key(link)
        if isinstance(link, MissingMandatoryValue):
            return f"{link.full_key} must be given"
    for link in chain:
        if isinstance(link, OmegaConfBaseException):
            return _wrong_value(link)
    for link in chain:
        if isinstance(link, ModuleNotFoundError) and link.name in LAUNCHERS:
            return f"hydra/launcher needs the module '{link.name}'; pip install 'dqn_runner[launchers]'"
        if isinstance(link, MemoryError):
            return f"this machine does not have enough memory: {link}"
        if isinstance(link, UnpicklingError) and any(word.startswith(RERUN) for word in sys.argv):
            return f"the file of {RERUN} is damaged: {link}"
        if isinstance(link, YAMLError):
            return f"a configuration file is not valid YAML: {link}"
        if isinstance(link, OSError) and link.errno in NO_ROOM:
            where = f"{link.filename} cannot be written" if link.filename is not None else "the disk is full"
            return f"{where} ({link.strerror}); free disk space, and repeat the command to continue"
        if isinstance(link, OSError) and link.filename is not None:
            return f"{link.filename}: {link.strerror}"
        if isinstance(link, InstantiationException):
            return _instantiation(link)
        if isinstance(link, HydraException):
            return _hydra(link)
        if isinstance(link, ValueError) and str(link).startswith("Config group override must be a string"):
            return (  # Hydra's answer, which does not name the group
                "the option of a group cannot be null; choose one, such as hydra.sweeper.pruner=none or "
                "hydra.sweeper.sampler=tpe"
            )
        if _sets_below_no_section(link):
            return (
                "an override sets a key below a setting that holds no keys, such as null; for "
                "hydra.sweeper.params in a command, add hydra/sweeper=optuna, or list the values, as in "
                "agent.gamma=0.9,0.95"
            )
    return None


def unknown_key(key: str, root: Any) -> str:
    """The message for a key that the configuration `root` does not have, with what to write instead."""
    return f"unknown key '{key}'{_hint(key, root) or _suggestion(key, root)}"


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that is most similar to `word`; None if no candidate is."""
    names = list(candidates)
    initials = [name for name in names if "".join(part[:1] for part in name.split("_")) == word]
    if initials:
        return initials[0]
    folded = {name.lower(): name for name in reversed(names)}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def _chain(error: BaseException) -> Iterable[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _sets_below_no_section(error: BaseException) -> bool:
    """Whether this is OmegaConf's answer to a key below one that has none; the key is not always in it."""
    text = str(error)
    if isinstance(error, AttributeError):
        return text.startswith("'NoneType' object has no attribute") and "full_key:" in text
    return isinstance(error, AssertionError) and text.startswith("Unexpected type")


def _unknown_key(error: ConfigKeyError | ConfigAttributeError) -> str:
    key = str(error.full_key)
    root: Any = error.parent_node
    while root is not None and (parent := root._get_parent()) is not None:  # pyright: ignore[reportPrivateUsage]
        root = parent
    return unknown_key(key, root)


def _wrong_value(error: OmegaConfBaseException) -> str:
    """OmegaConf's message, with what to write for a frequent mistake."""
    key, reason = error.full_key, _first_line(error)
    section = re.fullmatch(r"Merge error: (\w+) is not a subclass of (\w+?)(?:Schema)?\. value: (.*)", reason)
    if section and section[2] == "Checkpoint":
        return f"checkpoint is a section; in a file, write checkpoint: {{path: {section[3]}}}"
    if section:
        return (
            f"{section[3]} ({section[1]}) stands in the place of a section with the settings of {section[2]}"
        )
    whole = re.match(r"Value '(\d[\d.e+]*)' of type 'float' could not be converted to Integer", reason)
    if whole and float(whole[1]).is_integer():
        return f"{key} must be an integer; write {key}={int(float(whole[1]))}"
    if "is not a ListConfig, list or tuple" in reason or reason == "Cannot merge DictConfig with ListConfig":
        if not key:
            return "a list stands in the place of a section, or a section in the place of a list"
        return f"{key} must be a list in brackets, as in {key}=[...]"
    if reason.endswith("does not support deletion"):
        return f"{key} cannot be deleted; leave ~{key} out, or write {key}=VALUE"
    if re.search(r"Value '(none|None|nan|NaN)' of type", reason):
        reason += "; write null for none"
    return f"{key}: {reason}" if key else reason


def _hint(key: str, root: Any) -> str:
    """What to write in the place of a key that is a frequent mistake; empty for any other."""
    logger = re.match(r"logging\.(\w+)", key)
    if logger and isinstance(root, DictConfig) and logger[1] not in root.logging:
        used = ", ".join(str(name) for name in root.logging)
        return f"; the loggers in use are {used}; logging=[...] names those to use"
    if searched := re.fullmatch(r"hydra\.sweeper\.search_space(?:\.(.+))?", key):
        parameter = searched[1] or "KEY"
        return f"; search spaces are in hydra.sweeper.params: hydra.sweeper.params.{parameter}=..."
    if key.startswith("hydra.sweeper.") and "n_trials" not in _sweeper_keys(root):
        return "; the settings of the Optuna sweeper need hydra/sweeper=optuna, or a file as in search=dqn"
    if known := what_to_write(key.rpartition(".")[2]) or what_to_write(key.replace(".", "_")):
        return f"; {known}"
    if added := re.fullmatch(r"hydra\.job\.env_set\.(\w+)", key):
        return f"; a new entry needs a plus sign: +hydra.job.env_set.{added[1]}=..."
    return ""


def _sweeper_keys(root: Any) -> list[str]:
    """The settings of the chosen sweeper; only those of the Optuna sweeper include `n_trials`."""
    sweeper = OmegaConf.select(root, "hydra.sweeper") if isinstance(root, DictConfig) else None
    return [str(key) for key in sweeper] if isinstance(sweeper, DictConfig) else []


def _suggestion(key: str, root: Any) -> str:
    """The most similar key, first among its siblings, then in the whole tree."""
    if "/" in key:
        group = nearest(key, {group for group, _ in options().values()})
        return f"; did you mean '{group}'?" if group else ""
    parent, _, name = key.rpartition(".")
    if elsewhere := _options_with(parent, name):
        return f" in the chosen {parent}; {' or '.join(elsewhere)} has it"
    keys = list(_dotted(root)) if isinstance(root, DictConfig) else []
    keys = [k for k in keys if k.startswith("hydra.") == key.startswith("hydra.")]
    siblings = [k.rpartition(".")[2] for k in keys if k.rpartition(".")[0] == parent]
    if match := nearest(name, siblings):
        return f"; did you mean '{parent + '.' if parent else ''}{match}'?"
    leaves = {k.rpartition(".")[2]: k for k in reversed(keys)}
    match = leaves.get(name) or leaves.get(nearest(name, leaves) or "") or nearest(key, keys)
    if match:
        return f"; did you mean '{match}'?"
    return f"; available: {', '.join(siblings)}" if siblings else ""


def _options_with(parent: str, name: str) -> list[str]:
    """The options of the part `parent` that have a setting `name`, as typed on the command line."""
    chosen = ((cls, *place) for cls, place in options().items() if place[0] == parent.replace(".", "/"))
    return [f"{g}={n}" for cls, g, n in chosen if name in {f.name for f in dataclasses.fields(cls)}]  # pyright: ignore[reportArgumentType]


def _dotted(node: DictConfig, prefix: str = "") -> Iterable[str]:
    for key in node:
        if key == "defaults":  # of a dataclass, and no setting
            continue
        name = f"{prefix}{key}"
        yield name
        child = node._get_node(key)  # pyright: ignore[reportPrivateUsage, reportArgumentType]
        if isinstance(child, DictConfig) and not (child._is_missing() or child._is_none()):  # pyright: ignore[reportPrivateUsage]
            yield from _dotted(child, f"{name}.")


def _hydra(error: HydraException) -> str:
    """Hydra's own message; for an unknown option, the most similar one and all available ones."""
    text = grammar_error(str(error))
    if "BasicSweeper does not support sweep type" in text:
        return (
            "interval(...) and tag(...) are for sweeps that sample values; add hydra/sweeper=optuna, or list "
            "the values, as in agent.learning_rate=1e-4,1e-3"
        )
    found = re.search(r"Could not (?:find|load) '([^']+/[^']+)'", text)
    if found is None:
        return text
    groups = {group for group, _ in options().values()}
    group, _, name = found[1].rpartition("/")
    if group not in groups and group.partition("/")[0] == "env":  # an id with a namespace
        group, _, name = found[1].partition("/")
    listed = re.search(r"Available options in '[^']+':(.*?)(?:Config search path|$)", text)
    available = listed[1].split() if listed else [n for g, n in options().values() if g == group]
    hint = nearest(name, available)
    guess = f"; did you mean {group}={hint}?" if hint else ""
    if group == "env" and (game := atari_game(name)):
        guess = f"; write env=atari env.game={game}"
    elif group == "env" and re.search(r"-v\d+$|[:.]", name):
        guess = f"; write env=gym env.id={name}"
    elif group == "hydra/launcher" and not hint:
        guess = "; joblib, submitit and ray need pip install 'dqn_runner[launchers]'"
    return f"{group}={name} does not exist{guess} (available: {', '.join(sorted(available))})"


def _instantiation(error: InstantiationException) -> str:
    where = re.search(r"full_key: (\S+)", str(error))
    cause = error.__cause__
    reason = f"{type(cause).__name__}: {cause}" if cause is not None else _first_line(error)
    hint = ""
    if isinstance(cause, TypeError) and where and where[1].startswith("agent."):
        hint = "; docs/api/extending.md says what a part needs"
    return f"{where[1] if where else 'the configuration'} cannot be built: {reason}{hint}"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
