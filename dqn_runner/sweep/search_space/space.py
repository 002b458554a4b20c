"""The search space of a sweep, from the command line, YAML and Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, cast

import optuna
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig
from optuna.trial import FrozenTrial

from dqn_runner.config.overrides import bare_key, format_value, normalize_value, parse_override, unquote
from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.search_space.conditions import resolve_conditions
from dqn_runner.sweep.search_space.custom import CUSTOM, custom_function, suggested_names
from dqn_runner.sweep.search_space.parameters import (
    EXPLICIT,
    Conditions,
    Parameter,
    Scalar,
    from_fields,
    from_override,
    from_value,
    possible_value,
)

PARAMS = "hydra.sweeper.params"
SPACE, WHEN = "space", "when"
CHOSEN_BY = "search"
"""The config group whose files contain search spaces."""

_RESERVED = ("seed", "agent.seed", CHOSEN_BY)
_RESERVED_PREFIXES = ("hydra.", "hydra/", "study.")


@dataclass(frozen=True)
class SearchSpace:
    """The parameters that differ between trials, and the overrides that all trials share."""

    parameters: tuple[Parameter, ...]
    """In the order in which they are suggested; conditions depend on earlier parameters."""
    fixed: tuple[str, ...]
    """The overrides that are the same in every trial, as they were written."""
    custom: str | None = None
    """Import path of a function (cfg, trial) that suggests more parameters."""

    def suggest(
        self,
        trial: optuna.Trial | FrozenTrial,
        config: DictConfig,
        enqueued: Mapping[str, Any] = MappingProxyType({}),
    ) -> list[str]:
        """The overrides of a trial; a trial that has values already gets the same overrides again.

        `config` is passed to the custom function; `enqueued` are the `enqueued_values` of the trial. Raises
        UserError if the function suggests a reserved or fixed key, and ValueError if a value that the study
        has of the trial is not of this search space.
        """
        texts: dict[str, str] = {}
        for parameter in self.parameters:
            if all(texts.get(name) in allowed for name, allowed in parameter.when.items()):
                texts[parameter.name] = parameter.suggest(cast("optuna.Trial", trial))
        if self.custom is not None:
            suggested = suggested_names(self.custom, trial, config, enqueued)
            params, distributions = trial.params, trial.distributions
            texts |= self._custom_suggestions(
                {name: possible_value(name, params[name], distributions[name]) for name in suggested}
            )
        for name, value in enqueued.items():  # Optuna rounds one to an integer
            if name in trial.distributions:
                possible_value(name, value, trial.distributions[name])
        if not texts:
            raise UserError(f"{CUSTOM}={self.custom} suggests nothing; let it call trial.suggest_...")
        return [f"{name}={text}" for name, text in texts.items()]

    def grid(self) -> dict[str, list[Scalar]]:
        """The values of each parameter, for GridSampler; raises UserError if one has no list of values."""
        if self.custom is not None:
            raise UserError(f"a grid cannot contain the parameters of {CUSTOM}={self.custom}")
        self.check_finite()
        grid: dict[str, list[Scalar]] = {}
        for parameter in self.parameters:
            if parameter.when:
                raise UserError(
                    f"a grid does not support conditions, but {parameter.name} depends on "
                    f"{', '.join(parameter.when)}; fix one of them or choose another hydra/sweeper/sampler"
                )
            grid[parameter.name] = list(parameter.values() or ())
        return grid

    def check_finite(self) -> None:
        """Raise UserError if a parameter is continuous, so that not every value of it can be tried."""
        for parameter in self.parameters:
            if parameter.is_continuous:
                raise UserError(
                    f"a grid needs a list of values, but {parameter.name} is continuous; give it "
                    "choice(...) or range(start, end, step)"
                )

    def texts(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """The values that `params` has of the parameters, each as the text of an override."""
        return tuple(f"{p.name}={p.text(params[p.name])}" for p in self.parameters if p.name in params)

    def definition(self) -> dict[str, Any]:
        """The search space as plain JSON values; a study has only one."""
        return {"parameters": {p.name: p.definition() for p in self.parameters}, "custom": self.custom}

    def in_order_of(self, definition: Mapping[str, Any]) -> SearchSpace:
        """The same search space with its parameters in the order of an equal definition."""
        order = list(definition["parameters"])
        return replace(self, parameters=tuple(sorted(self.parameters, key=lambda p: order.index(p.name))))

    def _custom_suggestions(self, values: Mapping[str, Any]) -> dict[str, str]:
        """The overrides of what the custom function suggested, sorted: its order may vary."""
        declared = {parameter.name for parameter in self.parameters}
        extra = {name: normalize_value(values[name]) for name in sorted(values.keys() - declared)}
        fixed = {_key(parse_override(text)) for text in self.fixed}
        for name in extra:
            _reject_reserved(name)
            if bare_key(name) in fixed:
                raise UserError(f"{self.custom} suggests {name}, which the command fixes; remove one of them")
        return extra


def search_space(arguments: Sequence[str], params: Mapping[str, Any], custom: str | None) -> SearchSpace:
    """The search space of a command.

    `arguments` are the overrides of the command line, searched and fixed ones; `params` is
    `hydra.sweeper.params`, whose keys the command line replaces; `custom` is the import path of a function
    (cfg, trial). `search=...` is not among the fixed overrides: a job does not search. Raises UserError if
    one of them is not valid.
    """
    command = [_from_argument(argument) for argument in arguments]
    times = Counter(_key(override) for override, _ in command)
    for override, parameter in command:
        if parameter is not None and times[_key(override)] > 1:
            raise UserError(f"{parameter.name} is given more than once on the command line")
    settings = dict(_leaves(params))  # the last one counts if a key is given both nested and with dots
    _reject_two_spellings(settings)
    yaml = [_from_yaml(name, value) for name, value in settings.items() if bare_key(name) not in times]
    if custom is not None:
        custom_function(custom)

    swept = [parameter for _, parameter in (*command, *yaml) if parameter is not None]
    fixed = [override for override, parameter in (*yaml, *command) if parameter is None]
    fixed = [override for override in fixed if _key(override) != CHOSEN_BY]
    values = {
        _key(override): format_value(override.value()) for override in fixed if not override.is_delete()
    }
    parameters = tuple(resolve_conditions(swept, times, values))
    if not parameters and custom is None:
        raise UserError(
            "the search space is empty; give ranges on the command line or in "
            f"{PARAMS}, as in 'agent.learning_rate=tag(log,interval(1e-5,1e-2))', or choose search=dqn"
        )
    return SearchSpace(parameters, tuple(override.input_line or "" for override in fixed), custom)


Entry = tuple[Override, Parameter | None]
"""The override of a setting, and its parameter; None if the setting is fixed."""


def _from_argument(argument: str) -> Entry:
    """The entry of an override of the command line."""
    override = parse_override(argument)
    parameter = from_override(override, {})
    if parameter is not None:
        _reject_reserved(parameter.name)
    return override, parameter


def _leaves(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings in `params` by dotted key; keys may be nested or contain dots."""
    for key, value in params.items():
        if _is_group(value):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_group(value: Any) -> bool:
    """Whether a mapping contains settings, instead of describing one."""
    if not isinstance(value, Mapping):
        return False
    fields = set(cast("Mapping[str, Any]", value))
    explicit = "type" in fields and fields <= {*EXPLICIT, WHEN}
    return bool(fields) and not explicit and not fields & {SPACE, WHEN}


