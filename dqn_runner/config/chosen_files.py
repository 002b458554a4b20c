"""Checks a configuration that a sweep wrote, which can come from someone else, before Hydra uses it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override
from omegaconf import DictConfig, OmegaConf

from dqn_runner.config.hydra_internals import compose_command, parse_arguments
from dqn_runner.config.overrides import parse_overrides, unquote
from dqn_runner.config.schema import CONF, DEFAULT_CONFIG, apply_targets
from dqn_runner.config.trust import Command, files_in, grant, in_tree, without_hydra
from dqn_runner.core.exceptions import UserError
from dqn_runner.run.compatibility import SESSION_KEYS

BEST_CONFIG = "best_config"
"""The name of the experiment that a sweep writes."""


def check_best_config(argv: Sequence[str]) -> None:
    """Check a configuration that a sweep wrote, if the command chooses it, before Hydra runs with it.

    It is compared with what the same command composes without it; a sweep over experiments, for each one of
    that name. Raises UserError for settings that no sweep writes, of Hydra or of a session, and for requests
    that are not granted.
    """
    overrides = parse_overrides(parse_arguments(argv).overrides)
    chosen = [o for o in overrides if o.key_or_group == "experiment" and BEST_CONFIG in str(o.value())]
    lines = {o.input_line for o in chosen}
    rest = [token for token in argv if token not in lines]
    command = Command(rest)
    if not chosen or command.is_trusting:
        return
    for choice in _choices(chosen):
        _check_choice(choice, [*rest, choice], command)


def _choices(chosen: Sequence[Override]) -> list[str]:
    """Overrides that choose the same experiments, each alone; without those of a pattern."""
    found: list[str] = []
    for override in chosen:
        value = override.value()
        if isinstance(value, ChoiceSweep):
            names = [str(unquote(item)) for item in value.list]
            found += [f"experiment={name}" for name in names if BEST_CONFIG in name]
        elif not override.is_sweep_override():
            found.append(override.input_line or "")
    return found


def _check_choice(choice: str, argv: Sequence[str], command: Command) -> None:
    whole = compose_command(parse_arguments(argv), CONF, DEFAULT_CONFIG)
    apply_targets(whole, command.keys)
    written, own = _sections(whole), _sections(command.config)
    if changed := [key for key in written if written[key] != own.get(key)]:
        raise UserError(f"{choice} is not as a sweep wrote it, do not use it: it sets {', '.join(changed)}")
    tree = OmegaConf.to_container(without_hydra(whole), enum_to_str=True)
    grant(choice, in_tree(tree) | files_in(tree), command.requests)


def only_checked_files(argv: Sequence[str]) -> Callable[[str], None]:
    """A function that raises UserError for the name of a file that a sweep wrote, and that was not checked.

    `argv` is the whole command line. `check_best_config` and the check of a stored run see the values of
    `experiment`; a glob, --config-name or a defaults list could choose the file otherwise.
    """
    arguments = parse_arguments(argv)
    overrides = parse_overrides(arguments.overrides)
    trusted = any(o.key_or_group == "trust" and o.value() is True for o in overrides)
    checked = [o for o in overrides if o.key_or_group == "experiment"]
    names = {name for line in _choices(checked) for name in re.split(r"[^\w.-]+", line.partition("=")[2])}

    def check(name: str) -> None:
        group, _, option = name.rpartition("/")
        plain = option.removesuffix(".yaml").removesuffix(".yml")
        if plain != BEST_CONFIG or trusted or (group == "experiment" and {option, plain} & names):
            return
        raise UserError(
            f"{name} was written by a sweep and is not chosen by experiment={BEST_CONFIG}, so it was not "
            "checked; choose it so, or add trust=true if you trust its origin"
        )

    return check


def asks_for_trust(argv: Sequence[str]) -> bool:
    """Whether a command that chooses a configuration of a sweep needs `trust=true`."""
    try:
        check_best_config(argv)
    except UserError:
        return True
    return False


def _sections(cfg: DictConfig) -> dict[str, Any]:
    """The settings of Hydra and of a session, by which nothing that is stored decides."""
    tree: Any = OmegaConf.to_container(cfg, enum_to_str=True)
    hydra: dict[str, Any] = tree["hydra"]
    chosen = {k: v for k, v in hydra["runtime"]["choices"].items() if str(k).startswith("hydra/")}
    of_command = ("overrides", "runtime", "job")
    job = {k: v for k, v in hydra["job"].items() if k != "override_dirname"}
    found = {f"hydra.{key}": value for key, value in hydra.items() if key not in of_command}
    session: dict[str, Any] = {key: tree[key] for key in SESSION_KEYS if key in tree}
    return {**found, "hydra.job": job, "hydra.runtime.choices": chosen, **session}
