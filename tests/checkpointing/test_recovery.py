"""Which checkpoint is used when the requested one is damaged or missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dqn_runner.checkpointing.checkpointer import Checkpointer
from dqn_runner.checkpointing.names import BEST, LATEST, numbered_name
from dqn_runner.checkpointing.recovery import find_checkpoint, load_newest_valid
from dqn_runner.core.exceptions import DamagedError, UserError
from tests.support.checkpoints import PAYLOAD, save


def test_the_checkpoint_of_a_run_directory_is_its_latest(tmp_path: Path):
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoints" / LATEST
    assert find_checkpoint(tmp_path / "checkpoints" / BEST) == tmp_path / "checkpoints" / BEST
    assert LATEST == "latest.pt"


class TestLoadNewestValid:
    @staticmethod
    def found(directory: Path, name: str = LATEST) -> tuple[str, int, list[str]]:
        """Name and step of the checkpoint that is used instead of `name`, and what is reported."""
        accepted: list[dict[str, Any]] = []
        reported: list[str] = []
        path = load_newest_valid(directory / name, accepted.append, reported.append)
        return path.name, accepted[-1]["step"], reported

    @pytest.fixture
    def saved(self, tmp_path: Path) -> Path:
        checkpointer = Checkpointer(tmp_path, keep_last=3)
        for step, more in (
            (100, [numbered_name(100)]),
            (200, [numbered_name(200)]),
            (250, [BEST]),
            (300, []),
        ):
            save(checkpointer, PAYLOAD, step, [*more, LATEST])
        return tmp_path

    def test_a_damaged_checkpoint_is_replaced_by_the_newest_valid_one(self, saved: Path):
        assert self.found(saved) == (LATEST, 300, [])
        (saved / LATEST).write_bytes(b"damage")
        name, step, reported = self.found(saved)
        assert (name, step) == (BEST, 250)
        assert reported == [
            f"cannot read the checkpoint {saved / LATEST}: the file is cut short or not a checkpoint; "
            "best.pt is used instead"
        ]
        (saved / BEST).write_bytes(b"damage")
        assert self.found(saved)[:2] == (numbered_name(200), 200)

    def test_a_missing_latest_checkpoint_is_replaced_like_a_damaged_one(self, saved: Path):
        (saved / LATEST).unlink()
        name, step, (line,) = self.found(saved)
        assert (name, step) == (BEST, 250)
        assert line == f"the checkpoint {saved / LATEST} does not exist; best.pt is used instead"

    def test_a_requested_checkpoint_that_never_existed_is_not_replaced(self, saved: Path):
        with pytest.raises(UserError, match=f"{numbered_name(777)} does not exist"):
            self.found(saved, numbered_name(777))

    def test_a_checkpoint_with_the_file_name_of_another_step_counts_as_damaged(self, saved: Path):
        (saved / numbered_name(200)).write_bytes((saved / numbered_name(100)).read_bytes())
        name, step, (line,) = self.found(saved, numbered_name(200))
        assert (name, step) == (numbered_name(100), 100)
        assert "holds the checkpoint of step 100" in line

    def test_an_older_checkpoint_that_is_not_accepted_is_skipped(self, saved: Path):
        (saved / LATEST).write_bytes(b"damage")
        accepted: list[int] = []

        def accept(document: dict[str, Any]) -> None:
            if document["step"] == 250:
                raise UserError("the environment cannot be restored")
            accepted.append(document["step"])

        assert load_newest_valid(saved / LATEST, accept, lambda _: None).name == numbered_name(200)
        assert accepted == [200]

    def test_the_error_names_the_requested_checkpoint_if_no_valid_one_is_left(self, saved: Path):
        for path in saved.glob("*.pt"):
            path.write_bytes(b"damage")
        with pytest.raises(DamagedError, match=r"latest\.pt: the file is cut short"):
            self.found(saved)

    def test_the_error_lists_every_damaged_checkpoint_without_the_alternatives(self, saved: Path):
        for path in saved.glob("*.pt"):
            path.write_bytes(b"damage")
        with pytest.raises(DamagedError) as caught:
            self.found(saved)
        message = str(caught.value)
        assert message.count("the file is cut short or not a checkpoint") == 3, "best.pt has no readable step"
        assert message.endswith("; no other checkpoint is left")
        assert "available in" not in message
