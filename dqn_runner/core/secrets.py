"""Values that must not appear in files, logs and messages: passwords, keys, texts from the environment."""

from __future__ import annotations

import re

SHORTEST = 4
"""Shorter values are not hidden: they are not secrets, and occur in other texts by chance."""

_hidden: dict[str, str] = {}
"""What is shown in the place of each value. Any part can raise or log a text that contains one, so there is
one list for the process."""
_arguments: dict[str, str] = {}
"""What is shown in the place of an argument of the command line."""
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)(?!PASSWORD@)[^/\s@]+@")
"""Not the placeholder of a help text."""
_QUERY_PASSWORD = re.compile(
    r"(://\S*?[?&;]\w*(?:password|passwd|pwd|secret|token|api_?key)=)[^&;#\s'\"]+", re.I
)
_WHOLE_URL = re.compile(r"[A-Za-z][\w+.-]*://[^/?#:@]*:[^@]+@.*", re.DOTALL)
"""A URL whose password may contain any character but an at sign, as databases read it."""
_HTTP_CREDENTIALS = re.compile(r"(\bBearer +|\bBasic +(?=\S*[A-Z\d=]))[\w.~+/=-]{8,}")
"""The value of an `Authorization` header; base64 has capitals or digits, a word after `Basic` has none."""


def hide(value: str, shown: str) -> None:
    """From now on, show `shown` in the place of `value`."""
    if len(value) >= SHORTEST:
        _hidden[value] = shown


def hide_argument(argument: str, shown: str) -> None:
    """From now on, show `shown` in the place of a whole argument of the command line."""
    _arguments[argument] = shown


def redact_argument(argument: str) -> str:
    """Return an argument of the command line without secrets."""
    return redact(_arguments.get(argument, argument))


def redact(text: str) -> str:
    """Return the text without hidden values, passwords in URLs, and credentials of HTTP headers."""
    for value in sorted(_hidden, key=len, reverse=True):
        text = text.replace(value, _hidden[value])
    for pattern, shown in (
        (_URL_PASSWORD, r"\1***@"),
        (_QUERY_PASSWORD, r"\1***"),
        (_HTTP_CREDENTIALS, r"\1***"),
    ):
        text = pattern.sub(shown, text)
    return text


def has_password(text: str) -> bool:
    """Whether a text contains a URL with a password, or the credentials of an HTTP header."""
    patterns = (_URL_PASSWORD, _QUERY_PASSWORD, _HTTP_CREDENTIALS)
    return any(pattern.search(text) for pattern in patterns) or _WHOLE_URL.fullmatch(text) is not None
