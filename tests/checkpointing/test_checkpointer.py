"""Writing checkpoints: complete files, under the right names, and not more of them than configured."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from dqn_runner.checkpointing.checkpointer import Checkpointer
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.checkpointing.names import BEST, LATEST, best_name, numbered_name
from dqn_runner.core.exceptions import UserError
from dqn_runner.io import files
from tests.support.checkpoints import PAYLOAD, names, save


class TestSaving:
    def test_a_state_that_cannot_be_saved_leaves_the_earlier_checkpoints_unchanged(self, tmp_path: Path):
        checkpointer = Checkpointer(tmp_path, keep_last=3)
        save(checkpointer, PAYLOAD, 10, [numbered_name(10), BEST, LATEST])
        before = names(tmp_path)
        with pytest.raises(
            UserError, match=r"a part of your own keeps: state\.bad is a object; checkpoints hold"
        ):
            save(checkpointer, {"state": {"bad": object()}}, 20, [numbered_name(20), BEST, LATEST])
        assert names(tmp_path) == before
        assert load_checkpoint(tmp_path / LATEST)["step"] == 10

    def test_a_temporary_file_left_by_a_crash_is_replaced(self, tmp_path: Path):
        for name in (numbered_name(10), LATEST):
            (tmp_path / f"{name}.tmp").write_bytes(b"half of a checkpoint, written before SIGKILL")
        save(Checkpointer(tmp_path, keep_last=3), PAYLOAD, 10, [numbered_name(10), LATEST])
        assert names(tmp_path) == {numbered_name(10), LATEST}

    def test_a_write_that_fails_says_that_a_checkpoint_is_kept_only_if_there_is_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
    ):
        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, "full")

        checkpointer = Checkpointer(tmp_path, keep_last=3)
        for step in (10, 20):
            with monkeypatch.context() as patch:
                patch.setattr(files, "write_atomically", fail)
                save(checkpointer, PAYLOAD, step, [LATEST])
            save(checkpointer, PAYLOAD, step + 1, [LATEST])
        assert [("the last valid one is kept" in message) for message in warnings] == [False, True]
        assert "training continues, and writing is tried again" in warnings[0]


class TestRetention:
    def test_the_newest_numbered_checkpoints_and_best_and_latest_are_kept(self, tmp_path: Path):
        checkpointer = Checkpointer(tmp_path, keep_last=2)
        for step in (100, 200, 300, 400):
            best = [BEST] if step == 100 else []
            save(checkpointer, PAYLOAD, step, [numbered_name(step), *best, LATEST])
        assert names(tmp_path) == {numbered_name(300), numbered_name(400), BEST, LATEST}
        assert load_checkpoint(tmp_path / BEST)["step"] == 100
        assert load_checkpoint(tmp_path / LATEST)["step"] == 400

    def test_keep_last_may_be_zero(self, tmp_path: Path):
        checkpointer = Checkpointer(tmp_path, keep_last=0)
        save(checkpointer, PAYLOAD, 100, [numbered_name(100), BEST, LATEST])
        assert names(tmp_path) == {BEST, LATEST}
        assert load_checkpoint(tmp_path / LATEST)["step"] == 100

    def test_names_of_numbered_checkpoints_sort_by_step(self):
        assert sorted(map(numbered_name, (5, 1_000_000, 20))) == list(map(numbered_name, (5, 20, 1_000_000)))

    def test_other_files_are_not_removed(self, tmp_path: Path):
        (tmp_path / "mine.pt").touch()
        save(Checkpointer(tmp_path, keep_last=0), PAYLOAD, 1, [numbered_name(1), LATEST])
        assert names(tmp_path) == {"mine.pt", LATEST}


class TestResumeFrom:
    def test_resuming_from_an_earlier_checkpoint_renames_the_later_ones(self, tmp_path: Path):
        checkpointer = Checkpointer(tmp_path, keep_last=3)
        for step in (400, 800, 900):
            save(checkpointer, PAYLOAD, step, [numbered_name(step), BEST, LATEST])
        checkpointer.resume_from(tmp_path / numbered_name(400), best_step=400)
        renamed = {f"superseded_{numbered_name(step)}" for step in (800, 900)} | {best_name(900)}
        assert names(tmp_path) == {numbered_name(400), BEST, LATEST, *renamed}
        for name in (numbered_name(400), BEST, LATEST):
            assert load_checkpoint(tmp_path / name)["step"] == 400

    def test_resuming_from_the_latest_state_by_its_numbered_name_leaves_no_link_that_a_write_could_change(
        self, tmp_path: Path
    ):
        """A rename between two links to the same file leaves both: writing to one would change the other."""
        checkpointer = Checkpointer(tmp_path, keep_last=1)
        save(checkpointer, PAYLOAD, 100, [numbered_name(100), BEST, LATEST])
        checkpointer.resume_from(tmp_path / numbered_name(100), best_step=100)
        assert names(tmp_path) == {numbered_name(100), BEST, LATEST}
        save(checkpointer, PAYLOAD, 200, [LATEST])
        assert load_checkpoint(tmp_path / numbered_name(100))["step"] == 100

    def test_a_temporary_file_that_is_a_link_to_a_checkpoint_is_not_written_to(self, tmp_path: Path):
        """A crash while publishing leaves a temporary link to a checkpoint."""
        save(Checkpointer(tmp_path, keep_last=1), PAYLOAD, 100, [numbered_name(100), LATEST])
        os.link(tmp_path / numbered_name(100), tmp_path / f"{LATEST}.tmp")
        save(Checkpointer(tmp_path, keep_last=2), PAYLOAD, 200, [LATEST])
        assert load_checkpoint(tmp_path / numbered_name(100))["step"] == 100

    def test_a_later_latest_without_a_numbered_name_is_kept_as_superseded(self, tmp_path: Path):
        checkpointer = Checkpointer(tmp_path, keep_last=3)
        save(checkpointer, PAYLOAD, 100, [numbered_name(100), LATEST])
        save(checkpointer, PAYLOAD, 150, [LATEST])
        checkpointer.resume_from(tmp_path / numbered_name(100), best_step=0)
        assert names(tmp_path) == {numbered_name(100), LATEST, f"superseded_{numbered_name(150)}"}
        assert load_checkpoint(tmp_path / f"superseded_{numbered_name(150)}")["step"] == 150


class TestOneFileWithSeveralNames:
    def test_a_checkpoint_with_several_names_is_written_once(self, tmp_path: Path):
        save(Checkpointer(tmp_path, keep_last=3), PAYLOAD, 7, [numbered_name(7), BEST, LATEST])
        assert len({path.stat().st_ino for path in tmp_path.iterdir()}) == 1
        assert names(tmp_path) == {numbered_name(7), BEST, LATEST}

    def test_a_checkpoint_is_copied_if_the_file_system_has_no_hard_links(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def no_links(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(os, "link", no_links)
        checkpointer = Checkpointer(tmp_path, keep_last=3)
        for step in (7, 8):
            save(checkpointer, PAYLOAD, step, [numbered_name(step), BEST, LATEST])
        assert names(tmp_path) == {numbered_name(7), numbered_name(8), BEST, LATEST}
        assert len({path.stat().st_ino for path in tmp_path.iterdir()}) == 4
        assert {path.name: load_checkpoint(path)["step"] for path in tmp_path.iterdir()} == {
            numbered_name(7): 7,
            numbered_name(8): 8,
            BEST: 8,
            LATEST: 8,
        }

    def test_a_new_latest_does_not_change_best(self, tmp_path: Path):
        checkpointer = Checkpointer(tmp_path, keep_last=0)
        save(checkpointer, PAYLOAD, 1, [BEST, LATEST])
        save(checkpointer, {"state": {"weights": torch.zeros(3)}}, 2, [LATEST])
        assert load_checkpoint(tmp_path / BEST)["state"]["weights"].tolist() == [0, 1, 2]
