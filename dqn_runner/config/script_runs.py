"""Runs of the Python API as commands of the program, so that it can evaluate and resume them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dqn_runner.config.overrides import format_value, parse_overrides
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import TARGET, class_of
from dqn_runner.run.compatibility import Leaf, leaves


def to_command(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the source of a program's run for that of a script: its settings as overrides.

    The configuration has no `env` if the environment cannot be made from settings. Raises UserError if a part
    of the agent or the environment is a class of the script.
    """
    if not isinstance(source.get("agent"), Mapping) or not isinstance(source.get("trainer"), Mapping):
        raise UserError("it does not name the settings that it was made with")
    config = {key: value for key, value in source.items() if value is not None}
    if "seed" not in config["agent"]:
        raise UserError("it does not name the seed of its agent")
    config["seed"] = config["agent"]["seed"]
    overrides = list(_overrides(leaves(config)))
    return {"config": config, "overrides": overrides, "config_name": "config", "config_dir": None}


def check_env_is_named(config: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raise UserError if neither the stored `config` nor the command says which environment to make."""
    named = {override.key_or_group for override in parse_overrides(overrides)}
    if "env" not in config and not named & {"env", "env.id", f"env.{TARGET}"}:
        raise UserError(
            "the run was written by a script, and its environment cannot be made from settings (it is not "
            "registered, or has wrappers that do not record their arguments); name it, as in "
            "env.id=my_pkg.my_envs:MyEnv or env.id=my_pkg.my_envs.make_env"
        )


def _overrides(values: Mapping[Leaf, Any]) -> Iterator[str]:
    for path, value in values.items():
        if path[-1] != TARGET:
            yield f"{'.'.join(path)}={format_value(value)}"
        elif class_of(value) is not None:
            yield value
        else:
            raise UserError(
                f"its {'.'.join(path[:-1])} is the class {value} of a script; only that script can load it"
            )
