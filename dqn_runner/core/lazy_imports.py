"""Heavy libraries, imported at first use.

Composing a configuration, `--help` and shell completion must stay quick, yet the parts that the
configuration names live beside the code that uses torch and gymnasium. So those files take the
names from here: the real import happens when an attribute is first read.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gymnasium as gymnasium
    import torch as torch
else:

    class _LazyModule(ModuleType):
        """A stand-in that imports the module of its name when an attribute is first read."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(importlib.import_module(self.__name__), name)
            setattr(self, name, value)
            return value

        def __reduce__(self) -> Any:
            """Launchers pickle jobs together with the names they use."""
            return type(self), (self.__name__,)

    gymnasium = _LazyModule("gymnasium")
    torch = _LazyModule("torch")
