"""`resume=` and `checkpoint=`: the configuration of a stored run, with new overrides on top.

With resume=auto, the default, that happens if the run directory already holds a checkpoint.

Hydra composes the stored overrides followed by the new ones. Each setting that the new overrides do not
change keeps its stored value, so that a run continues as it was even after a default changed.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.checkpointing.names import CHECKPOINTS
from dqn_runner.checkpointing.recovery import find_checkpoint, load_newest_valid
from dqn_runner.config import trust
from dqn_runner.config.environment import as_stored, digests, with_digests
from dqn_runner.config.hydra_internals import make_config_loader
from dqn_runner.config.overrides import parse_overrides, path_of, quote_path
from dqn_runner.config.schema import CONF, DEFAULT_CONFIG, to_plain_config
from dqn_runner.config.script_runs import check_env_is_named, to_command
from dqn_runner.core.exceptions import DamagedError, UserError
from dqn_runner.core.registry import TARGET, to_import_path, with_defaults
from dqn_runner.core.state import State
from dqn_runner.io.json_io import as_json
from dqn_runner.run.compatibility import (
    SESSION_KEYS,
    Leaf,
    changes,
    incompatible_changes,
    leaves,
    mismatch,
    same_setting,
)
from dqn_runner.run.provenance import recorded_config

AUTO, NEVER = "auto", "never"
CHECKPOINT = "checkpoint.path"


@dataclass(frozen=True)
class Stored:
    """The command that a checkpoint was made by."""

    path: Path
    config: dict[str, Any]
    overrides: list[str]
    config_name: str
    config_dir: str | None
    environment: dict[str, str]
    """Hashes of the texts in `config` that come from the environment (see config/environment.py)."""

    @property
    def comparable_config(self) -> dict[str, Any]:
        """The configuration, in which another value of an environment variable is another value."""
        return with_digests(self.config, self.environment)

    @property
    def run_dir(self) -> Path:
        """The directory of the run."""
        return self.path.parent.parent


def read_stored(path: str, key: str) -> Stored:
    """The stored command of the checkpoint (or run directory) `path`, the value of the override `key`.

    `resume` accepts an older checkpoint in the place of a damaged one; `checkpoint` does not, because an
    evaluation is of the named one. Raises UserError if there is none, if the program cannot make it again, or
    if a resume would write to the directory of something else.
    """
    found: list[dict[str, Any]] = []
    wanted = find_checkpoint(Path(path)).absolute()
    if key == "resume":
        wanted = _of_its_run(wanted)

    def mismatch_with(document: State) -> str | None:
        ours = recorded_config(wanted.parent.parent)
        return None if ours is None else mismatch(as_json(document["source"]), {"config": ours})

    try:
        if key == "checkpoint":
            file = wanted
            found.append(load_checkpoint(file))
        else:
            file = load_newest_valid(wanted, found.append, _warn, mismatch_with)
    except UserError as error:
        raise UserError(f"{key}={path}: {error}") from error
    if key == "resume" and "finished" not in found[-1]["state"]:
        raise UserError(
            f"{key}={path} is a published agent, without the replay that a run continues with; it can be "
            "evaluated, loaded and exported"
        )
    if key == "resume":
        _check_directory(file, mismatch_with(found[-1]) if "config" in found[-1]["source"] else None)
    source = found[-1]["source"]
    if "overrides" not in source:
        try:
            source = to_command(source)
        except UserError as error:
            raise UserError(f"{key}={path} was written by the Python API, and {error}") from error
    trust.check_stored(source["config_name"], source["overrides"], f"{key}={path}")
    return Stored(
        file,
        source["config"],
        source["overrides"],
        source["config_name"],
        source["config_dir"],
        source.get("environment", {}),
    )


def _of_its_run(path: Path) -> Path:
    """The checkpoint in the directory of its run, to which `path` may be a link.

    A broken link is left as it is: an older checkpoint beside it may be used.
    """
    is_inside = path.parent.name == CHECKPOINTS
    if not path.is_file() or (is_inside and not path.is_symlink()):
        return path
    target = path.resolve()
    return path if is_inside and target.parent.name != CHECKPOINTS else target


def _check_directory(file: Path, mismatch: str | None) -> None:
    """Raise UserError if the directory that a resume would continue in is not that of the run.

    `mismatch` says why the checkpoint `file` is not of the run in that directory, or is None.
    """
    folder = f"NEW_DIRECTORY/{CHECKPOINTS}"
    elsewhere = (
        f"copy it, and any folder segments beside it, to {folder}/ and write resume={folder}/{file.name}"
    )
    if file.parent.name != CHECKPOINTS:
        raise UserError(
            f"resume={file} is not in the folder {CHECKPOINTS} of the directory of a run; {elsewhere}"
        )
    if mismatch is not None:
        raise UserError(
            f"resume={file} is not of the run in {file.parent.parent}: {mismatch}. To "
            f"continue it, {elsewhere}"
        )


def names_a_run(override: Override) -> bool:
    """Whether an override names a stored run."""
    if override.key_or_group == "resume":
        return override.value() not in (AUTO, NEVER, None)
    return override.key_or_group == CHECKPOINT and bool(override.value())


def expand(argv: Sequence[str], arguments: Namespace, naming: Override, new: Sequence[Override]) -> list[str]:
    """The command line of the stored run that the override `naming` names, followed by the new overrides.

    `arguments` are the parsed `argv`, `new` its overrides. A resume also runs in the stored directory. Raises
    UserError if the stored run asks for what the command does not grant (see config/trust.py).
    """
    key = naming.key_or_group.partition(".")[0]
    if arguments.multirun:
        raise UserError(
            "resume= continues one run; it cannot be swept with --multirun"
            if key == "resume"
            else "checkpoint= takes one checkpoint; it cannot be swept with --multirun. Write a command for "
            "each, without -m"
        )
    stored = read_stored(path_of(naming), key)
    replaced = {override.key_or_group for override in new}
    kept = [text for text in stored.overrides if parse_overrides([text])[0].key_or_group not in replaced]
    stored_flags = _stored_flags(stored, arguments, key)
    _check_requests(stored, kept, stored_flags, trust.Command(argv), f"{key}={naming.value()}")
    ours = [o.input_line for o in new if o.key_or_group != naming.key_or_group and o.input_line is not None]
    flags = [token for token in argv if token not in arguments.overrides]
    extra = [f"{naming.key_or_group}={quote_path(stored.path)}"]
    if key == "resume":
        if "hydra.run.dir" in replaced:
            raise UserError(f"resume continues in the run's directory {stored.run_dir}; drop hydra.run.dir")
        extra += [f"hydra.run.dir={quote_path(stored.run_dir)}", "hydra.output_subdir=null"]
    return [*flags, *stored_flags, *kept, *ours, *extra]


def _check_requests(
    stored: Stored, kept: Sequence[str], flags: Sequence[str], command: trust.Command, source: str
) -> None:
    """Reject what a stored run asks for, before Hydra composes any of it.

    `kept` are its overrides that the command does not replace, and `flags` the options that it adds.
    """
    decided = tuple(tuple(key.split(".")) for key in command.keys)
    requests = trust.in_overrides(parse_overrides(kept))
    requests |= {
        request
        for request in trust.in_tree(stored.config)
        if not any(tuple(request.key.split("."))[: len(key)] == key for key in decided)
    }
    requests |= {
        trust.Request(name, value)
        for name, _, value in (flag.partition("=") for flag in flags)
        if (name, value) != ("--config-name", DEFAULT_CONFIG)
    }
    if requests and not command.is_trusting:
        trust.grant(source, requests, command.requests)


def restore(cfg: DictConfig, stored: Stored, overrides: Sequence[str]) -> None:
    """Give `cfg` the stored value of each setting that the command does not change.

    `overrides` are those that composed `cfg`. What is restored is not resolved.
    """
    check_env_is_named(stored.config, overrides)
    new, old = leaves(to_plain_config(cfg)), leaves(with_defaults(stored.config))
    ours = [o for o in parse_overrides(overrides) if o.input_line not in stored.overrides]
    base = leaves(to_plain_config(_compose(stored, {o.key_or_group for o in ours if "." in o.key_or_group})))
    groups = {path[:length] for path in base for length in range(1, len(path))}
    if broken := [path for path, value in old.items() if path in groups and not isinstance(value, Mapping)]:
        what = f"{'.'.join(broken[0])} is {old[broken[0]]!r:.50}"
        raise DamagedError(f"{stored.path} does not hold the configuration of a run: {what}")
    requested = [tuple(o.key_or_group.split(".")) for o in ours]
    for path, value in old.items():
        untouched = not any(path[: len(key)] == key for key in requested)
        unchanged = untouched and same_setting(new.get(path), base.get(path))
        if unchanged and path[0] not in SESSION_KEYS and not same_setting(new.get(path), value):
            _set(cfg, path, to_import_path(value) if path[-1] == TARGET else value)


def changes_of(cfg: DictConfig, stored: Stored) -> list[str]:
    """What a restored configuration changes, as `key: old -> new`."""
    new = with_digests(_known(to_plain_config(cfg), stored.config), digests(as_stored(cfg).hidden, cfg.seed))
    return changes(leaves(with_defaults(stored.comparable_config)), leaves(new))


def _known(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration whose settings the stored one has; that of a script lacks some."""
    return {key: value for key, value in new.items() if key in old}


