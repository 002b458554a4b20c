"""Import by dotted path, with an error that says how to fix it."""

from __future__ import annotations

import importlib
from typing import Any

from dqn_runner.core.exceptions import UserError


def import_object(path: str, knob: str) -> Any:
    """What `path` names: `package.module:name` or `package.module.name`; `knob` is for the error."""
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{knob}={path} cannot be imported: {error}") from error


def import_module(name: str, why: str, extra: str | None = None) -> Any:
    """The module `name`; if it is missing, say for what it is needed and how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        hint = f"; pip install 'dqn_runner[{extra}]'" if extra else ""
        raise UserError(f"{why} needs the module '{name}': {error}{hint}") from error
