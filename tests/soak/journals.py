"""What the fuzzer does to the journal of a sweep, and how it judges the study that is left."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from dqn_runner.sweep.storages.factory import open_storage
from dqn_runner.sweep.trial_record import TrialRecord

NAME = "a study"
InProcess = Callable[[Callable[[], None], Path], tuple[int, str]]


def make_journal(folder: Path) -> Path:
    """A study with finished, failed and running trials, two of which ran at the same time."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = folder / "study.journal"
    study = optuna.create_study(storage=open_storage(str(path)), study_name=NAME)
    study.set_user_attr("definition", {"a": 1})
    for _ in range(4):
        pair = [study.ask(), study.ask()]
        for trial in pair:
            trial.suggest_float("x", 0, 1)
            trial.set_user_attr("overrides", [f"a={trial.number}"])
            trial.report(trial.number, 1)
        for trial in pair:
            if trial.number < 7:
                state = TrialState.FAIL if trial.number == 3 else None
                study.tell(trial, None if state else float(trial.number), state=state)
    return path


def mutate(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Damage some bytes or lines."""
    lines = data.splitlines(keepends=True)
    kind = rng.choice(["flip", "flip", "cut", "insert", "remove", "repeat", "swap", "nonsense", "blank"])
    at, line = rng.randrange(len(data)), rng.randrange(len(lines))
    if kind == "flip":
        return kind, data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == "cut":
        return kind, data[:at] + data[at + rng.randrange(1, 500) :]
    if kind == "insert":
        return kind, data[:at] + rng.randbytes(rng.choice([1, 50])) + data[at:]
    if kind == "blank":
        return kind, data[:at] + bytes(50) + data[at + 50 :]
    if kind == "remove":
        del lines[line : line + rng.choice([1, 1, 5])]
    elif kind == "repeat":
        lines.insert(rng.randrange(len(lines)), lines[line])
    elif kind == "swap":
        other = rng.randrange(len(lines))
        lines[line], lines[other] = lines[other], lines[line]
    else:
        lines.insert(
            line, rng.choice([b"[]\n", b"{}\n", b'{"op_code":6}\n', b"\n", b"3\n", b'{"op_code":99}\n'])
        )
    return kind, b"".join(lines)


def continue_with_journal(
    journal: Path, case: Path, rng: random.Random, in_process: InProcess
) -> tuple[str, list[str], str]:
    """Damage a copy, open it, run one more trial; returns what was done, what is wrong, and what happened."""
    path, data = case / "study.journal", journal.read_bytes()
    done: list[str] = []
    for _ in range(rng.choice([1, 1, 2])):
        kind, data = mutate(data, rng)
        done.append(kind)
    path.write_bytes(data)

    def work() -> None:
        stored = optuna.load_study(storage=JournalStorage(JournalFileBackend(str(journal))), study_name=NAME)
        study = optuna.load_study(storage=open_storage(str(path)), study_name=NAME)
        assert all(TrialRecord(t).overrides is not None for t in study.trials if t.state.is_finished())
        check(study.trials, stored.trials)
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, 1.0)
        again = optuna.load_study(storage=open_storage(str(path)), study_name=NAME)
        plain = optuna.load_study(storage=JournalStorage(JournalFileBackend(str(path))), study_name=NAME)
        assert again.trials == study.trials == plain.trials

    status, text = in_process(work, case / "output")
    wrong = ["a traceback"] if "Traceback" in text else []
    if status and len([line for line in text.splitlines() if line.startswith("error: ")]) != 1:
        wrong.append(f"status {status} without a line that says why")
    return f"journal {done}", wrong, f"journal {'rejected' if status else 'kept'}: {text[-200:]!r}"


def check(found: list[FrozenTrial], stored: list[FrozenTrial]) -> None:
    """Every trial that counts as complete is the one that was stored."""
    for trial in found:
        if trial.state is TrialState.COMPLETE:
            before = stored[trial.number]
            same = (trial.values, trial.params, trial.user_attrs, trial.intermediate_values)
            assert same == (before.values, before.params, before.user_attrs, before.intermediate_values)
    print(sum(trial.state is TrialState.COMPLETE for trial in found), "complete", file=sys.stderr)
