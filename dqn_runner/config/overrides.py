"""Hydra's override grammar: parsing overrides, and writing values as text. The only parser and quoter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, Transformer
from hydra.errors import HydraException
from omegaconf import OmegaConf

from dqn_runner.core.exceptions import UserError

_PLAIN_WORD = re.compile(r"(?!(null|true|false|inf|nan)$)[a-z_][\w./-]*", re.ASCII | re.IGNORECASE)
"""Strings that need no quotes."""
_QUOTED_INTERPOLATION = "\\${"
"""What OmegaConf reads as the text `${`."""


def parse_overrides(texts: Sequence[str]) -> list[Override]:
    """The overrides of a command line; raises Hydra's exception or UserError for one that cannot be read."""
    return [_parse(text) for text in texts]


@lru_cache(1024)
def _parse(text: str) -> Override:
    """Kept, because parsing takes milliseconds, and a start reads its command line a dozen times."""
    try:
        return OverridesParser.create().parse_overrides([text])[0]
    except (ValueError, RecursionError) as error:
        reason = "brackets are nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{text:.40}... cannot be read: {reason}") from error


def written_overrides(recorded: Any) -> tuple[str, ...]:
    """Overrides that Hydra recorded, as they were written: reading an item would resolve its `${...}`."""
    return tuple(OmegaConf.to_container(recorded))  # pyright: ignore[reportArgumentType, reportReturnType]


def parse_override(text: str) -> Override:
    """One override; raises UserError for one that Hydra cannot read."""
    try:
        return parse_overrides([text])[0]
    except HydraException as error:
        raise UserError(f"{text!r} is not an override of Hydra: {grammar_error(str(error))}") from error


def grammar_error(text: str) -> str:
    """Hydra's message about an override as one line, with what to write for a frequent mistake."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("See https:")]
    message = " ".join(lines)
    if several := re.search(r"Ambiguous value for argument '((\S+?)=(.*?))' 1\.", message):
        given, key, values = several.groups()
        return (
            f"{given} has several values; add -m to run each, as in python -m dqn_runner -m {given}, or "
            f"{key}=[{values}] for a list"
        )
    if (null := re.search(r"'choice\((.*?)\)'", message)) and "NoneType" in message:
        return f"choice() cannot contain null; write {null[1]} instead of choice({null[1]})"
    return message


def bare_key(key: str) -> str:
    """The key of an override without the prefixes `+` and `~`."""
    return key.lstrip("+~")


def format_value(value: Any) -> str:
    """The text that Hydra parses as `value`; raises UserError for a value that cannot be written."""
    text = _written(value)
    if isinstance(value, (Mapping, Sequence)) and parse_override(f"_={text}").value() != unquote(value):
        raise UserError(f"{value!r} cannot be written as the value of an override")
    return text


def normalize_value(value: Any) -> str:
    """The text of a value from YAML or Python, in one form for equal values.

    The strings `"null"` or `"[64, 64]"` mean what they mean on the command line; a string that Hydra cannot
    parse is quoted.
    """
    if not isinstance(value, str):
        return format_value(value)
    try:
        override = parse_override(f"_={value}")
    except UserError:
        return format_value(value)
    return format_value(value if override.is_sweep_override() else override.value())


def unquote(value: Any) -> Any:
    """`value` as plain dicts, lists and strings, without the quotes that Hydra's parser keeps."""
    match value:
        case QuotedString():
            return value.text
        case str():
            return value
        case Mapping():
            pairs = cast("Mapping[Any, Any]", value).items()
            return {key: unquote(item) for key, item in pairs}
        case Sequence():
            return [unquote(item) for item in cast("Sequence[Any]", value)]
        case _:
            return value


def _written(value: Any) -> str:
    value = unquote(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Integral):  # numpy has its own, which samplers may return
        return repr(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if isinstance(value, str):
        return value if _PLAIN_WORD.fullmatch(value) else QuotedString(value, Quote.single).with_quotes()
    if isinstance(value, list):
        return "[" + ",".join(map(_written, cast("list[Any]", value))) + "]"
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value).items()  # Hydra's grammar does not allow quoted keys
        return "{" + ",".join(f"{Transformer.str(key)}:{_written(item)}" for key, item in pairs) + "}"
    raise UserError(f"{value!r} cannot be the value of a setting")


def quote_path(path: object) -> str:
    """A path as the value of an override: `${` in it is a text, and no interpolation."""
    return quote(str(path).replace("${", _QUOTED_INTERPOLATION))


def path_of(override: Override) -> str:
    """The path that is the value of an override, as `quote_path` wrote it."""
    return str(override.value()).replace(_QUOTED_INTERPOLATION, "${")


def quote(value: object) -> str:
    """Any text, with any characters, as the value of a Hydra override."""
    return QuotedString(str(value), Quote.single).with_quotes()
