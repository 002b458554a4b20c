"""What the program needs of Hydra beyond its public interface; the only file that imports it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.types import RunMode
from omegaconf import DictConfig


def parse_arguments(argv: Sequence[str]) -> Namespace:
    """A command line as Hydra's own parser reads it: flags, and the overrides as texts."""
    return get_args_parser().parse_args(list(argv))


def make_config_loader(search_path: Any) -> Any:
    """A loader that composes from another search path than the one of this process."""
    return ConfigLoaderImpl(search_path)


def compose_command(arguments: Namespace, conf: Path, default_name: str) -> DictConfig:
    """The configuration of a parsed command line, composed beside Hydra's own run: it starts nothing.

    `conf` is the directory of the program's YAML files, `default_name` its primary configuration.
    """
    path = create_config_search_path(str(conf))
    if arguments.config_dir:
        where = f"file://{Path(arguments.config_dir).absolute()}"
        path.prepend("command-line", where, SearchPathQuery(provider="schema"))
    mode = RunMode.MULTIRUN if arguments.multirun else RunMode.RUN
    loader = make_config_loader(path)
    return loader.load_configuration(arguments.config_name or default_name, arguments.overrides, mode)
