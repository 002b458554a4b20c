"""A journal that is only read: a report neither creates, repairs nor locks it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from optuna.storages.journal import BaseJournalBackend

from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.storages.journal_lines import LineError, Position, follow


class JournalReader(BaseJournalBackend):
    """The backend of an Optuna storage that cannot be written."""

    def __init__(self, path: Path) -> None:
        """`path` is the file of a journal."""
        self._path = path

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """The records from number `log_number_from`; raises UserError at a line that is not as written."""
        place = Position()
        for line in self._path.read_bytes().split(b"\n")[:-1]:  # the last one is not complete yet
            try:
                record, place = follow(line, place)
            except LineError as error:
                raise UserError(
                    f"line {place.line + 1} of the journal {self._path} is damaged: {error}; the command of "
                    "the sweep repairs it"
                ) from error
            if place.line > log_number_from:
                yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> NoReturn:
        """Raise, because a reader does not write."""
        raise UserError(f"the journal {self._path} was opened to be read")
