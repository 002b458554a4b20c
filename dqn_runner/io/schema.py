"""Checks data that was read from a file against a type, before anything uses it."""

from __future__ import annotations

from typing import Any


def problem_with(value: Any, schema: Any) -> str | None:
    """What is wrong with `value` as an instance of the type `schema`, as `key: what`; None if it fits.

    `schema` is a type that msgspec understands, such as a TypedDict; keys that it lacks are ignored. A number
    is not accepted in the place of a truth value, nor the other way round.
    """
    import msgspec  # late: most commands read no such data

    try:
        msgspec.convert(value, schema)
    except (msgspec.ValidationError, RecursionError) as error:
        text, _, where = str(error).replace("`", "").partition(" - at ")
        where = where.rpartition("$")[2].lstrip(".") or "its content"
        return f"{where}: {text[:1].lower()}{text[1:]}"
    return None
