"""Keeps what is whole of a damaged journal.

Trials have no number of their own in a journal: Optuna counts the lines that create them. So the lines after
a gap mean something only if the trials that the gap has created are created in another way; the next line of
ours says how many they are. They, and the trials that were not finished at the gap, may lack any part of
their record: they count as failed. All other trials are kept as they were.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.sweep.storages.journal_lines import (
    CREATE_STUDY,
    CREATE_TRIAL,
    LineError,
    Log,
    Position,
    encode,
    follow,
    parse,
)
from dqn_runner.sweep.trial_record import attributes_of_lost_trial

_SET_STATE, _SET_ATTRIBUTE = 6, 8
_FINISHED, _FAIL = (1, 2, 3), 3


@dataclass
class Repaired:
    """What is left of a journal."""

    logs: list[Log] = field(default_factory=list[Log])
    damaged: list[int] = field(default_factory=list[int])
    """Numbers of the lines at which damage begins: a changed one, or one before which lines are missing."""
    lost: list[int] = field(default_factory=list[int])
    """Trials that count as failed."""
    trials: int = 0
    _open: dict[int, set[str]] = field(default_factory=dict[int, set[str]])
    """Trials that are not finished, with the names of their attributes."""
    _study: int = 0

    def content(self) -> bytes:
        """The lines of the repaired journal."""
        place, lines = Position(), list[bytes]()
        for log in self.logs:
            kept = {key: log[key] for key in log if key not in ("line", "created", "after", "check")}
            line, place = encode(kept, place)
            lines.append(line)
        return b"".join(lines)

    def keep(self, log: Log) -> None:
        """Add a whole line, unless it is about a lost trial."""
        trial: int = log.get("trial_id", -1)
        operation = log["op_code"]
        if trial in self.lost:
            return
        self.logs.append(log)
        if operation == CREATE_TRIAL:
            self._study = log["study_id"]
            if log.get("state") not in _FINISHED:
                self._open[self.trials] = set(log.get("user_attrs", {}))
            self.trials += 1
        elif operation == _SET_STATE and log["state"] in _FINISHED:
            self._open.pop(trial, None)
        elif operation == _SET_ATTRIBUTE and trial in self._open:
            self._open[trial] |= log["user_attr"].keys()

    def close_gap(self, trials: int) -> None:
        """Fail the trials that are not finished, and create those that lack, up to `trials`."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        for trial, known in sorted(self._open.items()):
            attributes = {k: v for k, v in attributes_of_lost_trial().items() if k not in known}
            about = {"worker_id": "repair", "trial_id": trial}
            self.logs += [
                {"op_code": _SET_ATTRIBUTE, **about, "user_attr": {k: v}} for k, v in attributes.items()
            ]
            end = {"state": _FAIL, "values": None, "datetime_complete": now}
            self.logs.append({"op_code": _SET_STATE, **about, **end})
            self.lost.append(trial)
        self._open.clear()
        while self.trials < trials:
            self.lost.append(self.trials)
            self.trials += 1
            log: Log = {"op_code": CREATE_TRIAL, "worker_id": "repair", "study_id": self._study}
            log |= {
                "datetime_start": now,
                "datetime_complete": now,
                "state": _FAIL,
                "value": None,
                "values": None,
            }
            log |= {"distributions": {}, "params": {}, "system_attrs": {}, "intermediate_values": {}}
            self.logs.append({**log, "user_attrs": attributes_of_lost_trial()})


def repair(lines: list[bytes]) -> Repaired:
    """What is whole of the lines of a journal; raises DamagedError if that is not a study."""
    kept, place, gap = Repaired(), Position(), False
    unconfirmed: list[Log] = []
    """Lines of Optuna since the last line of ours, which will confirm them."""
    for number, line in enumerate(lines, 1):
        try:
            log, after = follow(line, place)
            if not gap:
                place = after
                unconfirmed.append(log)
                if parse(line)[1] is not None:
                    for each in unconfirmed:
                        kept.keep(each)
                    unconfirmed = []
                continue
        except LineError:
            pass
        if not gap:
            kept.damaged.append(number)
        gap, unconfirmed = True, []
        try:
            log, claimed = parse(line)
        except LineError:
            continue
        creates = int(log["op_code"] == CREATE_TRIAL)
        if claimed is None or claimed.line <= place.line or claimed.trials - creates < kept.trials:
            continue  # a line of Optuna, or a repeated one
        if claimed.studies - int(log["op_code"] == CREATE_STUDY) != place.studies:
            raise DamagedError("a line that creates a study is lost")
        kept.close_gap(claimed.trials - creates)
        kept.keep(log)
        place, gap = claimed, False
    for each in unconfirmed:
        kept.keep(each)
    if gap:
        kept.close_gap(kept.trials)
    if not any(log["op_code"] == CREATE_STUDY for log in kept.logs):
        raise DamagedError("the line that creates the study is lost")
    return kept
