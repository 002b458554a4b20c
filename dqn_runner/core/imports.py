"""Imports by dotted path, with errors that name the setting and the fix."""

from __future__ import annotations

import importlib
from typing import Any

from dqn_runner.core.exceptions import UserError


def import_object(path: str, setting: str) -> Any:
    """Import the object at `package.module:name` or `package.module.name`.

    Raises UserError, naming `setting` as the source of the path, if it cannot be imported.
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not module:
        raise UserError(f"{setting}={path} cannot be imported: write my_pkg.my_module.{path or 'NAME'}")
    if module.startswith(".") or "/" in module or module.endswith(".py"):
        dotted = module.removesuffix(".py").strip("./").replace("/", ".")
        raise UserError(f"{setting}={path} cannot be imported: write {setting}={dotted}:{name}")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{setting}={path} cannot be imported: {error}") from error


def import_module(name: str, why: str, extra: str | None = None) -> Any:
    """Import the module `name`.

    Raises UserError if it is missing; the message says that `why` needs it, and which `extra` of the package
    installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        hint = f"; pip install 'dqn_runner[{extra}]'" if extra else ""
        raise UserError(f"{why} needs the module '{name}': {error}{hint}") from error
