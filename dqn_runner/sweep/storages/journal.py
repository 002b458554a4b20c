"""The journal file of a study, which stays readable when a writer is killed, and in which damage shows."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages.journal import JournalFileBackend

from dqn_runner.core.exceptions import DamagedError, DirectoryLostError, NoRoomError, UserError
from dqn_runner.core.log import log
from dqn_runner.io import files
from dqn_runner.io.entries import problem_with_file
from dqn_runner.io.lock import LockUnsupportedError, exclusive_lock
from dqn_runner.sweep.storages.journal_lines import LineError, Position, encode, follow, is_ours, parse
from dqn_runner.sweep.storages.journal_repair import repair

_BLOCK = 1 << 16


class Journal(JournalFileBackend):
    """Optuna's journal with a lock that the system releases, and without incomplete lines.

    Optuna locks with a symbolic link. A killed process leaves the link behind, and the others wait 30 seconds
    for it. The part of a line that the process has written is joined with the next line, and the file cannot
    be read any more. Here the writer locks the journal itself with `flock`, which the system releases when
    the process ends. Before it appends, it removes an incomplete last line, which no caller has been told is
    stored. Readers need no lock: Optuna ignores a last line without an end.

    On NFS, Linux maps `flock` to a lock of the server, which all machines see, and reads the size of the file
    again when it gets the lock. A machine that is switched off loses the lock with its lease, after about a
    minute and a half. A file system without locks is rejected.

    Each line has a checksum (see journal_lines); Optuna and its dashboard read the file nevertheless.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal, or create it; raises OSError if it cannot be opened or written."""
        new = not path.exists()
        if not new and (problem := problem_with_file(path)) and not path.is_dir():
            raise UserError(f"the journal {path} {problem}; choose another hydra.sweeper.storage")
        super().__init__(str(path))
        path.open("r+b").close()  # raises now if it cannot be written
        if new:
            files.sync_directory(path.parent)
        self._path = path
        self._read, self._offset, self._inode = Position(), 0, 0
        """Up to where this process has read, and in which file."""

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The records from number `log_number_from`; raises DamagedError at a line that is not as written."""
        if log_number_from != self._read.line:
            self._read, self._offset = Position(), 0
        with self._open_to_read() as file:
            inode = os.fstat(file.fileno()).st_ino
            if self._offset and inode != self._inode:
                raise UserError(f"another process has repaired the journal {self._path}; repeat the command")
            self._inode = inode
            file.seek(self._offset)
            lines = file.read().split(b"\n")
        for line in lines[:-1]:  # the last one is not complete yet
            try:
                record, after = follow(line, self._read)
            except LineError as error:
                raise DamagedError(
                    f"line {self._read.line + 1} of the journal {self._path} is not what was written there: "
                    f"{error}; repeat the command, which keeps what is whole"
                ) from error
            self._read, self._offset = after, self._offset + len(line) + 1
            if after.line > log_number_from:
                yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append a line for each record; they are on the disk when this returns."""
        try:
            while not self._append(logs):
                pass
        except FileNotFoundError as error:
            raise self._directory_lost() from error
        except LockUnsupportedError as error:
            raise UserError(
                f"the file system of {self._path} has no locks ({error.strerror}); put the journal of the "
                "sweep on another one, or use a database: hydra.sweeper.storage=postgresql://…"
            ) from error

    def _open_to_read(self) -> BinaryIO:
        try:
            return self._path.open("rb")
        except FileNotFoundError as error:
            raise self._directory_lost() from error

    def _directory_lost(self) -> DirectoryLostError:
        return DirectoryLostError(
            f"the journal {self._path} is gone: its directory was renamed or removed during the sweep. To "
            "continue, repeat the command with the new path as hydra.sweep.dir, and the name of the study "
            "as hydra.sweeper.study_name"
        )

    def repair(self) -> None:
        """Keep what is whole of a damaged journal, and log what is lost; the file as it was is kept too."""
        with self._path.open("r+b", buffering=0) as file, exclusive_lock(file.fileno()):
            if not self._is_current(file):
                return
            try:
                kept = repair(self._path.read_bytes().split(b"\n")[:-1])
            except DamagedError as error:
                raise UserError(
                    f"{self._path} is not a journal of a sweep, or is damaged ({error}); choose another "
                    "hydra.sweeper.storage"
                ) from error
            old = self._path.with_name(f"damaged_{self._path.name}")
            files.publish(self._path, old)
            files.write_atomically(self._path, kept.content())
        log.warning(
            "the journal %s is damaged at line %s; %s; all else is kept, and the file as it was is %s",
            *(self._path, ", ".join(map(str, kept.damaged)), _describe_lost(kept.lost), old.name),
        )

    def _append(self, logs: list[dict[str, Any]]) -> bool:
        """Append the records; False if the file was replaced before it was locked."""
        with self._path.open("r+b", buffering=0) as file, exclusive_lock(file.fileno()):
            if not self._is_current(file):
                return False
            end = _end_of_last_line(file)
            place, text = self._place_at(file, end), b""
            for record in logs:
                line, place = encode(record, place)
                text += line
            self._write(file, end, text)
        return True

    def _is_current(self, file: BinaryIO) -> bool:
        return os.fstat(file.fileno()).st_ino == self._path.stat().st_ino

    def _place_at(self, file: BinaryIO, end: int) -> Position:
        """The place at the end of the lines: after the last line of ours, and those of Optuna after it."""
        begin, lines = end, list[bytes]()
        while begin and not any(map(is_ours, lines[1:])):
            begin = max(0, begin - _BLOCK * max(1, len(lines)))
            file.seek(begin)
            lines = _read(file, end - begin).split(b"\n")[:-1]
            lines = lines if begin == 0 else [b"", *lines[1:]]  # the first one is not complete
            if begin == 0:
                lines = [b"", *lines]
        last = max((i for i, line in enumerate(lines) if is_ours(line)), default=0)
        try:
            place = parse(lines[last])[1] if last else Position()
            for line in lines[last + 1 :]:
                _, place = follow(line, place or Position())
        except LineError as error:
            raise DamagedError(
                f"the last lines of the journal {self._path} are not what was written there: {error}; repeat "
                "the command, which keeps what is whole"
            ) from error
        return place or Position()

    def _write(self, file: BinaryIO, end: int, text: bytes) -> None:
        file.truncate(end)
        file.seek(end)
        remaining = memoryview(text)
        try:
            while remaining:
                remaining = remaining[file.write(remaining) :]
            os.fsync(file.fileno())
        except OSError as error:
            raise NoRoomError(
                f"the journal {self._path} cannot be written ({error.strerror}); free disk space, and "
                "repeat the command to continue"
            ) from error


def _describe_lost(trials: list[int]) -> str:
    """The trials whose records may be incomplete, for a message."""
    return f"trials {', '.join(map(str, trials))} count as failed" if trials else "no trial is lost"


def _read(file: BinaryIO, size: int) -> bytes:
    """`size` bytes; an unbuffered file may return fewer at once."""
    content = b""
    while len(content) < size and (part := file.read(size - len(content))):
        content += part
    return content


def _end_of_last_line(file: BinaryIO) -> int:
    """The size of the file without an incomplete last line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - _BLOCK)
        file.seek(begin)
        if newline := file.read(end - begin).rfind(b"\n") + 1:
            return begin + newline
        end = begin
    return 0
