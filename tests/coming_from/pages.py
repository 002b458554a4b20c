"""Reads the pages: their tables, and the files that a reader would write."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.code_blocks import fenced_blocks, write_file

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "coming-from"
PAGES = sorted(FOLDER.glob("*.md"))


def section(page: str, heading: str) -> str:
    """The text of a page below a heading, up to the next heading of any level."""
    text = (FOLDER / f"{page}.md").read_text()
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page}.md has no section {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the tables in a text, without their headers."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    headers = {index - 1 for index, line in enumerate(lines) if set(line) <= set("|-")}
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for index, line in enumerate(lines)
        if index not in headers and not set(line) <= set("|-")
    ]


def code(text: str) -> list[str]:
    """What is between backticks."""
    return re.findall(r"`([^`]+)`", text)


def names(page: str, heading: str) -> set[str]:
    """The code in the first cells of the tables of a section."""
    return {name for row in rows(section(page, heading)) for name in code(row[0])}


def write_files(page: str, directory: Path) -> None:
    """Write each block of a page that names its file."""
    for _, text in fenced_blocks((FOLDER / f"{page}.md").read_text()):
        write_file(text, directory)
