"""Atomic writes: a file has its old content or its new content, never a part."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dqn_runner.io.files import write_atomically
from tests.support.checkpoints import names


class TestWriteAtomically:
    def test_an_interrupted_atomic_write_keeps_the_old_content(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        path = tmp_path / "file"
        path.write_bytes(b"old")

        write = os.write

        def crash(descriptor: int, content: bytes) -> int:
            write(descriptor, content[:5])
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "write", crash)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, b"half of the new content")
        monkeypatch.undo()
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == {"file"}

    @pytest.mark.parametrize("operation", ["write", "fsync", "replace"])
    def test_an_atomic_write_that_fails_keeps_the_old_content(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
    ):
        path = tmp_path / "file"
        path.write_bytes(b"old")

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, operation, fail)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, b"new")
        monkeypatch.undo()
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == {"file"}

    def test_an_atomic_write_syncs_the_content_before_the_rename_and_then_the_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        path = tmp_path / "file"
        events: list[str] = []
        fsync, replace = os.fsync, os.replace

        def spy_fsync(descriptor: int) -> None:
            target = Path(f"/proc/self/fd/{descriptor}").resolve()
            events.append("sync directory" if target.is_dir() else f"sync {len(target.read_bytes())} bytes")
            fsync(descriptor)

        def spy_replace(source: Any, target: Any) -> None:
            events.append("rename")
            replace(source, target)

        monkeypatch.setattr(os, "fsync", spy_fsync)
        monkeypatch.setattr(os, "replace", spy_replace)
        write_atomically(path, b"12345")
        assert events == ["sync 5 bytes", "rename", "sync directory"]
