"""Settings of parts: which values a field accepts, and defaults that depend on the budget of a run.

A part declares them where it declares the field:

    tau: float = setting(1.0, above=0, at_most=1)
    steps: int | None = within_budget(10_000, share=0.5)

and calls `check_settings(self)` in `__post_init__`. Numbers must be finite, and every value of the annotated
type, whether it comes from the command line, a file or Python.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import import_path, interface_of, place_of, slots

T = TypeVar("T")

_RANGE, _BUDGET = "dqn_runner.range", "dqn_runner.budget"


@dataclasses.dataclass(frozen=True)
class _Range:
    """Bounds of a number; None where there is none."""

    at_least: float | None
    above: float | None
    at_most: float | None
    below: float | None
    largest: float | None = None
    """A bound far above every useful value, which keeps a mistake from filling the memory of the machine."""

    def __contains__(self, value: float) -> bool:
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"between {self.at_least:g} and {self.at_most:g}"
        limits = {
            "at least": self.at_least,
            "above": self.above,
            "at most": self.at_most,
            "below": self.below,
        }
        return " and ".join(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None)


@dataclasses.dataclass(frozen=True)
class _Budget:
    """A default in env steps: `limit`, but at most `share` of the budget."""

    limit: int
    share: float

    def __call__(self, max_steps: int | None) -> int:
        return self.limit if max_steps is None else min(self.limit, int(max_steps * self.share))


_UNBOUNDED = _Range(None, None, None, None)
_LARGEST = 10**15
"""The largest integer for settings that have no other bound."""


def setting(
    default: T,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    largest: int | None = None,
) -> T:
    """Field of a part with a range; in a list, the range of each item.

    `largest` is a bound far above every useful value, which keeps a mistake from filling the memory.
    """
    bounds = {_RANGE: _Range(at_least, above, at_most, below, largest)}
    if isinstance(default, list):
        items = cast("list[Any]", default)
        return dataclasses.field(default_factory=lambda: cast("T", [*items]), metadata=bounds)
    return dataclasses.field(default=default, metadata=bounds)


def within_budget(limit: int, *, share: float, at_least: int = 1) -> Any:
    """Field with a number of env steps; its default, None, is `limit` or `share` of a smaller budget."""
    bounds = _Range(at_least, None, None, None)
    return dataclasses.field(default=None, metadata={_RANGE: bounds, _BUDGET: _Budget(limit, share)})


def fitted_defaults(cls: type, max_steps: int | None) -> dict[str, int]:
    """The defaults, by field, that a part of class `cls` has in a run of at most `max_steps` env steps."""
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
    return {
        field.name: max(int(field.metadata[_RANGE].at_least), field.metadata[_BUDGET](max_steps))
        for field in fields
        if _BUDGET in field.metadata
    }


def fit_to_budget(part: T, max_steps: int | None, stored: Mapping[str, Any] | None = None) -> T:
    """The part with numbers in the place of the settings, also of its own parts, that follow the budget.

    `stored` are the settings of the run that it continues, which keeps those of its first budget.
    """
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return part
    defaults = fitted_defaults(type(part), max_steps)
    kept: Mapping[str, Any] = stored if isinstance(stored, Mapping) else {}
    defaults |= {key: kept[key] for key in defaults if type(kept.get(key)) is int}
    fitted: dict[str, Any] = {k: v for k, v in defaults.items() if getattr(part, k) is None}
    for name in slots(type(part)):
        before = getattr(part, name)
        after = fit_to_budget(before, max_steps, kept.get(name))
        fitted |= {} if after is before else {name: after}
    return dataclasses.replace(part, **fitted) if fitted else part


def check_settings(part: Any) -> None:
    """Raise a UserError for the first field of a part whose value has a wrong type or is out of its range.

    A value of an equivalent type is replaced: the name of an enum's member by the member, a number of numpy
    by one of Python, a tuple by a list.
    """
    cls = cast("type[Any]", type(part))
    place, types = place_of(cls), _types(cls)
    for field in dataclasses.fields(part):
        key = f"{place}.{field.name}" if place else field.name
        value = getattr(part, field.name)
        bounds = field.metadata.get(_RANGE, _UNBOUNDED)
        if field.name in slots(cls):
            _check_part(key, value, slots(cls)[field.name])
            _check_members(key, value, interface_of(field))
        elif (checked := _checked(key, value, types[field.name], bounds)) is not value:
            setattr(part, field.name, checked)


def _checked(key: str, value: Any, expected: Any, bounds: _Range) -> Any:
    """The value of setting `key` in the type `expected`; raises UserError for another one."""
    if expected is Any:
        return value
    choices = get_args(expected) if get_origin(expected) in (Union, UnionType) else (expected,)
    if value is None and NoneType in choices:
        return None
    if value == MISSING:
        raise UserError(f"{key} must be given")
    for choice in choices:
        if (found := _converted(key, value, choice, bounds)) is not None:
            return found
    raise UserError(
        f"{key} must be {' or '.join(_kinds(choices))}, got {_shown(value)}{_hint(value, choices)}"
    )


def _converted(key: str, value: Any, expected: Any, bounds: _Range) -> Any:
    """The value in one type; None if it is not of this type."""
    origin = get_origin(expected) or expected
    if origin is list:
        (item,) = get_args(expected)
        return _items(key, value, item, bounds) if isinstance(value, (list, tuple)) else None
    if not isinstance(origin, type):
        return value
    if issubclass(origin, Enum):
        members: Mapping[str, Enum] = origin.__members__
        return members.get(value) if isinstance(value, str) else value if isinstance(value, origin) else None
    if origin is int:
        return _number(key, value, int, bounds) if isinstance(value, numbers.Integral) else None
    if origin is float:
        return _number(key, value, float, bounds) if isinstance(value, numbers.Real) else None
    return value if isinstance(value, Mapping if origin is dict else origin) else None


def _number(key: str, value: Any, kind: type, bounds: _Range) -> float | None:
    """A finite number in its range as one of Python; an integer also counts as a float."""
    if isinstance(value, bool):
        return None
    number: float = value if type(value) in (int, float) else kind(value)
    if not _is_finite(number):
        raise UserError(f"{key} must be a finite number{str(bounds) and ', '}{bounds}, got {_shown(number)}")
    largest = bounds.largest or _LARGEST
    if kind is int and bounds.below is None and number > largest:
        raise UserError(f"{key} must be at most {largest:g}, got {_shown(number)}")
    if number not in bounds:
        raise UserError(f"{key} must be {bounds}, got {_shown(number)}")
    return number


def _items(key: str, given: Any, item: Any, bounds: _Range) -> list[Any]:
    """A list with checked items; the given one if nothing had to be replaced."""
    values: list[Any] | tuple[Any, ...] = given
    checked = [_checked(f"{key}[{i}]", value, item, bounds) for i, value in enumerate(values)]
    unchanged = isinstance(values, list) and all(a is b for a, b in zip(checked, values, strict=True))
    return given if unchanged else checked


def _check_part(key: str, value: Any, default: type) -> None:
    """Reject a plain value in the place of a part, and a class in the place of an object."""
    if isinstance(value, type):
        raise UserError(f"{key} must be an object; write {value.__name__}() instead of {value.__name__}")
    if value is None or isinstance(value, (bool, int, float, str, list, tuple, dict)):
        raise UserError(f"{key} must be a part, such as {default.__name__}(), got {_shown(value)}")


def _check_members(key: str, part: Any, interface: type | None) -> None:
    """Reject a part that lacks a method or a property of its Protocol."""
    if interface is None:
        return
    cls = cast("type[Any]", type(part))
    for name, member in vars(interface).items():
        is_needed = callable(member) or isinstance(member, property)
        if not is_needed or (name.startswith("_") and name != "__call__"):
            continue
        has = callable(part) if name == "__call__" else hasattr(cls, name) or hasattr(part, name)
        if not has:
            raise UserError(
                f"{key}={import_path(cls)} cannot be used: the member '{name}' of {interface.__name__} is "
                "missing; docs/api/extending.md says what a part needs"
            )


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


@cache
def _types(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _kinds(choices: tuple[Any, ...]) -> Iterator[str]:
    """The names of types, in words."""
    names: dict[Any, str] = {NoneType: "null", int: "an integer", float: "a number", bool: "true or false"}
    names |= {str: "a text", list: "a list", dict: "a mapping"}
    for choice in choices:
        origin = get_origin(choice) or choice
        yield names[origin] if origin in names else f"one of {', '.join(origin.__members__)}"


def _shown(value: Any) -> str:
    """A value as on the command line, shortened."""
    plain = value is None or isinstance(value, bool)
    text = json.dumps(value) if plain else str(value) if isinstance(value, numbers.Number) else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _hint(value: Any, choices: tuple[Any, ...]) -> str:
    if int in choices and isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return f"; write {int(value)}"
    lists = [choice for choice in choices if get_origin(choice) is list]
    return f"; write [{value}]" if lists and isinstance(value, (int, float, str)) else ""
