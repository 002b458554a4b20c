"""The search space of a sweep: what trials may differ in, from the command line, YAML and Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import optuna
from hydra.core.override_parser.types import Override
from hydra.utils import get_method
from omegaconf import DictConfig

from dqn_runner.config.overrides import bare_key, format_value, normalize_value, parse_override, unquote
from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.search_space.conditions import resolve_conditions
from dqn_runner.sweep.search_space.parameters import (
    EXPLICIT,
    Conditions,
    Parameter,
    Scalar,
    from_fields,
    from_override,
    from_value,
)

PARAMS = "hydra.sweeper.params"
CUSTOM = "hydra.sweeper.custom_search_space"
SPACE, WHEN = "space", "when"
CHOSEN_BY = "search"
"""The group whose files hold search spaces."""

_OWN = ("seed", "agent.seed", CHOSEN_BY)
_OWN_PREFIXES = ("hydra.", "hydra/", "study.")


@dataclass(frozen=True)
class SearchSpace:
    """What the trials of a sweep have in common, and what they may differ in."""

    parameters: tuple[Parameter, ...]
    """In the order in which they are suggested: conditions look at earlier ones."""
    fixed: tuple[str, ...]
    """The overrides that are the same in every trial, as they were given."""
    custom: str | None = None
    """Import path of a function (cfg, trial) that suggests more."""

    def suggest(self, trial: optuna.Trial, config: DictConfig) -> list[str]:
        """The overrides of a trial; a trial whose values are known already gets the same again.

        `config` is handed to the custom function. Raises a UserError where that suggests what it may not.
        """
        texts: dict[str, str] = {}
        for parameter in self.parameters:
            if all(texts.get(name) in allowed for name, allowed in parameter.when.items()):
                texts[parameter.name] = parameter.suggest(trial)
        if self.custom is not None:
            _function(self.custom)(config, trial)
            texts |= self._suggested_beside(trial)
        return [f"{name}={text}" for name, text in texts.items()]

    def grid(self) -> dict[str, list[Scalar]]:
        """Every parameter's values, for Optuna's GridSampler; a UserError names what cannot be in a grid."""
        if self.custom is not None:
            raise UserError(f"a grid cannot hold what {CUSTOM}={self.custom} suggests")
        grid: dict[str, list[Scalar]] = {}
        for parameter in self.parameters:
            values = parameter.values()
            if values is None:
                raise UserError(
                    f"a grid needs values to enumerate, but {parameter.name} is continuous; give it "
                    "choice(...) or range(start, end, step)"
                )
            if parameter.when:
                raise UserError(
                    f"a grid has no conditions, but {parameter.name} depends on {', '.join(parameter.when)}; "
                    "fix one of them or take another hydra/sweeper/sampler"
                )
            grid[parameter.name] = list(values)
        return grid

    def definition(self) -> dict[str, Any]:
        """What is searched, as plain JSON: another one is another search."""
        return {"parameters": {p.name: p.definition() for p in self.parameters}, "custom": self.custom}

    def _suggested_beside(self, trial: optuna.Trial) -> dict[str, str]:
        """What the custom function suggested, sorted: a storage may give it back in another order."""
        declared = {parameter.name for parameter in self.parameters}
        extra = {name: normalize_value(trial.params[name]) for name in sorted(trial.params.keys() - declared)}
        fixed = {_key(parse_override(text)) for text in self.fixed}
        for name in extra:
            _refuse_own(name)
            if bare_key(name) in fixed:
                raise UserError(f"{self.custom} suggests {name}, which the command fixes; drop one of them")
        return extra


def search_space(arguments: Sequence[str], params: Mapping[str, Any], custom: str | None) -> SearchSpace:
    """The space that a command spans.

    `arguments` are the overrides of the command line, those to search over and the others; `params` is
    `hydra.sweeper.params`, whose keys the command line replaces; `custom` is the import path of a function
    (cfg, trial). The override that chose a file with a search space is left out of the fixed ones, for a
    job is no search. Raises a UserError that says what is wrong with one of them.
    """
    command = [_given(argument) for argument in arguments]
    times = Counter(_key(override) for override, _ in command)
    for override, parameter in command:
        if parameter is not None and times[_key(override)] > 1:
            raise UserError(f"{parameter.name} is given more than once on the command line")
    settings = dict(_leaves(params))  # a key that stands there both nested and with dots: the last one counts
    written = [_written(name, value) for name, value in settings.items() if bare_key(name) not in times]
    if custom is not None:
        _function(custom)

    swept = [parameter for _, parameter in (*command, *written) if parameter is not None]
    fixed = [override for override, parameter in (*written, *command) if parameter is None]
    fixed = [override for override in fixed if _key(override) != CHOSEN_BY]
    values = {
        _key(override): format_value(override.value()) for override in fixed if not override.is_delete()
    }
    parameters = tuple(resolve_conditions(swept, times, values))
    if not parameters and custom is None:
        raise UserError(
            "there is nothing to search; give ranges on the command line or in "
            f"{PARAMS}, as in 'agent.learning_rate=tag(log,interval(1e-5,1e-2))', or choose search=dqn"
        )
    return SearchSpace(parameters, tuple(override.input_line or "" for override in fixed), custom)


Entry = tuple[Override, Parameter | None]
"""What was given for one setting: a parameter, or else an override that is fixed."""


def _given(argument: str) -> Entry:
    """An override of the command line."""
    override = parse_override(argument)
    parameter = from_override(override, {})
    if parameter is not None:
        _refuse_own(parameter.name)
    return override, parameter


def _leaves(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings in `params`, whose keys may be nested or written with dots."""
    for key, value in params.items():
        if _is_nested(value):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_nested(value: Any) -> bool:
    """Whether a value holds settings, and does not describe one."""
    if not isinstance(value, Mapping):
        return False
    fields = set(cast("Mapping[str, Any]", value))
    explicit = "type" in fields and fields <= {*EXPLICIT, WHEN}
    return bool(fields) and not explicit and not fields & {SPACE, WHEN}


