"""A session that was killed or called os._exit is noticed by the next one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dqn_runner.run.session import LOST_START, NAME, STARTING, Session, noticed_if_lost
from tests.conftest import Outcome


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


def test_a_start_that_vanished_is_reported_by_the_next_one(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), noticed_if_lost(tmp_path):
        _ = 1 / 0  # an error is no end without a word
    with noticed_if_lost(tmp_path) as notice:
        assert notice is None
        assert (tmp_path / STARTING).exists()
    (tmp_path / STARTING).symlink_to(
        tmp_path / "other"
    )  # as os._exit leaves the file, or a link in its place
    with noticed_if_lost(tmp_path) as notice:
        assert notice == LOST_START
    assert list(tmp_path.iterdir()) == []
    with noticed_if_lost(tmp_path / "missing") as notice:
        assert notice is None


@pytest.mark.slow
def test_an_environment_whose_constructor_calls_os_exit(
    run_cli_here: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "gone.py").write_text("import os\n\n\ndef make():\n    os._exit(0)\n")
    command = ("env.id=gone.make", "hydra.run.dir=run")
    assert LOST_START not in run_cli_here(*command).err
    assert run_cli_here(*command).err == f"warning: {LOST_START}\n"