def _set(cfg: DictConfig, path: Leaf, value: Any) -> None:
    """Set the value at `path`, whose keys may contain dots; mappings on the way are created."""
    node: Any = cfg
    with open_dict(cfg):
        for key in path[:-1]:
            if not isinstance(node.get(key), DictConfig):
                node[key] = {}
            node = node[key]
            OmegaConf.set_struct(node, False)
        node[path[-1]] = value


def check_compatible(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Reject a change that a resumed run cannot make."""
    for change, why in incompatible_changes(old, _known(new, old)):
        raise UserError(f"resume cannot change {change}: {why}. Start a new run for that")


def _stored_flags(stored: Stored, arguments: Namespace, key: str) -> list[str]:
    """The stored --config-name and --config-dir, unless the command gives others."""
    flags: list[str] = []
    if arguments.config_name is None:
        flags.append(f"--config-name={stored.config_name}")
    if arguments.config_dir is None and stored.config_dir is not None:
        if not Path(stored.config_dir).is_dir():
            raise UserError(
                f"{key}={stored.path} was made with --config-dir={stored.config_dir}, which does not exist "
                "any more; give its new place with --config-dir"
            )
        flags.append(f"--config-dir={stored.config_dir}")
    return flags


def _compose(stored: Stored, replaced: Collection[str]) -> DictConfig:
    """What the stored command composes to now, with the search path of this command.

    Overrides of the keys `replaced` are left out: this command replaces them.
    """
    overrides = [text for text in stored.overrides if parse_overrides([text])[0].key_or_group not in replaced]
    if GlobalHydra.instance().is_initialized():
        return compose(stored.config_name, overrides=overrides)
    # --experimental-rerun loads a pickled configuration and does not initialise Hydra.
    with initialize_config_dir(str(CONF), version_base="1.3"):
        path = GlobalHydra.instance().config_loader().get_search_path()
        for source in HydraConfig.get().runtime.config_sources:
            if source.provider in ("command-line", "hydra.searchpath in command-line"):
                where = f"{source.schema}://{source.path}"
                path.prepend(source.provider, where, anchor=SearchPathQuery(provider="schema"))
        cfg = make_config_loader(path).load_configuration(stored.config_name, overrides, RunMode.RUN)
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)
