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
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_QUERY_PASSWORD = re.compile(
    r"(://\S*?[?&;]\w*(?:password|passwd|pwd|secret|token|api_?key)=)[^&;#\s'\"]+", re.I
)
_WHOLE_URL = re.compile(r"[A-Za-z][\w+.-]*://[^/?#:@]*:[^@]+@.*", re.DOTALL)
"""A URL whose password may contain any character but an at sign, as databases read it."""


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
    """Return the text without hidden values, and without passwords in URLs."""
    for value in sorted(_hidden, key=len, reverse=True):
        text = text.replace(value, _hidden[value])
    return _QUERY_PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1***@", text))


def has_password(text: str) -> bool:
    """Whether a text contains a URL with a password: after the name of a user, or in its query."""
    found = _URL_PASSWORD.search(text) or _QUERY_PASSWORD.search(text) or _WHOLE_URL.fullmatch(text)
    return found is not None