def _from_yaml(name: str, value: Any) -> Entry:
    """The entry of a setting in `params`: a text in Hydra's grammar, a value, or a mapping of fields."""
    try:
        _reject_reserved(name)
        if isinstance(value, Mapping) and value:
            return _from_mapping(name, cast("Mapping[str, Any]", value))
        return _entry(name, value, {})
    except UserError as error:
        raise UserError(f"{PARAMS}: {error}") from error


def _from_mapping(name: str, fields: Mapping[str, Any]) -> Entry:
    if SPACE not in fields and "type" not in fields:
        raise UserError(f"{name} has no `{SPACE}`; give it the values to search, as in choice(1,3,5)")
    known = (SPACE, WHEN) if SPACE in fields else (*EXPLICIT, WHEN)
    if unknown := [key for key in fields if key not in known]:
        raise UserError(f"{name} has no field {', '.join(unknown)}; available: {', '.join(known)}")
    conditions: Any = unquote(fields.get(WHEN, {}))
    if not isinstance(conditions, dict):
        raise UserError(f"{name}: `{WHEN}` must be a mapping of settings to values, as in {{agent: c51}}")
    when = {key: _allowed(value) for key, value in cast("dict[str, Any]", conditions).items()}
    if empty := [key for key, allowed in when.items() if not allowed]:
        raise UserError(f"{name}: `{WHEN}` lists no value of {', '.join(empty)}, so that it can never hold")
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
    """The values of a condition, which is a value or a list of values."""
    values: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
    return tuple(normalize_value(item) for item in values)


def _reject_reserved(name: str) -> None:
    """Raise UserError for a key that the sweeper sets for its jobs."""
    key = bare_key(name)
    if key in _RESERVED or key.startswith(_RESERVED_PREFIXES):
        raise UserError(
            f"{name} cannot be part of a search space: the sweeper sets it for each job; "
            "hydra.sweeper.seeds=5 runs each trial with 5 seeds"
        )


def _reject_two_spellings(names: Iterable[str]) -> None:
    """Raise UserError if a key is given with and without a plus sign."""
    spelled: dict[str, str] = {}
    for name in names:
        if (other := spelled.setdefault(bare_key(name), name)) != name:
            raise UserError(f"{PARAMS}: {other} and {name} are the same setting; remove one of them")


def _key(override: Override) -> str:
    return bare_key(override.get_key_element())
