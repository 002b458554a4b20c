"""What the program needs of Hydra beyond its public interface; the only file that imports it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import get_args_parser


def parse_arguments(argv: Sequence[str]) -> Namespace:
    """A command line as Hydra's own parser reads it: flags, and the overrides as texts."""
    return get_args_parser().parse_args(list(argv))


def flags_first(argv: Sequence[str]) -> list[str]:
    """The command line with its overrides at the end: Hydra's parser rejects flags between them."""
    parser = get_args_parser()
    with_value = {name for action in parser._actions if action.nargs != 0 for name in action.option_strings}
    flags: list[str] = []
    overrides: list[str] = []
    remaining = iter(argv)
    for token in remaining:
        if not token.startswith("-"):
            overrides.append(token)
        else:
            flags += [token, *([value] if token in with_value and (value := next(remaining, None)) else [])]
    return [*flags, *overrides]


def make_config_loader(search_path: Any) -> Any:
    """A loader that composes from another search path than the one of this process."""
    return ConfigLoaderImpl(search_path)
