"""Heavy libraries, imported at first use.

Composing a configuration, `--help` and shell completion must be fast, but the configurable parts are defined
in the same files as the code that uses torch and gymnasium. These files import the two names from here; the
library itself is imported when one of its attributes is first read.
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
        """A stand-in that imports the real module when an attribute is first read."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(importlib.import_module(self.__name__), name)
            setattr(self, name, value)
            return value

        def __reduce__(self) -> Any:
            """Pickle by name: launchers pickle jobs together with the modules that they use."""
            return type(self), (self.__name__,)

    gymnasium = _LazyModule("gymnasium")
    torch = _LazyModule("torch")
