"""Samplers and pruners from their configurations, and which kind a configuration is of."""

from __future__ import annotations

import re
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from dqn_runner.config.hydra_internals import locate
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import TARGET


def is_sampler(config: Mapping[str, Any], *kinds: str) -> bool:
    """Whether `config` names a class of `optuna.samplers` in `kinds`, or a subclass of one.

    Raises UserError if what it names cannot be imported.
    """
    return _is_subclass("sampler", config, kinds)


def is_pruner(config: Mapping[str, Any], *kinds: str) -> bool:
    """The same for the classes of `optuna.pruners`."""
    return _is_subclass("pruner", config, kinds)


def pruner_imports(config: Any) -> list[str]:
    """What a pruner names that is not one of `optuna.pruners`, in any depth."""
    if isinstance(config, Mapping):
        found: list[str] = []
        for key, value in cast("Mapping[str, Any]", config).items():
            if key != TARGET:
                found += pruner_imports(value)
            elif not re.fullmatch(r"optuna\.pruners\.\w+", str(value)):
                found.append(str(value))
        return found
    if isinstance(config, list):
        return [name for item in cast("list[Any]", config) for name in pruner_imports(item)]
    return [config] if isinstance(config, str) and "${" in config else []


def make_part(part: str, config: Mapping[str, Any], **extra: Any) -> Any:
    """Instantiate a sampler or a pruner; `part` is which of them. Raises UserError if that fails.

    `extra` are further arguments, which Hydra does not read: a choice may contain `${`.
    """
    import optuna
    from hydra.utils import instantiate

    base = optuna.samplers.BaseSampler if part == "sampler" else optuna.pruners.BasePruner
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # Optuna 4 knows constraints only as a function
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            made = instantiate(dict(config), _partial_=True)(**extra)
    except Exception as error:
        raise UserError(f"hydra.sweeper.{part} cannot be built: {error.__cause__ or error}") from error
    if not isinstance(made, base):
        raise UserError(
            f"hydra.sweeper.{part}: {config[TARGET]} makes no {base.__name__} of Optuna; name another"
        )
    return made


@contextmanager
def naming_arguments(part: str, task: str) -> Generator[None]:
    """A block in which a sampler or a pruner does its task: what a wrong argument raises becomes a UserError.

    Optuna's classes read most of their arguments only then.
    """
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise UserError(
            f"hydra.sweeper.{part} cannot {task}: {reason}; check its arguments, or choose another {part}"
        ) from error


def _is_subclass(part: str, config: Mapping[str, Any], kinds: tuple[str, ...]) -> bool:
    import optuna  # late: the settings of a sweep are part of the help

    try:
        named: object = locate(str(config[TARGET]))
    except Exception as error:  # importing the user's module can raise anything
        raise UserError(f"hydra.sweeper.{part} cannot be built: {error}") from error
    module = getattr(optuna, f"{part}s")
    return isinstance(named, type) and issubclass(named, tuple(getattr(module, kind) for kind in kinds))
