"""Odd entries of a directory: links are not followed when written, and nothing waits for a pipe."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dqn_runner.core.exceptions import UserError
from dqn_runner.io.entries import is_file, make_way, problem_with_file, require_directory, require_file
from dqn_runner.io.files import publish, rename, write_atomically
from dqn_runner.io.lock import RunLock, reject_if_locked

KINDS = ("directory", "full directory", "pipe", "loop", "dangling")


def put(kind: str, path: Path) -> None:
    """Create an entry that is not a file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind in ("loop", "dangling"):
        path.symlink_to(path if kind == "loop" else path.parent / "nowhere")
    else:
        path.mkdir()
        if kind == "full directory":
            (path / "precious").write_text("kept")


@pytest.mark.parametrize("kind", KINDS)
class TestOddEntries:
    def test_it_is_not_read_as_a_file(self, tmp_path: Path, kind: str):
        put(kind, tmp_path / "entry")
        assert not is_file(tmp_path / "entry")
        assert (problem_with_file(tmp_path / "entry") or "").startswith("is a")

    def test_it_is_rejected_where_a_file_is_appended(self, tmp_path: Path, kind: str):
        put(kind, tmp_path / "entry")
        with pytest.raises(UserError, match="is a") as caught:
            require_file(tmp_path / "entry")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("suffix", ["", ".tmp"])
    def test_an_atomic_write_replaces_it_or_keeps_it_under_another_name(
        self, tmp_path: Path, kind: str, suffix: str
    ):
        put(kind, tmp_path / f"file{suffix}")
        write_atomically(tmp_path / "file", b"new")
        assert not (tmp_path / "file").is_symlink()
        assert (tmp_path / "file").read_bytes() == b"new"
        assert not (tmp_path / "nowhere").exists()
        if kind == "full directory":
            assert (tmp_path / f"damaged_file{suffix}" / "precious").read_text() == "kept"

    @pytest.mark.parametrize("suffix", ["", ".tmp"])
    def test_publishing_and_renaming_replace_it_too(self, tmp_path: Path, kind: str, suffix: str):
        (tmp_path / "source").write_bytes(b"new")
        put(kind, tmp_path / f"file{suffix}")
        publish(tmp_path / "source", tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == b"new"
        put(kind, tmp_path / "other")
        rename(tmp_path / "file", "other")
        assert (tmp_path / "other").read_bytes() == b"new"

    def test_a_lock_file_is_rejected(self, tmp_path: Path, kind: str):
        put(kind, tmp_path / ".lock")
        for use in (RunLock(tmp_path).acquire, lambda: reject_if_locked(tmp_path)):
            with pytest.raises(UserError, match=r"\.lock is a"):
                use()
        assert not (tmp_path / "nowhere").exists()


def test_directories_are_kept_under_different_names(tmp_path: Path):
    for _ in range(3):
        (tmp_path / "file").mkdir()
        make_way(tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "damaged_2_file",
        "damaged_3_file",
        "damaged_file",
    ]


def test_a_directory_that_is_a_link_or_a_file_is_rejected(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(UserError, match="is a"):
            require_directory(tmp_path / name)
    require_directory(tmp_path)
    require_directory(tmp_path / "new")


def test_a_full_disk_does_not_prevent_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    lock = RunLock(tmp_path)
    monkeypatch.setattr(os, "write", full)
    lock.acquire()
    with pytest.raises(UserError, match="unknown process"):
        RunLock(tmp_path).acquire()
    lock.release()