def _written(name: str, value: Any) -> Entry:
    """A setting in `params`: a text in Hydra's grammar, a value, or a mapping of fields."""
    try:
        _refuse_own(name)
        if isinstance(value, Mapping) and value:
            return _described(name, cast("Mapping[str, Any]", value))
        return _entry(name, value, {})
    except UserError as error:
        raise UserError(f"{PARAMS}: {error}") from error


def _described(name: str, fields: Mapping[str, Any]) -> Entry:
    if SPACE not in fields and "type" not in fields:
        raise UserError(f"{name} lacks `{SPACE}`, the values to search, as in choice(1,3,5)")
    known = (SPACE, WHEN) if SPACE in fields else (*EXPLICIT, WHEN)
    if strange := [key for key in fields if key not in known]:
        raise UserError(f"{name} has no field {', '.join(strange)}; there are {', '.join(known)}")
    wanted: Any = unquote(fields.get(WHEN, {}))
    if not isinstance(wanted, dict):
        raise UserError(f"{name}: `{WHEN}` takes settings with their values, as in {{agent: c51}}")
    when = {key: _allowed(value) for key, value in cast("dict[str, Any]", wanted).items()}
    if SPACE in fields:
        return _entry(name, fields[SPACE], when)
    return parse_override(f"{name}="), from_fields(name, fields, when)


def _entry(name: str, value: Any, when: Conditions) -> Entry:
    override = parse_override(f"{name}={value if isinstance(value, str) else format_value(value)}")
    parameter = from_override(override, when)
    if parameter is None and when:
        parameter = from_value(name, override.value(), when)
    return override, parameter


def _allowed(value: Any) -> tuple[str, ...]:
    """The values that a condition names: one, or a list of them."""
    values: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    return tuple(normalize_value(item) for item in values)


def _refuse_own(name: str) -> None:
    """Raise for what the sweeper gives to its jobs."""
    key = bare_key(name)
    if key in _OWN or key.startswith(_OWN_PREFIXES):
        raise UserError(
            f"{name} cannot be part of a search space: the sweeper sets it for each job; "
            "hydra.sweeper.seeds=5 runs every trial with 5 seeds"
        )


def _key(override: Override) -> str:
    return bare_key(override.get_key_element())


def _function(path: str) -> Callable[[DictConfig, optuna.Trial], object]:
    try:
        return get_method(path)
    except Exception as error:  # whatever the import of a user's module may raise
        raise UserError(f"{CUSTOM}={path} cannot be imported: {error}") from error
