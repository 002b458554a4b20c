"""The timeline of a run tells what happened in each session, also when its process was killed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dqn_runner.core.exceptions import UserError
from dqn_runner.run.session import Session
from dqn_runner.run.timeline import TIMELINE, read_timeline


def events(run_dir: Path) -> list[tuple[str, int | None]]:
    return [(event.event, event.step) for event in read_timeline(run_dir)]


def test_a_kill_has_the_time_and_the_step_of_the_last_record(tmp_path: Path) -> None:
    first = Session(tmp_path)
    first.begin(0, resumed=False)
    first.saved(100, ["best.pt"])
    records = tmp_path / "metrics.jsonl"
    records.write_text('{"step": 130}\n{"step": 140}\n{"ste')
    os.utime(records, (4e9, 4e9))  # newer than the other files
    second = Session(tmp_path)
    assert second.unfinished()
    second.begin(100, resumed=True)
    second.end()
    assert events(tmp_path) == [
        ("start", 0),
        ("saved", 100),
        ("killed", 140),
        ("resume", 100),
        ("ended", None),
    ]
    assert read_timeline(tmp_path)[1].names == ("best.pt",)
    assert read_timeline(tmp_path)[2].time == 4e9


def test_a_session_that_ends_is_noted_once(tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.begin(0, resumed=False)
    session.end(failed=True)
    session.end()
    assert events(tmp_path) == [("start", 0), ("failed", None)]


def test_damaged_lines_are_left_out(tmp_path: Path) -> None:
    Session(tmp_path).begin(0, resumed=False)
    with (tmp_path / TIMELINE).open("ab") as file:
        for line in ("[]", "{", '{"time": 3, "event": "start"}', '{"event": "start"}', "\xff"):
            file.write(line.encode("latin-1") + b"\n")
        unknown = {"time": "2026-01-01T00:00:00+00:00", "event": "party"}
        file.write(json.dumps(unknown).encode() + b"\n")
    Session(tmp_path).begin(7, resumed=True)
    assert events(tmp_path) == [("start", 0), ("resume", 7)]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_nothing_is_written_through_a_link_or_into_a_pipe(tmp_path: Path, kind: str) -> None:
    (tmp_path / "other").write_text("mine")
    session = Session(tmp_path)
    if kind == "link":
        (tmp_path / TIMELINE).symlink_to(tmp_path / "other")
    else:
        os.mkfifo(tmp_path / TIMELINE)
    with pytest.raises(UserError):
        session.begin(0, resumed=False)
    session.saved(10, [])  # no error, and no waiting: it has no reader
    assert (tmp_path / "other").read_text() == "mine"
