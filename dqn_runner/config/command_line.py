"""The command line before Hydra composes it: short forms, checks, stored runs, fresh directories."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from dqn_runner.config import mistakes, resume
from dqn_runner.config.hydra_internals import flags_first, parse_arguments
from dqn_runner.config.overrides import parse_overrides, path_of, quote, quote_path, unquote
from dqn_runner.config.own_targets import with_new_keys
from dqn_runner.config.schema import Mode
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import options
from dqn_runner.io.lock import reject_if_locked
from dqn_runner.run.directory import require_own_directories

PLUGIN_PARTS = ("hydra.sweeper.sampler", "hydra.sweeper.pruner")
"""Parts of the sweeper, which are chosen as those of the program are."""
DIRECTORIES = ("hydra.run.dir", "hydra.sweep.dir")
PATHS = ("resume", resume.CHECKPOINT, *DIRECTORIES)
"""Settings whose value is a path, which may contain any character."""


def expand_arguments(argv: Sequence[str]) -> list[str]:
    """The command line that Hydra composes; `resume=` and `checkpoint=` become that of the stored run.

    `argv` is in the form that `long_form` returns. Raises UserError for a malformed override, and if another
    process is training in the run directory, or a link leads out of it: Hydra writes there before the run
    could find out.
    """
    expanded = with_new_keys(_expand(argv))  # a stored run may name the class
    arguments = parse_arguments(expanded)
    only_shows = arguments.help or arguments.hydra_help or arguments.cfg or arguments.info
    if arguments.shell_completion:
        return expanded
    overrides = parse_overrides(arguments.overrides)
    _reject_interpolations_in_directories(overrides)
    if not (only_shows or arguments.multirun):
        values = {o.key_or_group: o.value() for o in overrides}
        run_dir = values.get("hydra.run.dir")
        if isinstance(run_dir, str) and "${" not in run_dir:
            require_own_directories(Path(run_dir))
            if values.get("mode", Mode.train.value) == Mode.train.value:
                reject_if_locked(Path(run_dir))
    return expanded


def long_form(argv: Sequence[str]) -> list[str]:
    """The command line without short forms, flags first; raises UserError for what Hydra cannot read."""
    flags, tokens = flags_first(argv)
    mistakes.check_flags(flags, tokens)
    if not _shows_completion(flags):
        mistakes.check_tokens(tokens)
    return [*flags, *with_new_keys([_quote_path(_to_long_form(token)) for token in tokens])]


def _shows_completion(flags: Sequence[str]) -> bool:
    return bool({"-sc", "--shell-completion"} & {*flags})


def _expand(argv: Sequence[str]) -> list[str]:
    if _shows_completion(argv):
        return [*argv]
    arguments = parse_arguments(argv)
    mistakes.check_arguments(arguments)
    overrides = parse_overrides(arguments.overrides)
    mistakes.check_deletions(overrides)
    _check_values(overrides)
    if not (arguments.multirun or arguments.cfg or arguments.info or arguments.help):
        mistakes.check_needs_multirun(overrides)
    last = {o.key_or_group: o for o in overrides}  # of an override that is repeated, the last counts
    if "resume" in last and last["resume"].value() == resume.NEVER:
        argv = [_with_fresh_directory(token) for token in argv]
    naming = next((o for o in last.values() if resume.names_a_run(o)), None)
    reports = "mode" in last and last["mode"].value() == Mode.report.value
    if naming is not None and naming.key_or_group == resume.CHECKPOINT and reports:
        return [*argv]  # a report reads a directory, which may be that of a sweep, and restores nothing
    return [*argv] if naming is None else resume.expand(argv, arguments, naming, overrides)


def _reject_interpolations_in_directories(overrides: Sequence[Override]) -> None:
    """Reject a directory with `${` in its name, which Hydra resolves a second time, as an interpolation."""
    chosen = [path_of(o) for o in overrides if o.key_or_group in DIRECTORIES and o.value() != path_of(o)]
    for path in (*chosen, str(Path.cwd())):
        if "${" in path:
            raise UserError(f"{path} has ${{ in its name, and Hydra cannot run there; rename the directory")


def _to_long_form(token: str) -> str:
    """Expand a short form.

    `+experiment=`, `checkpoint=` for `checkpoint.path=`, and a part chosen as if it were a value
    (`agent.replay=prioritized` for `agent/replay=prioritized`).
    """
    key, equals, value = token.partition("=")
    if key.lstrip("+") == "checkpoint":
        return f"{resume.CHECKPOINT}{equals}{value}"
    group = key.replace(".", "/")
    chooses = (
        "." in key and group in {g for g, _ in options().values()} and value not in ("null", "true", "false")
    )
    if value.isidentifier() and (chooses or key in PLUGIN_PARTS):
        return f"{group}={value}"
    return token.removeprefix("+") if key == "+experiment" else token


def _quote_path(token: str) -> str:
    """An override of a path, quoted: characters such as `=`, `,` and `(` have no meaning in a path.

    What Hydra's grammar gives a meaning keeps it, unless a file of this name exists: quotes, backslashes,
    and interpolations as in `outputs/${now:%Y}`.
    """
    key, _, value = token.partition("=")
    key = key.lstrip("+")
    if key not in PATHS or value in ("", "null", resume.AUTO, resume.NEVER):
        return token
    if _exists(value):
        return f"{key}={quote_path(value)}"
    if (value[0] in "'\"" or "\\" in value or "${" in value) and _is_text(token):
        return token
    return f"{key}={quote(os.path.expanduser(value))}"  # noqa: PTH111, pathlib would change the spelling


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, or with a null byte
        return False


def _is_text(token: str) -> bool:
    """Whether Hydra reads the value of an override as one text."""
    try:
        override = parse_overrides([token])[0]
    except HydraException:
        return False
    return not override.is_sweep_override() and isinstance(unquote(override.value()), str)


def _check_values(overrides: Sequence[Override]) -> None:
    """Reject an empty path, and a group that is not given the name of an option, as in `agent=null`."""
    groups = {group for group, _ in options().values()}
    for override in overrides:
        if override.key_or_group in PATHS and override.value() == "":
            raise UserError(f"{override.input_line} has an empty value; was a variable of the shell empty?")
        if override.key_or_group not in groups or override.is_delete() or override.is_sweep_override():
            continue
        if not isinstance(override.value(), (str, list)):
            raise UserError(f"{override.input_line}: {override.key_or_group}= takes the name of an option")


def _with_fresh_directory(token: str) -> str:
    """An override of a directory, changed to a directory that is not in use; nothing is ever deleted."""
    key, _, _ = token.partition("=")
    if key not in DIRECTORIES:
        return token
    requested = Path(str(parse_overrides([token])[0].value()))
    path, number = requested, 1
    while path.exists() and any(path.iterdir()):
        number += 1
        path = requested.with_name(f"{requested.name}-{number}")
    if path != requested:
        print(f"{requested} is already in use; with resume=never this run writes to {path}")
    return f"{key}={quote(path)}"
