"""`resume=` and `checkpoint=`: take up a stored run's configuration, with new overrides on top.

With resume=auto, the default, that happens where the run directory already holds a checkpoint.

Hydra composes the stored overrides followed by the new ones. What the stored configuration says wins
wherever the new overrides change nothing, so that a run goes on as it was even after a default changed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.checkpointing.recovery import find_checkpoint, load_newest_valid
from dqn_runner.config.hydra_internals import parse_arguments
from dqn_runner.config.overrides import parse_overrides, quote
from dqn_runner.config.schema import to_plain_config
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import TARGET, options, to_import_path, with_defaults
from dqn_runner.core.state import State
from dqn_runner.io.json_io import as_json
from dqn_runner.io.lock import reject_if_locked
from dqn_runner.run.compatibility import SESSION_KEYS, changes, incompatible_changes, leaves, mismatch
from dqn_runner.run.provenance import recorded_config

AUTO, NEVER = "auto", "never"
CHECKPOINT = "checkpoint.path"
PLUGIN_PARTS = ("hydra.sweeper.sampler", "hydra.sweeper.pruner")
"""Parts of a plugin, which are chosen as those of the program are."""


@dataclass(frozen=True)
class Stored:
    """What a checkpoint tells about the command that made it."""

    path: Path
    config: dict[str, Any]
    overrides: list[str]
    config_name: str
    config_dir: str | None

    @property
    def run_dir(self) -> Path:
        """The directory of the run."""
        return self.path.parent.parent


def read_stored(path: str, knob: str) -> Stored:
    """The stored command of the checkpoint (or run directory) `path`; `knob` is for the error."""
    found: list[dict[str, Any]] = []
    wanted = find_checkpoint(Path(path)).absolute()

    def mismatch_with(document: State) -> str | None:
        ours = recorded_config(wanted.parent.parent)
        return None if ours is None else mismatch(as_json(document["source"]), {"config": ours})

    try:
        if knob == "checkpoint":  # nobody wants to stop_callback another one than the one that was asked for
            file = wanted
            found.append(load_checkpoint(file))
        else:
            file = load_newest_valid(wanted, found.append, _warn, mismatch_with)
    except UserError as error:
        raise UserError(f"{knob}={path}: {error}") from error
    source = found[-1]["source"]
    if "overrides" not in source:
        raise UserError(f"{knob}={path} was written by the Python API; load it with Trainer.resume")
    return Stored(file, source["config"], source["overrides"], source["config_name"], source["config_dir"])


def expand_arguments(argv: Sequence[str]) -> list[str]:
    """The command line that Hydra sees: with `resume=` or `checkpoint=`, that of the stored run and ours.

    Raises where a process trains already in the directory that it names: Hydra writes there before the run
    would find out.
    """
    expanded = _expanded(argv)
    arguments = parse_arguments(expanded)
    asks = arguments.help or arguments.hydra_help or arguments.cfg or arguments.info
    if not (asks or arguments.shell_completion or arguments.multirun):
        values = {o.key_or_group: o.value() for o in parse_overrides(arguments.overrides)}
        run_dir = values.get("hydra.run.dir")
        if isinstance(run_dir, str) and "${" not in run_dir and values.get("mode") != "eval":
            reject_if_locked(Path(run_dir))
    return expanded


def _expanded(argv: Sequence[str]) -> list[str]:
    if nameless := next((token for token in argv if token.startswith("=")), None):
        raise UserError(f"'{nameless}' lacks the name of a setting, as in seed=3")
    argv = [_spelt_out(token) for token in argv]
    arguments = parse_arguments(argv)
    if arguments.shell_completion:
        return list(argv)
    new = parse_overrides(arguments.overrides)
    _refuse_other_than_names(new)
    if any(o.key_or_group == "resume" and o.value() == NEVER for o in new):
        argv = [_fresh(token, argv) for token in argv]
    knob = next((o for o in new if _names_a_run(o)), None)
    if knob is None:
        return list(argv)
    name = knob.key_or_group.partition(".")[0]
    if arguments.multirun:
        raise UserError(f"{name}= takes up one run; it cannot be swept with --multirun")
    stored = read_stored(str(knob.value()), name)
    replaced = {o.key_or_group for o in new}
    kept = [text for text in stored.overrides if parse_overrides([text])[0].key_or_group not in replaced]
    flags = [token for token in argv if token not in arguments.overrides]
    if arguments.config_name is None:
        flags.append(f"--config-name={stored.config_name}")
    if arguments.config_dir is None and stored.config_dir is not None:
        if not Path(stored.config_dir).is_dir():
            raise UserError(
                f"{name}={stored.path} was made with --config-dir={stored.config_dir}, which is "
                "no longer there; say with --config-dir where it is now"
            )
        flags.append(f"--config-dir={stored.config_dir}")
    ours = [o.input_line for o in new if o is not knob and o.input_line is not None]
    extra = [f"{knob.key_or_group}={quote(stored.path)}"]
    if name == "resume":
        if "hydra.run.dir" in replaced:
            raise UserError(f"resume goes on in the run's directory {stored.run_dir}; drop hydra.run.dir")
        extra += [f"hydra.run.dir={quote(stored.run_dir)}", "hydra.output_subdir=null"]
    return [*flags, *kept, *ours, *extra]


def _spelt_out(token: str) -> str:
    """What Hydra understands of three short forms.

    `+experiment=`, `checkpoint=` for the path in it, and a part chosen as if it were a value
    (`agent.replay=prioritized` for `agent/replay=prioritized`).
    """
    key, equals, value = token.partition("=")
    if key == "checkpoint":
        return f"{CHECKPOINT}{equals}{value}"
    if (key.replace(".", "/"), value) in options().values() or (key in PLUGIN_PARTS and value.isidentifier()):
        return f"{key.replace('.', '/')}={value}"
    return token.removeprefix("+") if key == "+experiment" else token


def _names_a_run(override: Override) -> bool:
    """Whether an override says which stored run to take up."""
    if override.key_or_group == "resume":
        return override.value() not in (AUTO, NEVER, None)
    return override.key_or_group == CHECKPOINT and bool(override.value())


def _fresh(token: str, argv: Sequence[str]) -> str:
    """The token that chooses the directory, changed to one that is still free; nothing is ever deleted."""
    key, _, _ = token.partition("=")
    if key not in ("hydra.run.dir", "hydra.sweep.dir") or token not in argv:
        return token
    wanted = Path(str(parse_overrides([token])[0].value()))
    path, number = wanted, 1
    while path.exists() and any(path.iterdir()):
        number += 1
        path = wanted.with_name(f"{wanted.name}-{number}")
    if path != wanted:
        print(f"{wanted} is in use already; with resume=never this run goes to {path}")
    return f"{key}={quote(path)}"


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def restore(cfg: DictConfig, stored: Stored, overrides: Sequence[str]) -> list[str]:
    """Give `cfg` the stored value of each setting that the command does not change; return the changes.

    `overrides` are those that composed `cfg`. The returned lines read `key: old -> new`.
    """
    new, old = leaves(to_plain_config(cfg)), leaves(with_defaults(stored.config))
    base = leaves(to_plain_config(compose(stored.config_name, overrides=stored.overrides)))
    ours = [o for o in parse_overrides(overrides) if o.input_line not in stored.overrides]
    asked = [tuple(o.key_or_group.split(".")) for o in ours]
    for path, value in old.items():
        untouched = new.get(path) == base.get(path) and not any(path[: len(key)] == key for key in asked)
        if untouched and path[0] not in SESSION_KEYS and new.get(path) != value:
            restored = to_import_path(value) if path[-1] == TARGET else value
            OmegaConf.update(cfg, ".".join(path), restored, force_add=True)
    return changes(old, leaves(to_plain_config(cfg)))


def check_compatible(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Reject a change that a resumed run cannot make."""
    for change, why in incompatible_changes(old, new):
        raise UserError(f"resume cannot change {change}: {why}. Start a new run for that")


def _refuse_other_than_names(overrides: Sequence[Override]) -> None:
    """Raise where a group is given something else than the name of an option, as in `agent=null`."""
    groups = {group for group, _ in options().values()}
    for override in overrides:
        if override.key_or_group in ("resume", CHECKPOINT) and override.value() == "":
            raise UserError(f"{override.input_line} names nothing; was a variable of the shell empty?")
        if override.key_or_group not in groups or override.is_delete() or override.is_sweep_override():
            continue
        if not isinstance(override.value(), (str, list)):
            raise UserError(f"{override.input_line}: {override.key_or_group}= takes the name of an option")


def is_sweep(mode: RunMode | None) -> bool:
    """Whether the job is one of several."""
    return mode is RunMode.MULTIRUN
