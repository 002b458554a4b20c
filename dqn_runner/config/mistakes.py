"""Frequent mistakes on the command line, found before Hydra reads it."""

from __future__ import annotations

import dataclasses
import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from pickle import PROTO

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dqn_runner.config.error_messages import unknown_key
from dqn_runner.config.hydra_internals import compose_command, is_flag
from dqn_runner.config.other_names import FLAGS, what_to_write
from dqn_runner.config.schema import CONF, DEFAULT_CONFIG, RunConfig
from dqn_runner.config.trust import without_hydra
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import options, place_of

_NOTHING = object()
_OPENING, _CLOSING = "[{(", "]})"
_ONLY_MULTIRUN = {"hydra/sweeper": "a sweeper", "hydra/launcher": "a launcher"}


def check_flags(flags: Sequence[str], overrides: Sequence[str]) -> None:
    """Reject a flag that Hydra does not have, as in `--seed 3`, with what to write instead."""
    for flag in flags:
        name, _, value = flag.lstrip("-").partition("=")
        name = FLAGS.get(name, name) if not flag.startswith("--") else name
        if flag.endswith((".yaml", ".yml")) and flags[0] in ("-c", "--cfg"):
            raise UserError(f"-c {flag}: {what_to_write('config')}")
        known = what_to_write(name) if name != "resume" else None
        if not flag.startswith("-") or (is_flag(flag) and name not in ("config", "test", "resume")):
            continue
        given = value or next((token for token in overrides if "=" not in token), "VALUE")
        meant = known or f"write {_full_key(name.replace('-', '_'), given)}={given}"
        raise UserError(f"{flag} is not an option of this program; {meant}")


def _full_key(name: str, value: str) -> str:
    """The key of a setting that is given by its last name alone."""
    if name == "env" and re.search(r"-v\d|[.:]", value):
        return "env=gym env.id"
    places = [place_of(cls) for cls in options() if name in {f.name for f in dataclasses.fields(cls)}]  # pyright: ignore[reportArgumentType]
    is_root = name in {field.name for field in dataclasses.fields(RunConfig)}
    return name if is_root or not places else f"{places[0]}.{name}"


def check_tokens(tokens: Sequence[str]) -> None:
    """Reject what is not an override: blanks around `=` or in a list, a path or a word alone."""
    for index, token in enumerate(tokens):
        key, equals, value = token.partition("=")
        if not key:
            before = tokens[index - 1] if index else ""
            meant = f"{before}={value or ''.join(tokens[index + 1 : index + 2])}"
            write = f"{meant} without blanks" if before and "=" not in before else "key=value, as in seed=3"
            raise UserError(f"'{token}': missing key; write {write}")
        if equals and _depth(value) > 0 and value[0] in _OPENING:
            _reject_blank_in_list(tokens[index:])
        if not equals and not token.startswith("~"):
            _reject_word(token, tokens[index - 1] if index else "", tokens[index + 1 : index + 2])


def check_arguments(arguments: Namespace) -> None:
    """Reject flags of Hydra that do not go together, and an empty directory."""
    if arguments.config_dir == "":
        raise UserError("--config-dir has an empty value; was a variable of the shell empty?")
    if arguments.help or arguments.hydra_help:
        return
    path = arguments.config_path
    if path is not None and not (Path(path).is_absolute() or path.startswith("pkg://")):
        raise UserError(
            f"--config-path {path}: this path must be absolute, and replaces the files of the program; "
            "--config-dir adds a directory to them"
        )
    if arguments.experimental_rerun is not None:
        _check_pickle(Path(arguments.experimental_rerun))
    if arguments.resolve and not arguments.cfg:
        raise UserError("--resolve belongs to --cfg; write --cfg job --resolve")
    given = [flag for flag in ("--run", "--multirun", "--cfg", "--info") if getattr(arguments, flag[2:])]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} do not go together; give one of them")


