"""Secrets that are typed on the command line: moved into the environment before Hydra stores its overrides.

A password in a URL, `+hydra.job.env_set.WANDB_API_KEY=…`, `env.kwargs.api_key=…`: the override becomes
`${oc.env:NAME}`, and the value an environment variable of this process, which jobs inherit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, cast

from hydra.errors import HydraException

from dqn_runner.config.overrides import format_value, parse_overrides, unquote
from dqn_runner.core.secrets import has_password, hide, hide_argument

ENV_SET, ENV_COPY = "hydra.job.env_set", "hydra.job.env_copy"
STORAGE = "DQN_RUNNER_STORAGE"
"""The variable for the URL of a study that contains a password."""

_STORAGE_KEYS = ("hydra.sweeper.storage", "study.storage")
_SECRET_KEY = re.compile(r".*(password|passwd|pwd|secret|token|credentials?|(api|access|secret)_?key)", re.I)


def move_secrets(argv: Sequence[str]) -> list[str]:
    """The command line without secrets; sets the environment variables that it refers to instead."""
    return [moved for token in argv for moved in _moved(token)]


def move_to_environment(name: str, value: str) -> str:
    """Set an environment variable to a secret, and return the interpolation that reads it."""
    interpolation = f"${{oc.env:{name}}}"
    os.environ[name] = value
    hide(value, interpolation)
    return interpolation


def _moved(token: str) -> list[str]:
    key, equals, _ = token.partition("=")
    if not equals or key.startswith("-"):
        return [token]
    try:
        override = parse_overrides([token])[0]
    except HydraException:  # reported later, without passwords
        return [token]
    if override.is_sweep_override() or override.is_delete():
        return [token]
    value = unquote(override.value())
    if override.key_or_group == ENV_COPY and isinstance(value, list):  # Hydra would store the values
        names = cast("list[Any]", value)
        return [f"++{ENV_SET}.{name}=${{oc.env:{name}}}" for name in names]
    replaced = _replace(override.key_or_group, value)
    if replaced == value:
        return [token]
    moved = f"{key}={replaced if isinstance(replaced, str) else format_value(replaced)}"
    hide_argument(token, moved)
    return [moved]


def _replace(key: str, value: Any) -> Any:
    """The value with each secret in it moved to the environment."""
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {name: _replace(f"{key}.{name}", item) for name, item in items}
    if isinstance(value, list):
        return [_replace(f"{key}.{i}", item) for i, item in enumerate(cast("list[Any]", value))]
    variable = key.removeprefix(f"{ENV_SET}.")
    if variable != key and value is not None and "${" not in str(value):
        os.environ[variable] = str(value)  # as Hydra does for the job
        if _SECRET_KEY.fullmatch(variable) or has_password(str(value)):
            return move_to_environment(variable, str(value))
        return f"${{oc.env:{variable}}}"
    if isinstance(value, str) and "${" not in value and (_SECRET_KEY.fullmatch(key) or has_password(value)):
        return move_to_environment(_variable(key), value)
    return value


def _variable(key: str) -> str:
    return STORAGE if key in _STORAGE_KEYS else f"DQN_RUNNER_{re.sub(r'[^A-Za-z0-9]', '_', key).upper()}"
