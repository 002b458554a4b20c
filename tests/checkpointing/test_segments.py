"""Segments: content, and which of them are kept."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqn_runner.checkpointing import segments
from dqn_runner.checkpointing.checkpointer import Checkpointer
from dqn_runner.checkpointing.format import read_document, segments_in
from dqn_runner.checkpointing.names import BEST, LATEST
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.state import RowSnapshot
from dqn_runner.io import files
from tests.support.checkpoints import names, save


class TestSegments:
    @pytest.mark.parametrize(
        ("row_bytes", "rows"),
        [(0, 65_536), (1, 65_536), (48, 16_384), (4096, 256), (2**20, 256), (2**20 + 1, 256), (2**24, 256)],
    )
    def test_a_segment_has_about_a_megabyte_of_rows_and_at_least_256_of_them(self, row_bytes: int, rows: int):
        assert segments.rows_per_segment(row_bytes) == rows

    def test_a_damaged_segment_is_written_again(self, tmp_path: Path):
        """A run that resumes from before a segment adds the same rows, and must not use the damaged file."""
        columns = {"x": np.arange(10)}
        segment = segments.write_segment(tmp_path, 0, columns)
        (path,) = tmp_path.iterdir()
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        assert segments.write_segment(tmp_path, 0, columns) == segment
        assert segments.read_segment(tmp_path, columns, segment)["x"].tolist() == list(range(10))

    def test_segments_that_an_unreadable_checkpoint_may_need_are_kept_but_no_later_ones(self, tmp_path: Path):
        def rows(start: int) -> dict[str, Any]:
            def read(first: int, last: int) -> dict[str, Any]:
                return {"x": np.arange(first, last)}

            return {"state": {"replay": {"rows": RowSnapshot(start, start + 65_536, 16, read)}}}

        checkpointer = Checkpointer(tmp_path, keep_last=0)
        save(checkpointer, rows(0), 1, [BEST, LATEST])
        (tmp_path / BEST).unlink()
        (tmp_path / BEST).write_bytes(b"damage")
        kept = names(tmp_path / "segments")
        for step in (2, 3, 4):
            save(checkpointer, rows(65_536 * step), step, [LATEST])
        assert kept < names(tmp_path / "segments")
        assert len(names(tmp_path / "segments")) == 3, (
            "one from before the damage, one present when it was found, and the newest"
        )

    def test_segments_of_a_best_checkpoint_that_is_yet_to_be_written_are_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """The disk is full for the best checkpoint twice, but not for one in between."""

        def rows(start: int) -> dict[str, Any]:
            def read(first: int, last: int) -> dict[str, Any]:
                return {"x": np.arange(first, last)}

            return {"state": {"replay": {"rows": RowSnapshot(start, start + 65_536, 16, read)}}}

        write, full = files.write_atomically, [True, True, False, False, False, False]

        def write_unless_full(path: Path, data: bytes) -> None:
            if path.name in (LATEST, BEST) and full.pop(0):
                raise OSError(errno.ENOSPC, "full")
            write(path, data)

        monkeypatch.setattr(files, "write_atomically", write_unless_full)
        checkpointer = Checkpointer(tmp_path, keep_last=0)
        save(checkpointer, rows(0), 1, [BEST, LATEST])
        for step in (2, 3, 4):
            save(checkpointer, rows(65_536 * step), step, [LATEST])
        checkpointer.close()
        assert not full
        for name, step in ((BEST, 1), (LATEST, 4)):
            document = read_document(tmp_path / name)
            assert document["step"] == step
            (found,) = segments_in(document).values()
            assert found
            assert {segment.name for segment in found} <= names(tmp_path / "segments")

    def test_a_replay_snapshot_within_a_list_is_rejected(self, tmp_path: Path):
        state = {"replay": [RowSnapshot(0, 0, 8, lambda *_: {"x": np.zeros(0)})]}
        with pytest.raises(UserError, match=r"state.replay\[0\] is a RowSnapshot within a list"):
            save(Checkpointer(tmp_path, keep_last=0), {"state": state}, 1, [LATEST])
