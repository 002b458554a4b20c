"""A session that was killed or called os._exit is noticed by the next one."""

from __future__ import annotations

from pathlib import Path

from dqn_runner.run.session import NAME, Session


def test_only_a_session_that_did_not_end_is_reported(tmp_path: Path) -> None:
    first = Session(tmp_path)
    assert first.unfinished() is None
    first.begin(0, False)
    assert "did not end: its process was killed, or called os._exit" in (Session(tmp_path).unfinished() or "")
    Session(tmp_path).end()  # it did not begin
    assert (tmp_path / NAME).exists()
    first.end()
    assert Session(tmp_path).unfinished() is None


def test_a_link_in_the_place_of_the_file_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    (tmp_path / NAME).symlink_to(tmp_path / "other")
    Session(tmp_path).begin(0, False)
    assert (tmp_path / "other").read_text() == "mine"
