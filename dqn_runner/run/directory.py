"""Everything that one run writes: its lock, loggers, checkpoints and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dqn_runner.checkpointing.checkpointer import LATEST, Checkpointer
from dqn_runner.checkpointing.recovery import find_checkpoint, has_checkpoints, load_newest_valid
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.log import log
from dqn_runner.core.records import RunInfo
from dqn_runner.core.state import State
from dqn_runner.io import json_io
from dqn_runner.io.lock import RunLock
from dqn_runner.loggers.base import LoggerPart
from dqn_runner.loggers.logger_group import LoggerGroup
from dqn_runner.run.compatibility import mismatch


class RunDirectory:
    """The directory of one run, and who writes what into it."""

    def __init__(
        self, path: Path, loggers: Mapping[str, LoggerPart], keep_last: int, source: Mapping[str, Any]
    ) -> None:
        """`source` goes into every checkpoint, for whoever wants to build the run again from it."""
        self.path = path
        self.loggers = LoggerGroup(loggers)
        self.checkpoints = Checkpointer(path / "checkpoints", keep_last, self.loggers.sync)
        self.notices: list[str] = []
        """What a resume did that the user should know."""
        self.resumed = False
        self._source = dict(source)
        self._lock = RunLock(path)

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration of the run, as its checkpoints hold it."""
        return self._source.get("config", self._source)

    def claim(self) -> None:
        """Take the directory for this process; raises an error that names another one that has it."""
        self._lock.acquire()

    def release(self) -> None:
        """Let others write it."""
        self._lock.release()

    def resume(self, path: Path, accept: Callable[[State], None]) -> Path:
        """Claim the directory and hand `accept` the state of a checkpoint, or of a run directory's latest.

        Where it is damaged the newest valid one before it is taken, and `notices` says so. Returns the file.
        """
        self.claim()
        file = find_checkpoint(path)
        try:
            file = load_newest_valid(
                file, lambda document: accept(document["state"]), self.notices.append, self._of_another_run
            )
        except BaseException as error:
            self.release()
            if not isinstance(error, UserError | KeyError):
                raise
            reason = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise UserError(f"cannot resume {file}: {reason}") from error
        self.resumed = True
        return file

    def holds_own_run(self) -> bool:
        """Whether the directory holds a run that was not taken up yet; raises if it is another agent's."""
        if self.resumed or not has_checkpoints(self.path):
            return False
        load_newest_valid(find_checkpoint(self.path), self._refuse_another_run, lambda _: None)
        return True

    def open(self, step: int, episode: int, info: RunInfo) -> None:
        """Open the loggers at this point of the run."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.loggers.open(self.path, info)
        verb = "going on from" if self.resumed else "starting at"
        log.info("%s step %d, episode %d in %s", verb, step, episode, self.path)
        for notice in self.notices:
            log.warning("%s", notice)

    def save(self, state: State, step: int, names: Sequence[str], set_best_aside: str | None = None) -> None:
        """Begin to write a checkpoint, as latest.pt and under `names`."""
        payload = {"source": self._source, "state": state}
        self.checkpoints.save(payload, step, [*names, LATEST], set_best_aside)

    def write_report(self, document: Mapping[str, Any]) -> None:
        """metrics.json and the curves; a full disk or a missing font must not cost the run its end."""
        from dqn_runner.run import plots

        try:
            json_io.write_json(self.path / json_io.METRICS, document)
            plots.draw_training_curves(self.path)
        except Exception:
            log.exception("metrics.json or training_curves.png could not be written")

    def close(self, failed: bool) -> None:
        """Finish what is being written and let go; `failed` when an exception ended the run."""
        self.checkpoints.close()
        self.loggers.close(failed)
        self.release()

    def _refuse_another_run(self, document: State) -> None:
        if why := self._of_another_run(document):
            raise UserError(
                f"{self.path} already holds another run ({why}); choose another output directory, "
                "or go on with it all the same by Trainer.resume"
            )

    def _of_another_run(self, document: State) -> str | None:
        return mismatch(document["source"], self._source)
