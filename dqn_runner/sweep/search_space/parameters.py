"""One searched setting: the distribution that Optuna samples from, and the override for each value."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

import optuna
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from dqn_runner.config.overrides import format_value, normalize_value, unquote
from dqn_runner.core.exceptions import UserError

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
Scalar = bool | int | float | str | None
Conditions = Mapping[str, tuple[str, ...]]
"""For each setting that a parameter depends on, the values (as texts of overrides) for which it is used."""

TYPES = ("categorical", "float", "int")
CHOICE_FIELDS = ("type", "choices")
NUMBER_FIELDS = ("type", "low", "high", "log", "step")
EXPLICIT = (*CHOICE_FIELDS, *NUMBER_FIELDS[1:])
"""The fields of a distribution given as a mapping, as in hydra-optuna-sweeper."""

MOST_STEPS = 10**15
"""More steps cannot be told apart as floats."""

ROUNDING = 4 * sys.float_info.epsilon
"""The relative error of a step that a sampler has computed."""


@dataclass(frozen=True)
class Parameter:
    """A setting that differs between trials."""

    name: str
    """The key of the override, and its name in the study."""
    distribution: Distribution
    texts: tuple[str, ...] = ()
    """The choices of a categorical distribution as texts of overrides. A study stores numbers, strings,
    booleans and null as they are, but only the text of a list."""
    when: Conditions = field(default_factory=dict[str, tuple[str, ...]])
    """The parameter is suggested only if these hold."""

    def suggest(self, trial: optuna.Trial) -> str:
        """The value for this trial, as the text of an override; raises ValueError if it is not possible."""
        match self.distribution:
            case CategoricalDistribution() as d:
                value = trial.suggest_categorical(self.name, d.choices)
            case FloatDistribution() as d:
                value = trial.suggest_float(self.name, d.low, d.high, step=d.step, log=d.log)
            case IntDistribution() as d:
                value = trial.suggest_int(self.name, d.low, d.high, step=d.step, log=d.log)
        return self.text(possible_value(self.name, value, self.distribution))

    def text(self, value: Any) -> str:
        """A value of the distribution as the text of an override.

        Samplers compute steps of floats with rounding errors; the text is the decimal number that is meant.
        """
        match self.distribution:
            case CategoricalDistribution() as d:
                return self.texts[int(d.to_internal_repr(value))]
            case FloatDistribution(low=low, step=float() as step):
                start, stride = Decimal(str(low)), Decimal(str(step))
                return format_value(float(start + round((Decimal(float(value)) - start) / stride) * stride))
            case _:
                return format_value(value)

    @property
    def is_continuous(self) -> bool:
        """Whether there is a value between any two values."""
        return isinstance(self.distribution, FloatDistribution) and self.distribution.step is None

    def values(self) -> Sequence[Scalar] | None:
        """All values of the distribution; None if it is continuous."""
        match self.distribution:
            case CategoricalDistribution() as d:
                return d.choices
            case IntDistribution() as d:
                return range(d.low, d.high + 1, d.step)
            case FloatDistribution(step=None):
                return None
            case FloatDistribution() as d:
                low, high, step = (Decimal(str(number)) for number in (d.low, d.high, d.step))
                return [float(low + i * step) for i in range(int((high - low) / step) + 1)]

    def find(self, text: str) -> str | None:
        """The text of the value that `text` means; None if it is not one of the values."""
        texts = self.texts or map(format_value, self.values() or ())
        return next((known for known in texts if same_value(known, text)), None)

    def definition(self) -> dict[str, Any]:
        """Plain JSON values, which are equal if the parameters are."""
        when = {key: list(texts) for key, texts in self.when.items()}
        return {**json.loads(distribution_to_json(self.distribution)), "when": when}


def possible_value(name: str, value: Any, distribution: BaseDistribution) -> Any:
    """A value of a trial as the distribution has it; raises ValueError if it has not.

    A study can contain any value. Optuna warns of it at most, and the trial runs.
    """
    internal = distribution.to_internal_repr(value)
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        low, step = distribution.low, distribution.step
        steps, rounding = (internal - low) / step, ROUNDING * (abs(internal) + abs(low)) / step
        contained = low <= internal <= distribution.high and abs(steps - round(steps)) < 1e-8 + rounding
    else:
        contained = distribution._contains(internal)  # pyright: ignore[reportPrivateUsage]
    if not contained:
        raise ValueError(f"{name}={value} is not in the search space")
    return distribution.to_external_repr(internal)


def same_value(one: str, other: str) -> bool:
    """Whether two texts of overrides mean the same value; 1 and 1.0 do."""
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def from_override(override: Override, when: Conditions) -> Parameter | None:
    """The parameter of an override in Hydra's grammar; None if the override is a single value.

    The meaning is that of hydra-optuna-sweeper: `range` includes its end, and has integer values if all its
    numbers are integers; `interval` is continuous, and has integer values within `int(...)`.
    """
    name, sweep = override.get_key_element(), override.value()
    if not override.is_sweep_override():
        return None
    if override.is_delete():
        raise UserError(f"{override.input_line}: a deleted setting cannot be searched")
    match sweep:
        case ChoiceSweep():
            _reject_tags(name, sweep.tags, ())
            return _choice(name, [(unquote(item), format_value(unquote(item))) for item in sweep.list], when)
        case RangeSweep(shuffle=True):
            _reject_tags(name, sweep.tags, ())
            return _choice(name, [(item, format_value(item)) for item in sweep.range()], when)
        case RangeSweep():
            _reject_tags(name, sweep.tags, ("log",))
            assert sweep.start is not None
            assert sweep.stop is not None
            return _numbers(name, sweep.start, sweep.stop, sweep.step, "log" in sweep.tags, when)
        case IntervalSweep():
            _reject_tags(name, sweep.tags, ("log",))
            assert sweep.start is not None
            assert sweep.end is not None
            if isinstance(sweep.start, int) and sweep.start == sweep.end:  # as int(interval(1e-5,1e-2))
                raise UserError(
                    f"{override.input_line} has the single value {sweep.start}; write {name}={sweep.start}"
                )
            return _numbers(name, sweep.start, sweep.end, None, "log" in sweep.tags, when)
        case _:
            raise UserError(f"{override.input_line}: a search does not support glob; list the options")


def from_value(name: str, value: Any, when: Conditions) -> Parameter:
    """A parameter with a single value, for a setting that has a condition."""
    return _choice(name, [(value, format_value(value))], when)


def from_fields(name: str, fields: Mapping[str, Any], when: Conditions) -> Parameter:
    """A parameter given as a mapping: `type` and either `choices`, or `low`, `high`, `log` and `step`."""
    kind = fields.get("type")
    if kind not in TYPES:
        raise UserError(f"{name}: type must be one of {', '.join(TYPES)}, got {kind!r}")
    own = CHOICE_FIELDS if kind == "categorical" else NUMBER_FIELDS
    if others := [key for key in fields if key in EXPLICIT and key not in own]:
        raise UserError(f"{name}: type {kind} does not use {', '.join(others)}; it has {', '.join(own[1:])}")
    if kind == "categorical":
        choices = unquote(fields.get("choices"))
        if not isinstance(choices, list):
            raise UserError(f"{name}: choices must be a list, got {choices!r}")
        listed = cast("list[Any]", choices)
        return _choice(name, [(choice, normalize_value(choice)) for choice in listed], when)
    number = int if kind == "int" else float
    bounds = {key: _number(name, key, fields.get(key), number) for key in ("low", "high")}
    step = None if fields.get("step") is None else _number(name, "step", fields["step"], number)
    log = fields.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{name}: log must be true or false, got {log!r}")
    return _numbers(name, bounds["low"], bounds["high"], step, log, when)


def _choice(name: str, choices: Sequence[tuple[Any, str]], when: Conditions) -> Parameter:
    """`choices` are the values, each with its text."""
    kept: list[Scalar] = []
    texts: list[str] = []
    for value, text in choices:
        kept.append(text if isinstance(value, (list, dict)) else value)
        texts.append(text)
        first = min(kept.index(kept[-1]), texts.index(text))
        if first < len(kept) - 1:
            raise UserError(f"{name}: a study cannot distinguish the choices {texts[first]} and {text}")
    if not kept:
        raise UserError(f"{name}: the list of choices is empty")
    return Parameter(name, CategoricalDistribution(kept), tuple(texts), when)


def _numbers(
    name: str, low: float, high: float, step: float | None, log: bool, when: Conditions
) -> Parameter:
    """Numbers from `low` to `high`, in steps if `step` is given; integers if all three are."""
    given = [number for number in (low, high, step) if number is not None]
    kind = int if all(isinstance(number, int) for number in given) else float
    low, high = kind(low), kind(high)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError(f"{name}: the bounds must be finite, got {low} and {high}")
    if step is not None and not 0 < step < math.inf:
        raise UserError(f"{name}: the step must be positive and finite, got {step}")
    if step is not None and 0 < high - low < step:
        raise UserError(
            f"{name}: from {low} to {high} a step of {step} has the single value {low}; give a smaller step, "
            "as in range(start, end, step), or an interval"
        )
    if step is not None and high - low > MOST_STEPS * step:
        raise UserError(
            f"{name}: a range has at most {MOST_STEPS:g} steps; choose a larger step, or interval"
        )
    if step is not None and low <= high:  # the last step; Optuna would warn
        start, stride = Decimal(str(low)), Decimal(str(step))
        high = kind(start + (Decimal(str(high)) - start) // stride * stride)
    try:
        if kind is int:
            distribution = IntDistribution(int(low), int(high), log=log, step=int(step or 1))
        else:
            distribution = FloatDistribution(low, high, log=log, step=step)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    return Parameter(name, distribution, when=when)


def _number(name: str, key: str, value: Any, kind: type[int] | type[float]) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name}: {key} must be a number, got {value!r}") from None
    if not math.isfinite(number):
        raise UserError(f"{name}: {key} must be finite, got {value!r}")
    if kind is int and number != int(number):
        raise UserError(f"{name}: {key} must be an integer, got {value!r}")
    return kind(number)


def _reject_tags(name: str, tags: set[str], known: tuple[str, ...]) -> None:
    if unknown := tags - set(known):
        hint = f"allowed: {', '.join(known)}" if known else "a choice takes no tags"
        raise UserError(f"{name}: the tag {', '.join(sorted(unknown))} is not supported here; {hint}")