def check_package(arguments: Namespace) -> None:
    """Reject a section to show that the configuration does not have, as in `--cfg job -p agent.nope`.

    Hydra exits with another status for it.
    """
    key = arguments.package
    if not arguments.cfg or key in (None, "_global_") or arguments.config_path is not None:
        return
    config = compose_command(arguments, CONF, DEFAULT_CONFIG)
    if arguments.cfg == "job":
        config = without_hydra(config)
    elif arguments.cfg == "hydra":
        config = OmegaConf.masked_copy(config, "hydra")
    if OmegaConf.select(config, key, default=_NOTHING) is _NOTHING:
        raise UserError(unknown_key(key, config))
    if OmegaConf.select(config, key) is None:
        raise UserError(f"--package {key}: this setting is null, and has nothing to show")


def _check_pickle(path: Path) -> None:
    """Reject what `--experimental-rerun` cannot load, by its first byte: to load it executes code."""
    problem = "does not exist"
    if path.is_file():
        with path.open("rb") as file:
            if file.read(1) == PROTO:
                return
        problem = "is not a pickle"
    raise UserError(
        f"--experimental-rerun {path}: this file {problem}; a run writes .hydra/config.pickle only with "
        "Hydra's PickleJobInfoCallback; to continue a run, write resume=RUN_DIR"
    )


def check_deletions(overrides: Sequence[Override]) -> None:
    """Reject the deletion of what every configuration has, as in `~mode`."""
    for override in overrides:
        key = override.key_or_group
        if override.is_delete() and key in {field.name for field in dataclasses.fields(RunConfig)}:
            value = "[]" if key in ("logging", "callbacks") else "VALUE"
            raise UserError(
                f"{override.input_line}: {key} cannot be deleted; leave this out, or write {key}={value}"
            )


def check_needs_multirun(overrides: Sequence[Override]) -> None:
    """Reject a sweeper or a launcher in a command that makes one run, which would not use it."""
    modes = [str(o.value()) for o in overrides if o.key_or_group == "hydra.mode"]
    chosen = {o.key_or_group for o in overrides}
    if modes or {"search", "study.trial"} & chosen:
        return
    for override in overrides:
        what = _ONLY_MULTIRUN.get(override.key_or_group)
        if what and override.value() != "basic":
            raise UserError(
                f"{override.input_line} chooses {what}, but this command makes one run; add -m, as in "
                f"python -m dqn_runner -m {override.input_line} ..."
            )


def check_run_has_no_sweeper(config: DictConfig) -> None:
    """Reject the configuration of a single run for which the command chose a sweeper, as with `search=dqn`.

    The sweeper of a primary configuration is for the commands with -m.
    """
    hydra = config.hydra
    chosen = [str(o) for o in hydra.overrides.hydra if str(o).startswith("hydra/sweeper=")]
    if search := hydra.runtime.choices.get("search"):
        chosen.append(f"search={search}")
    is_job = OmegaConf.select(config, "study.trial") is not None
    if not chosen or is_job or hydra.runtime.choices["hydra/sweeper"] == "basic":
        return
    no_mode = "leave out hydra.mode=RUN" if hydra.mode is RunMode.RUN else ""
    write = " and ".join(filter(None, [no_mode, "" if search and no_mode else "add -m"]))
    raise UserError(f"{chosen[-1]} chooses a sweeper, but this command makes one run; {write}")


def _reject_blank_in_list(tokens: Sequence[str]) -> None:
    """The shell split a list at its blanks: name the whole list."""
    whole = tokens[0]
    for token in tokens[1:]:
        if "=" in token.partition("{")[0] and not whole.endswith(","):
            return
        whole += token
        if _depth(whole) == 0:
            raise UserError(f"'{tokens[0]}' is only a part of a list; write it without blanks: {whole}")


def _reject_word(token: str, before: str, after: Sequence[str]) -> None:
    if after and after[0].startswith("="):
        return  # the blank before `=` is reported for the next token
    if before.endswith("="):
        raise UserError(f"'{token}' is not an override; write {before}{token} without blanks")
    if token.endswith(".pt") or Path(token).is_dir():
        raise UserError(f"'{token}' is not an override; write resume={token} or mode=eval checkpoint={token}")
    if token.endswith((".yaml", ".yml")):
        raise UserError(f"'{token}' is not an override; {what_to_write('config')}")
    meant = what_to_write(token) or f"write {f'{token}={after[0]}' if after else 'key=value, as in seed=3'}"
    raise UserError(f"'{token}' is not an override; {meant}")


def _depth(text: str) -> int:
    return sum((character in _OPENING) - (character in _CLOSING) for character in text)
