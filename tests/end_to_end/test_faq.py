"""The messages that docs/faq.md explains are those of the program."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.end_to_end.test_docs import ROOT

PAGE = (ROOT / "docs" / "faq.md").read_text()
MESSAGES = re.findall(r"^### `+(.+?)`+$", PAGE, re.MULTILINE)
VARIABLE = "…"


def texts(tree: ast.AST) -> Iterator[str]:
    """The texts of a module, with VARIABLE in the place of values."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[sd]", VARIABLE, node.value)
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else VARIABLE for part in node.values)


@cache
def all_texts() -> list[str]:
    files = (ROOT / "dqn_runner").rglob("*.py")
    return [text for path in files for text in texts(ast.parse(path.read_text()))]


def is_in(message: str, text: str) -> bool:
    """Whether the fixed parts of a message follow one another in a text, with values between them."""
    parts = map(re.escape, filter(None, re.split(rf"\s*{VARIABLE}\s*", message)))
    return re.search(rf"\s*.*?{VARIABLE}.*?\s*".join(parts), text) is not None


def test_the_page_explains_many_messages_once_each() -> None:
    assert len(MESSAGES) == len(set(MESSAGES)) >= 25


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_in_the_source(message: str) -> None:
    assert any(is_in(message, text) for text in all_texts()), f"no source has the message {message!r}"
