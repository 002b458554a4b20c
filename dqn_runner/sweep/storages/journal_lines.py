"""The lines of a journal: each has a checksum of its content and of all lines before it.

A line is Optuna's JSON object with four more fields, which Optuna ignores: `line`, its number; `created`, the
numbers of studies and trials that the journal has created so far; `after`, the link to the line before; and
`check`, the checksum of all of this. So a changed line is noticed in itself, and a removed one in the line
after it. Lines that Optuna itself has written have no such fields; the next line of ours covers them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, cast

Log = dict[str, Any]
"""One operation on a study, as Optuna writes it."""

CREATE_STUDY, CREATE_TRIAL = 0, 4
"""Operations that Optuna numbers by counting them; all others refer to these numbers."""
_CHECK = b',"check":"'


class LineError(Exception):
    """A line is not what was written there; the message says how it differs."""


@dataclass(frozen=True)
class Position:
    """A place between two lines."""

    line: int = 0
    """Number of lines before it."""
    studies: int = 0
    trials: int = 0
    link: str = ""
    """Checksum that covers all lines before it."""

    def past(self, log: Log, link: str) -> Position:
        """The place after the line with `log`."""
        studies, trials = (int(log["op_code"] == code) for code in (CREATE_STUDY, CREATE_TRIAL))
        return Position(self.line + 1, self.studies + studies, self.trials + trials, link)


def encode(log: Log, before: Position) -> tuple[bytes, Position]:
    """The line for `log` at the place `before`, and the place after it."""
    created = before.past(log, "")
    chain = {"line": created.line, "created": [created.studies, created.trials], "after": before.link}
    body = json.dumps({**log, **chain}, separators=(",", ":")).encode()
    check = _digest(body)
    return body[:-1] + _CHECK + check.encode() + b'"}\n', before.past(log, check)


def is_ours(line: bytes) -> bool:
    """Whether a line has a checksum."""
    return _CHECK in line


def parse(line: bytes) -> tuple[Log, Position | None]:
    """The content of a line without its end, and the place after it that it claims; None for one of Optuna.

    Raises LineError if the line is not whole.
    """
    body, mark, rest = line.rpartition(_CHECK)
    if mark and _digest(body + b"}") != rest[:-2].decode(errors="replace"):
        raise LineError("its checksum differs")
    try:
        found = json.loads(line)
        if not isinstance(found, dict) or type(cast("Log", found).get("op_code")) is not int:
            raise LineError("it is not an operation on a study")
        log = cast("Log", found)
        if not mark:
            return log, None
        studies, trials = log["created"]
        return log, Position(log["line"], studies, trials, log["check"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise LineError("it is not JSON") from error


def follow(line: bytes, before: Position) -> tuple[Log, Position]:
    """The content of a line at the place `before`, and the place after it; raises LineError for damage."""
    log, claimed = parse(line)
    if claimed is None:
        return log, before.past(log, _digest(before.link.encode() + line))
    if claimed.line > before.line + 1:
        raise LineError(f"{claimed.line - before.line - 1} line(s) before it are missing")
    if claimed != before.past(log, claimed.link) or log["after"] != before.link:
        raise LineError("the lines before it are not those that were written")
    return log, claimed


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
