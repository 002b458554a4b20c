"""A damaged journal of a sweep: the damage is noticed, what is whole is kept, what is lost is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from dqn_runner.core.exceptions import DamagedError, DirectoryLostError, UserError
from dqn_runner.sweep.storages.factory import open_storage
from dqn_runner.sweep.storages.journal import Journal
from dqn_runner.sweep.trial_record import RunState, TrialRecord

NAME = "a study"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Three trials, one after the other: line 1 creates the study, and each trial has four lines."""
    path = tmp_path / "study.journal"
    study = optuna.create_study(storage=open_storage(str(path)), study_name=NAME)
    for number in range(3):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr("overrides", [f"x={number}"])
        study.tell(trial, float(number))
    assert len(path.read_bytes().splitlines()) == 13
    return path


def trials_of(path: Path) -> list[FrozenTrial]:
    return optuna.load_study(storage=open_storage(str(path)), study_name=NAME).trials


def change(path: Path, function: Callable[[list[bytes]], object]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    function(lines)
    path.write_bytes(b"".join(lines))


def flip(lines: list[bytes], index: int) -> None:
    lines[index] = lines[index].replace(b"x=1", b"x=7")


DAMAGE: dict[str, tuple[Callable[[list[bytes]], object], int]] = {
    "a changed line": (lambda lines: flip(lines, 7), 8),
    "a removed line": (lambda lines: lines.pop(7), 8),
    "a removed line that created the trial": (lambda lines: lines.pop(5), 6),
    "several removed lines": (lambda lines: lines.__delitem__(slice(5, 8)), 6),
    "a line that is no JSON": (lambda lines: lines.insert(7, b"\x00\xff\n"), 8),
    "two lines in one": (lambda lines: lines.__setitem__(7, lines[7][:-1] + b" "), 8),
    "a line twice": (lambda lines: lines.insert(7, lines[6]), 8),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_trials_that_the_damage_cannot_have_touched_are_kept(
    journal: Path, warnings: list[str], what: str
) -> None:
    before, damaged = trials_of(journal), DAMAGE[what]
    change(journal, damaged[0])
    content = journal.read_bytes()
    after = trials_of(journal)
    assert [after[0], after[2]] == [before[0], before[2]]
    assert after[1].state is TrialState.FAIL
    assert "damaged" in (TrialRecord(after[1]).reason(RunState.FAILED) or "")
    (message,) = warnings
    assert f"is damaged at line {damaged[1]}; trials 1 count as failed" in message
    assert journal.with_name("damaged_study.journal").read_bytes() == content
    plain = optuna.load_study(storage=JournalStorage(JournalFileBackend(str(journal))), study_name=NAME)
    assert plain.trials == after == trials_of(journal)
    study = optuna.load_study(storage=open_storage(str(journal)), study_name=NAME)
    assert study.ask().number == 3


def test_a_journal_without_the_line_that_creates_the_study_is_rejected(journal: Path) -> None:
    change(journal, lambda lines: lines.pop(0))
    with pytest.raises(UserError, match="a line that creates a study is lost"):
        open_storage(str(journal))


def test_a_process_notices_damage_and_a_repair_while_it_runs(journal: Path) -> None:
    study = optuna.load_study(storage=open_storage(str(journal)), study_name=NAME)
    with journal.open("ab") as file:
        file.write(b"nonsense\n")
    with pytest.raises(DamagedError, match=r"line 14 of the journal .*; repeat the command"):
        _ = study.trials
    open_storage(str(journal))
    with pytest.raises(UserError, match="another process has repaired the journal"):
        _ = study.trials


def test_lines_of_optuna_and_of_the_program_alternate(journal: Path) -> None:
    for number in range(3, 9):
        storage = (
            JournalStorage(JournalFileBackend(str(journal))) if number % 2 else open_storage(str(journal))
        )
        study = optuna.load_study(storage=storage, study_name=NAME)
        study.tell(study.ask(), float(number))
    assert [trial.value for trial in trials_of(journal)] == list(map(float, range(9)))
    change(journal, lambda lines: lines.pop(13))  # a line of Optuna
    assert trials_of(journal)[3].state is TrialState.FAIL


def test_a_journal_whose_directory_was_renamed_is_named(journal: Path) -> None:
    study = optuna.load_study(storage=open_storage(str(journal)), study_name=NAME)
    journal.rename(journal.with_name("elsewhere"))
    with pytest.raises(DirectoryLostError, match=r"is gone: .*the new path as hydra\.sweep\.dir"):
        study.ask()


def test_an_append_reads_only_the_end_of_the_file(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.load_study(storage=open_storage(str(journal)), study_name=NAME)
    study.set_user_attr("long", "x" * 1_000_000)
    study.set_user_attr("short", "y")
    backend = Journal(journal)
    read: list[int] = []
    place = Journal._place_at

    def spy(self: Journal, file: object, end: int) -> object:
        class Counted:
            def seek(self, position: int) -> None:
                read.append(end - position)
                file.seek(position)  # type: ignore[attr-defined]

            def read(self, size: int) -> bytes:
                return file.read(size)  # type: ignore[attr-defined]

        return place(self, Counted(), end)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "_place_at", spy)
    backend.append_logs([{"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"a": 1}}])
    assert max(read) <= 1 << 16
    assert json.loads(journal.read_bytes().splitlines()[-1])["line"] == 16


def test_nonsense_in_the_attributes_of_a_trial_is_one_line(journal: Path) -> None:
    study = optuna.load_study(storage=open_storage(str(journal)), study_name=NAME)
    trial = study.ask()
    for key, value in (("overrides", 5), ("metrics", {"a": "b"}), ("worker", [])):
        trial.set_user_attr(key, value)
        with pytest.raises(DamagedError, match=f"trial 3 of the study has an attribute .*: {key}"):
            TrialRecord(trial)
        trial.set_user_attr(key, {"overrides": [], "metrics": {}, "worker": "w"}[key])
    trial.set_user_attr("run_0", {"seed": 0, "state": "great"})
    with pytest.raises(DamagedError, match="trial 3"):
        _ = TrialRecord(trial).runs
