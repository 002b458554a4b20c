"""The directory of a run: its lock, loggers, checkpoints and report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dqn_runner.checkpointing.checkpointer import Checkpointer
from dqn_runner.checkpointing.names import CHECKPOINTS, LATEST
from dqn_runner.checkpointing.recovery import find_checkpoint, has_checkpoints, load_newest_valid
from dqn_runner.checkpointing.segments import FOLDER
from dqn_runner.core.exceptions import DirectoryLostError, NoRoomError, UserError
from dqn_runner.core.log import log
from dqn_runner.core.records import RunInfo
from dqn_runner.core.state import State
from dqn_runner.io import json_io
from dqn_runner.io.entries import require_directory, require_file
from dqn_runner.io.held_directory import HeldDirectory
from dqn_runner.io.lock import RunLock
from dqn_runner.loggers.base import LoggerPart
from dqn_runner.loggers.logger_group import LoggerGroup
from dqn_runner.run.compatibility import mismatch
from dqn_runner.run.contents import is_finished, reject_sweep
from dqn_runner.run.provenance import record_session
from dqn_runner.run.session import Session

DIRECTORIES = (CHECKPOINTS, f"{CHECKPOINTS}/{FOLDER}", "logs", "videos", "tensorboard", "wandb", ".hydra")
"""Directories in the directory of a run that the run writes to."""


def require_own_directories(run_dir: Path) -> None:
    """Raise UserError if one of the directories of a run is a link: its files would be written elsewhere."""
    for name in DIRECTORIES:
        require_directory(run_dir / name)
    if (run_dir / ".hydra").is_dir():
        for path in (run_dir / ".hydra").iterdir():
            require_file(path)


class RunDirectory:
    """Writes everything that a run stores, and finds what an earlier session stored."""

    def __init__(
        self,
        path: Path,
        loggers: Mapping[str, LoggerPart],
        keep_last: int,
        source: Mapping[str, Any],
        recorded: Mapping[str, Any] | None = None,
    ) -> None:
        """Describe the directory; nothing is written yet.

        Args:
            path: The run directory.
            loggers: Settings of the loggers, by name.
            keep_last: How many of the numbered checkpoints to keep.
            source: From what the run was built: a `config`, or an `agent` and a `trainer`. It is stored in
                every checkpoint.
            recorded: The configuration for run.json; None if the program writes that file.
        """
        self.path = path
        self.loggers = LoggerGroup(loggers)
        self.checkpoints = Checkpointer(path / CHECKPOINTS, keep_last, self.loggers.sync)
        self.notices: list[str] = []
        """What the user should know about the resume, such as damaged checkpoints that were skipped."""
        self.resumed = False
        self.draws_curves = True
        """Whether a report includes the training curves; those of a sweep's jobs are drawn by the sweep."""
        self._source = dict(source)
        self._recorded = recorded
        self._lock = RunLock(path)
        self._held: HeldDirectory | None = None
        self._session = Session(path)
        self._locked = False

    @property
    def config(self) -> Mapping[str, Any]:
        """Configuration of the run, as its checkpoints store it."""
        return self._source.get("config", self._source)

    @property
    def latest_checkpoint(self) -> Path:
        """File of the latest checkpoint, which may not exist yet."""
        return self.checkpoints.directory / LATEST

    @property
    def checkpoint_failed(self) -> bool:
        """Whether the last attempt to write a checkpoint failed."""
        return self.checkpoints.failed

    def check_saved(self) -> None:
        """Raise NoRoomError if the last attempt to write a checkpoint failed."""
        if self.checkpoint_failed:
            raise NoRoomError(
                f"the end of the run could not be saved to {self.path}; its log says why. Free disk space, "
                "and run the same command to continue"
            )

    def lock(self) -> None:
        """Lock the directory for this process.

        Raises UserError if another process has locked it, if it is the directory of a sweep, or if a link in
        it leads out of it.
        """
        if os.path.lexists(self.path) and not self.path.is_dir():
            raise UserError(f"{self.path} is not a directory; choose another one for the run")
        reject_sweep(self.path)
        require_own_directories(self.path)
        self._lock.acquire()
        self._held = self._held or HeldDirectory(self.path)
        if not self._locked and (notice := self._session.unfinished()):
            self.notices.append(notice)
        self._locked = True

    def unlock(self) -> None:
        """Unlock the directory."""
        self._lock.release()
        if self._held is not None:
            self._held.close()
            self._held = None
        self._locked = False

    def has_resumable_run(self) -> bool:
        """Whether the directory contains a run that this object has not resumed yet.

        Raises UserError, and unlocks the directory, if it is another run, if none of its checkpoints is
        valid, or if it has finished and they are gone: a new run would replace what is left of it.
        """
        if self.resumed:
            return False
        try:
            if has_checkpoints(self.path):
                load_newest_valid(find_checkpoint(self.path), self._reject_another_run, lambda _: None)
                return True
            if is_finished(self.path):
                raise UserError(
                    f"{self.path} holds the results of a finished run, whose checkpoints are gone; move them "
                    "away to start a new run, or choose another directory"
                )
        except UserError:
            self.unlock()
            raise
        return False

    def resume(self, path: Path, accept: Callable[[State], None]) -> Path:
        """Lock the directory, and call `accept` with the state of a checkpoint.

        `path` is a checkpoint, or a run directory, of which the latest one is loaded. If it is damaged, the
        newest valid checkpoint before it is loaded and a notice is added. Returns the file that was loaded.
        Raises UserError, and unlocks the directory, if there is none.
        """

        def accept_document(document: State) -> None:
            if document["state"].get("step") != document["step"]:
                raise ValueError(f"its state is not of step {document['step']}")
            _check_loggers(document)
            accept(document["state"])

        self.lock()
        file = find_checkpoint(path)
        try:
            file = load_newest_valid(file, accept_document, self.notices.append, self._mismatch)
        except BaseException as error:
            self.unlock()
            if not isinstance(error, UserError):
                raise
            raise UserError(f"cannot resume {file}: {error}") from error
        self.resumed = True
        return file

    def restore_checkpoints(self, resumed_from: Path, best_step: int) -> None:
        """Restore the checkpoint files to what they were when `resumed_from` was written.

        `best_step` is the env step of the best evaluation at that time. Later checkpoints are renamed.
        """
        self.checkpoints.resume_from(resumed_from, best_step)

    def open(
        self, step: int, episode: int, info: RunInfo, preloaded: Mapping[str, Any] | None = None
    ) -> None:
        """Open the loggers, and log where the run starts and the notices.

        `preloaded` is the recording that the replay began with.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if self._recorded is not None:
            record_session(self.path, self._recorded, [], [], self.notices, preloaded)
        self._session.begin(step, self.resumed)
        self.loggers.open(self.path, info)
        verb = "resuming from" if self.resumed else "starting at"
        log.info("%s step %d, episode %d in %s", verb, step, episode, self.path)
        for notice in self.notices:
            log.warning("%s", notice)

    def save(self, state: State, step: int, names: Sequence[str], previous_best: str | None = None) -> None:
        """Start writing a checkpoint as latest.pt and under `names`, as `Checkpointer.save` does.

        Raises DirectoryLostError if the directory was renamed, after writing the checkpoint to its new place,
        or removed. Nothing is written to the old place, where another run may start.
        """
        location = self._location()
        if location is None:
            raise DirectoryLostError(
                f"{self.path} was removed, or moved to another disk, while this run was writing it; what was "
                f"learned up to step {step} is lost, and the same command starts again"
            )
        if location != self.path:
            self.checkpoints.move_to(location / CHECKPOINTS)
        payload = {"source": self._source, "state": state}
        self.checkpoints.save(payload, step, [*names, LATEST], previous_best)
        if location == self.path:
            self._session.saved(step, names)
        if location != self.path:
            self.checkpoints.wait()
            raise DirectoryLostError(
                f"{self.path} was renamed to {location} while this run was writing it; the run ends at step "
                f"{step}, and resume={location} continues it"
            )

    def wait_for_checkpoint(self) -> None:
        """Wait until no checkpoint is being written."""
        self.checkpoints.wait()

    def write_report(self, document: Mapping[str, Any]) -> None:
        """Write metrics.json and the curves; errors, such as a full disk, are logged and not raised.

        Nothing is written if the directory was removed.
        """
        from dqn_runner.run import plots

        if (location := self._location()) is None:
            return
        try:
            json_io.write_json(location / json_io.METRICS, document)
            if self.draws_curves:
                plots.draw_training_curves(location)
        except OSError as error:
            log.warning("metrics.json or training_curves.png could not be written (%s)", error)
        except Exception:
            log.exception("metrics.json or training_curves.png could not be written")

    def close(self, failed: bool) -> None:
        """Finish writing, close the loggers and unlock; `failed` means that an exception ended the run."""
        self.checkpoints.close()
        self.loggers.close(failed)
        if self._location() == self.path:  # or another run may have begun there
            self._session.end(failed)
        self.unlock()

    def _location(self) -> Path | None:
        """Where the directory is now; None if it was removed."""
        return self.path if self._held is None else self._held.location()

    def end_session(self) -> None:
        """Wait for the checkpoint that is being written, and note that the session ended."""
        self.checkpoints.wait()
        self.loggers.sync()
        self._session.end(failed=True)

    def _reject_another_run(self, document: State) -> None:
        if reason := self._mismatch(document):
            raise UserError(
                f"{self.path} already holds another run ({reason}); choose another output directory, "
                "or call Trainer.resume to continue that run nevertheless"
            )

    def _mismatch(self, document: State) -> str | None:
        return mismatch(document["source"], self._source)


def _check_loggers(document: State) -> None:
    """Raise ValueError if the state of a logger of the run is missing: its file would be overwritten."""
    names = set(document["source"].get("config", {}).get("logging") or {})
    finished = document["state"]["finished"]
    for progress in [document["state"]["progress"], *([finished["before"]] if finished else [])]:
        if missing := sorted(names - set(progress["loggers"])):
            raise ValueError(f"state.progress.loggers lacks {missing[0]}")
