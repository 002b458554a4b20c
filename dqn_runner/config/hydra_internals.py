"""What the program needs of Hydra beyond its public interface; the only file that imports it."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins import basic_sweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import (
    _locate,  # pyright: ignore[reportPrivateUsage]
    create_config_search_path,
    get_args_parser,
)
from hydra.core import utils
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from dqn_runner.config.overrides import parse_overrides
from dqn_runner.core.exceptions import UserError
from dqn_runner.run.contents import holds_run, holds_sweep


def locate(path: str) -> Callable[..., Any]:
    """The callable at a dotted path, as `_target_` finds it; Hydra's `get_method` logs each error too."""
    found = _locate(path)
    if not callable(found):
        raise ValueError(f"{path} is neither a class nor a function")
    return found


def parse_arguments(argv: Sequence[str]) -> Namespace:
    """A command line as Hydra's own parser reads it: flags, and the overrides as texts."""
    parser = get_args_parser()
    parser.error = _reject  # Hydra's own prints the usage, several lines
    return parser.parse_args(list(argv))


def _reject(message: str) -> NoReturn:
    raise UserError(f"{message}; --hydra-help lists the flags")


def flags_first(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags of a command line with their values, and the overrides, in any order on the command line."""
    flags: list[str] = []
    overrides: list[str] = []
    takes_value = False
    for index, token in enumerate(argv):
        is_value = takes_value
        takes_value = False
        if not is_value and not token.startswith("-"):
            overrides.append(token)
            continue
        flags.append(token)
        action = None if is_value else _flags().get(token)
        if action is not None:
            optional = action.nargs == "?" and argv[index + 1 : index + 2] in [
                [c] for c in action.choices or ()
            ]
            takes_value = action.nargs is None or optional
    return flags, overrides


def is_flag(token: str) -> bool:
    """Whether Hydra has a flag of this name, or one that begins with it."""
    name = token.partition("=")[0]
    if name.startswith("--"):
        return any(flag.startswith(name) for flag in _flags())
    return any(name.startswith(flag) for flag in _flags() if not flag.startswith("--"))


def _flags() -> dict[str, Any]:
    return get_args_parser()._option_string_actions  # pyright: ignore[reportPrivateUsage]


def _map_of_interpolations(overrides: Any, defaults: list[Any], self_added: bool) -> DictConfig | None:
    """What `${...}` in a defaults list refers to; None if no element of the list has one.

    Hydra collects it for every file, which takes a fifth of the time of a composition.
    """
    if any(default.is_interpolation() for default in defaults):
        return _create_interpolation_map(overrides, defaults, self_added)
    return None


_create_interpolation_map = defaults_list._create_interpolation_map  # pyright: ignore[reportPrivateUsage]
defaults_list._create_interpolation_map = _map_of_interpolations  # pyright: ignore


def _expand_once(*, root: Any, is_root_config: bool, **context: Any) -> Any:
    """Hydra's expansion of a defaults list; a file that chooses itself would be expanded for ever."""
    if not is_root_config:
        names = [root.node.get_config_path()]
        above = root.parent
        while above is not None and not above.node.is_virtual():
            names.insert(0, above.node.get_config_path())
            above = above.parent
        if names[-1] in names[:-1]:
            cycle = " -> ".join(names[names.index(names[-1]) :])
            raise UserError(f"the defaults lists of YAML files choose each other without end: {cycle}")
    return _create_tree(root=root, is_root_config=is_root_config, **context)


_create_tree = defaults_list._create_defaults_tree_impl  # pyright: ignore[reportPrivateUsage]
defaults_list._create_defaults_tree_impl = _expand_once  # pyright: ignore


def _search_what_exists(self: ConfigLoaderImpl, *arguments: Any) -> None:
    """Read `hydra.searchpath`; Hydra only warns of a directory that does not exist."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "provider=.* is not available", UserWarning)
        try:
            _process_search_path(self, *arguments)
        except UserWarning as warning:
            path = str(warning).partition("path=")[2].removesuffix(" is not available.")
            raise UserError(
                f"hydra.searchpath: {path} does not exist; each entry is a directory, as in "
                "hydra.searchpath=[file:///home/me/conf]"
            ) from None


_process_search_path = ConfigLoaderImpl._process_config_searchpath  # pyright: ignore[reportPrivateUsage]
ConfigLoaderImpl._process_config_searchpath = _search_what_exists  # pyright: ignore


def _save_for_new_run(cfg: DictConfig, filename: str, output_dir: Path) -> None:
    """Write a file of `.hydra/` unless its directory holds a run or a sweep.

    Those of a run tell its first command. Hydra writes it before the program can reject the command. It is
    replaced for all processes that import the program: a launcher may run a job in another one.
    """
    directory = Path(HydraConfig.get().runtime.output_dir)
    if not (holds_run(directory) or holds_sweep(directory)):
        _save_config(cfg, filename, output_dir)


_save_config = utils._save_config  # pyright: ignore[reportPrivateUsage]
utils._save_config = _save_for_new_run  # pyright: ignore


class _OwnRepository(ConfigRepository):
    """Files that this program loads itself, to check or to write them; see `checking_names`."""


def make_config_loader(search_path: Any) -> Any:
    """A loader that composes from another search path than the one of this process."""
    loader = ConfigLoaderImpl(search_path)
    loader.repository = _OwnRepository(search_path)
    return loader


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


@contextmanager
def checking_files(check: Callable[[Path, str], None]) -> Generator[None]:
    """Call `check` with the path and the name of each YAML file before Hydra or the program loads it."""
    load = ConfigRepository.load_config

    def load_config(self: ConfigRepository, config_path: str) -> Any:
        source = self._find_object_source(config_path, ObjectType.CONFIG)  # pyright: ignore[reportPrivateUsage]
        if source is not None and source.scheme() == "file":
            check(Path(source.path, source._normalize_file_name(config_path)), config_path)  # pyright: ignore[reportPrivateUsage]
        return load(self, config_path)

    with _loading_by(load_config):
        yield


@contextmanager
def checking_names(check: Callable[[str], None]) -> Generator[None]:
    """Call `check` with the name of each file before Hydra loads it, such as `experiment/my_run`.

    What `make_config_loader` loads is left out.
    """
    load = ConfigRepository.load_config

    def load_config(self: ConfigRepository, config_path: str) -> Any:
        if not isinstance(self, _OwnRepository):
            check(config_path)
        return load(self, config_path)

    with _loading_by(load_config):
        yield


def _loading_by(load_config: Callable[[ConfigRepository, str], Any]) -> AbstractContextManager[None]:
    """Load files by another function."""
    return _replaced(ConfigRepository, "load_config", load_config)


@contextmanager
def _replaced(owner: type, name: str, function: Callable[..., object]) -> Generator[None]:
    """Within the block, the class `owner` has another function as its method `name`."""
    original = getattr(owner, name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def composing_once(argv: Sequence[str], check_run: Callable[[DictConfig], None]) -> Generator[None]:
    """Let Hydra use the configuration that it composes to find out its mode, for the run or sweep of `argv`.

    It would compose the same one again, which takes a tenth of the time in which a run starts. `check_run` is
    called with the configuration of a single run, before Hydra writes anything.
    """
    expected = RunMode.MULTIRUN if parse_arguments(argv).multirun else RunMode.RUN
    composed: list[tuple[list[str], DictConfig]] = []
    find_mode, load = Hydra.get_mode, ConfigLoaderImpl.load_configuration

    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> RunMode | None:
        try:
            config = self.compose_config(config_name, overrides, expected)
        except Exception:
            if expected is RunMode.MULTIRUN or not any(
                o.is_sweep_override() for o in parse_overrides(overrides)
            ):
                raise
            return find_mode(self, config_name, overrides)  # perhaps a YAML file makes it a sweep
        if expected is RunMode.RUN and config.hydra.mode is not RunMode.MULTIRUN:
            check_run(config)
        composed.append((list(overrides), config))
        return config.hydra.mode

    def load_configuration(
        self: ConfigLoaderImpl,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        *args: Any,
        **kwargs: Any,
    ) -> DictConfig:
        known, config = composed.pop() if composed else ([], None)
        mode = f"hydra.mode={run_mode.name}"
        if config is None or run_mode is not expected or overrides not in (known, [*known, mode]):
            return load(self, config_name, overrides, run_mode, *args, **kwargs)
        if overrides != known:
            with open_dict(config):
                config.hydra.mode = run_mode
                config.hydra.overrides.hydra.append(mode)
        return config

    Hydra.get_mode, ConfigLoaderImpl.load_configuration = get_mode, load_configuration
    try:
        yield
    finally:
        Hydra.get_mode, ConfigLoaderImpl.load_configuration = find_mode, load


def sweeping_by(sweep: Callable[[Any, list[str]], object]) -> AbstractContextManager[None]:
    """Let Hydra's own sweeper, that of a plain `-m`, sweep by another function of it and the overrides."""
    # looked up late: Hydra loads this module again to discover plugins
    return _replaced(basic_sweeper.BasicSweeper, "sweep", sweep)
