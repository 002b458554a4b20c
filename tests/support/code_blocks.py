"""The blocks of code in a page, and the files that a reader would write of them, as they stand."""

from __future__ import annotations

import re
from pathlib import Path


def fenced_blocks(markdown: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page, as (language, text)."""
    return re.findall(r"^```(\w+)\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)


def file_name(block: str) -> str | None:
    """The file that a block is the content of, if it begins with a comment with its path.

    The comment follows the line `# @package` of a configuration, which Hydra finds only at the start.
    """
    named = re.match(r"(?:# @package \S+\n)?# (\S+\.(?:py|yaml))\n", block)
    return named[1] if named else None


def write_file(block: str, directory: Path) -> bool:
    """Write a block that is the content of a file below `directory`; returns whether it is one."""
    name = file_name(block)
    if name is None:
        return False
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block)
    return True
