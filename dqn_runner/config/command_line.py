"""The command line before Hydra composes it: short forms, checks, stored runs, fresh directories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override

from dqn_runner.config import resume
from dqn_runner.config.hydra_internals import parse_arguments
from dqn_runner.config.overrides import parse_overrides, quote
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import options
from dqn_runner.io.lock import reject_if_locked
from dqn_runner.run.directory import require_own_directories

PLUGIN_PARTS = ("hydra.sweeper.sampler", "hydra.sweeper.pruner")
"""Parts of the sweeper, which are chosen as those of the program are."""
DIRECTORIES = ("hydra.run.dir", "hydra.sweep.dir")


def expand_arguments(argv: Sequence[str]) -> list[str]:
    """The command line that Hydra composes; `resume=` and `checkpoint=` become that of the stored run.

    Raises UserError for a malformed override, and if another process is training in the run directory, or a
    link leads out of it: Hydra writes there before the run could find out.
    """
    expanded = _expand(argv)
    arguments = parse_arguments(expanded)
    only_shows = arguments.help or arguments.hydra_help or arguments.cfg or arguments.info
    if not (only_shows or arguments.shell_completion or arguments.multirun):
        values = {o.key_or_group: o.value() for o in parse_overrides(arguments.overrides)}
        run_dir = values.get("hydra.run.dir")
        if isinstance(run_dir, str) and "${" not in run_dir:
            require_own_directories(Path(run_dir))
            if values.get("mode") != "eval":
                reject_if_locked(Path(run_dir))
    return expanded


def long_form(argv: Sequence[str]) -> list[str]:
    """The command line without short forms; raises UserError for an override without a key."""
    if keyless := next((token for token in argv if token.startswith("=")), None):
        raise UserError(f"'{keyless}': missing key; write key=value, as in seed=3")
    return [_to_long_form(token) for token in argv]


def _expand(argv: Sequence[str]) -> list[str]:
    argv = long_form(argv)
    arguments = parse_arguments(argv)
    if arguments.shell_completion:
        return list(argv)
    overrides = parse_overrides(arguments.overrides)
    _check_values(overrides)
    if any(o.key_or_group == "resume" and o.value() == resume.NEVER for o in overrides):
        argv = [_with_fresh_directory(token) for token in argv]
    naming = next((o for o in overrides if resume.names_a_run(o)), None)
    return list(argv) if naming is None else resume.expand(argv, arguments, naming, overrides)


def _to_long_form(token: str) -> str:
    """Expand a short form.

    `+experiment=`, `checkpoint=` for `checkpoint.path=`, and a part chosen as if it were a value
    (`agent.replay=prioritized` for `agent/replay=prioritized`).
    """
    key, equals, value = token.partition("=")
    if key == "checkpoint":
        return f"{resume.CHECKPOINT}{equals}{value}"
    if (key.replace(".", "/"), value) in options().values() or (key in PLUGIN_PARTS and value.isidentifier()):
        return f"{key.replace('.', '/')}={value}"
    return token.removeprefix("+") if key == "+experiment" else token


def _check_values(overrides: Sequence[Override]) -> None:
    """Reject an empty path, and a group that is not given the name of an option, as in `agent=null`."""
    groups = {group for group, _ in options().values()}
    for override in overrides:
        if override.key_or_group in ("resume", resume.CHECKPOINT) and override.value() == "":
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
