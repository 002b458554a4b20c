"""Checkpoint files: never half-written, never code, and never more of them than asked for."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner.checkpointing import checkpointer as checkpointer_module
from dqn_runner.checkpointing import segments
from dqn_runner.checkpointing.checkpointer import BEST, LATEST, Checkpointer, best_name, numbered_name
from dqn_runner.checkpointing.format import FORMAT, VERSION, checksum, load_checkpoint
from dqn_runner.checkpointing.recovery import find_checkpoint, load_newest_valid
from dqn_runner.core.exceptions import DamagedError, UserError
from dqn_runner.core.state import ReplaySnapshot
from dqn_runner.io.files import write_atomically

PAYLOAD: dict[str, Any] = {
    "source": {"config": {"a": 1, "b": [1.5, None, True, "x"]}},
    "state": {
        "weights": torch.arange(3.0),
        "counts": np.arange(4, dtype=np.int64),
        "flags": np.array([True]),
    },
}


def save(checkpointer: Checkpointer, payload: Any, step: int, names: list[str]) -> None:
    """Save, and wait until it is on disk."""
    checkpointer.save(payload, step, names)
    checkpointer.wait()


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def refused(path: Path) -> str:
    """The message for a file that is no checkpoint."""
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


class TestAWriteHappensWhollyOrNotAtAll:
    def test_a_crash_while_writing_keeps_the_old_content(
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
    def test_a_disk_that_fails_keeps_the_old_content(
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

    def test_the_content_is_on_disk_before_the_name_and_the_name_before_the_return(
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

    def test_a_checkpoint_that_cannot_be_written_leaves_the_ones_before(self, tmp_path: Path):
        checkpointer = Checkpointer(tmp_path, keep_last=3)
        save(checkpointer, PAYLOAD, 10, [numbered_name(10), BEST, LATEST])
        before = names(tmp_path)
        with pytest.raises(TypeError):
            save(checkpointer, {"state": {"bad": object()}}, 20, [numbered_name(20), BEST, LATEST])
        assert names(tmp_path) == before
        assert load_checkpoint(tmp_path / LATEST)["step"] == 10

    def test_a_left_over_temporary_file_is_no_hindrance(self, tmp_path: Path):
        for name in (numbered_name(10), LATEST):
            (tmp_path / f"{name}.tmp").write_bytes(b"half of a checkpoint, left by SIGKILL")
        save(Checkpointer(tmp_path, keep_last=3), PAYLOAD, 10, [numbered_name(10), LATEST])
        assert names(tmp_path) == {numbered_name(10), LATEST}


class TestRetention:
    def test_the_newest_stay_and_so_do_best_and_latest(self, tmp_path: Path):
        checkpointer = Checkpointer(tmp_path, keep_last=2)
        for step in (100, 200, 300, 400):
            best = [BEST] if step == 100 else []
            save(checkpointer, PAYLOAD, step, [numbered_name(step), *best, LATEST])
        assert names(tmp_path) == {numbered_name(300), numbered_name(400), BEST, LATEST}
        assert load_checkpoint(tmp_path / BEST)["step"] == 100
        assert load_checkpoint(tmp_path / LATEST)["step"] == 400

    def test_none_of_the_numbered_need_stay(self, tmp_path: Path):
        checkpointer = Checkpointer(tmp_path, keep_last=0)
        save(checkpointer, PAYLOAD, 100, [numbered_name(100), BEST, LATEST])
        assert names(tmp_path) == {BEST, LATEST}
        assert load_checkpoint(tmp_path / LATEST)["step"] == 100

    def test_a_run_taken_back_sets_the_later_ones_aside(self, tmp_path: Path):
        checkpointer = Checkpointer(tmp_path, keep_last=3)
        for step in (400, 800, 900):
            save(checkpointer, PAYLOAD, step, [numbered_name(step), BEST, LATEST])
        checkpointer.take_up(tmp_path / numbered_name(400), best_step=400)
        aside = {f"superseded_{numbered_name(step)}" for step in (800, 900)} | {best_name(900)}
        assert names(tmp_path) == {numbered_name(400), BEST, LATEST, *aside}
        for name in (numbered_name(400), BEST, LATEST):
            assert load_checkpoint(tmp_path / name)["step"] == 400

    def test_names_sort_by_step(self):
        assert sorted(map(numbered_name, (5, 1_000_000, 20))) == list(map(numbered_name, (5, 20, 1_000_000)))

    def test_files_of_others_are_left_alone(self, tmp_path: Path):
        (tmp_path / "mine.pt").touch()
        save(Checkpointer(tmp_path, keep_last=0), PAYLOAD, 1, [numbered_name(1), LATEST])
        assert names(tmp_path) == {"mine.pt", LATEST}


class TestGoingBack:
    def test_to_what_is_the_latest_leaves_no_second_name_to_write_through(self, tmp_path: Path):
        """A rename between two names of one file leaves both: a write into one would change the other."""
        checkpointer = Checkpointer(tmp_path, keep_last=1)
        save(checkpointer, PAYLOAD, 100, [numbered_name(100), BEST, LATEST])
        checkpointer.take_up(tmp_path / numbered_name(100), best_step=100)
        assert names(tmp_path) == {numbered_name(100), BEST, LATEST}
        save(checkpointer, PAYLOAD, 200, [LATEST])
        assert load_checkpoint(tmp_path / numbered_name(100))["step"] == 100

    def test_a_temporary_file_is_never_written_through(self, tmp_path: Path):
        """A crash in the middle of a link leaves a second name of a checkpoint."""
        save(Checkpointer(tmp_path, keep_last=1), PAYLOAD, 100, [numbered_name(100), LATEST])
        os.link(tmp_path / numbered_name(100), tmp_path / f"{LATEST}.tmp")
        save(Checkpointer(tmp_path, keep_last=2), PAYLOAD, 200, [LATEST])
        assert load_checkpoint(tmp_path / numbered_name(100))["step"] == 100

    def test_the_latest_keeps_a_name_though_it_had_none_of_its_own(self, tmp_path: Path):
        checkpointer = Checkpointer(tmp_path, keep_last=3)
        save(checkpointer, PAYLOAD, 100, [numbered_name(100), LATEST])
        save(checkpointer, PAYLOAD, 150, [LATEST])
        checkpointer.take_up(tmp_path / numbered_name(100), best_step=0)
        assert names(tmp_path) == {numbered_name(100), LATEST, f"superseded_{numbered_name(150)}"}
        assert load_checkpoint(tmp_path / f"superseded_{numbered_name(150)}")["step"] == 150


class TestFindingOneThatIsValid:
    @staticmethod
    def found(directory: Path, name: str = LATEST) -> tuple[str, int, list[str]]:
        taken: list[dict[str, Any]] = []
        told: list[str] = []
        path = load_newest_valid(directory / name, taken.append, told.append)
        return path.name, taken[-1]["step"], told

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

    def test_the_newest_whatever_its_name(self, saved: Path):
        assert self.found(saved) == (LATEST, 300, [])
        (saved / LATEST).write_bytes(b"damage")
        name, step, told = self.found(saved)
        assert (name, step) == (BEST, 250)
        assert told == [
            f"cannot read the checkpoint {saved / LATEST}: the file is cut short or not a checkpoint; "
            "best.pt is used instead"
        ]
        (saved / BEST).write_bytes(b"damage")
        assert self.found(saved)[:2] == (numbered_name(200), 200)

    def test_a_latest_that_is_gone_is_like_one_that_is_damaged(self, saved: Path):
        (saved / LATEST).unlink()
        name, step, (line,) = self.found(saved)
        assert (name, step) == (BEST, 250)
        assert line == f"there is no checkpoint {saved / LATEST}; best.pt is used instead"

    def test_one_that_was_asked_for_and_never_was_is_not_replaced(self, saved: Path):
        with pytest.raises(UserError, match="there is no checkpoint"):
            self.found(saved, numbered_name(777))

    def test_a_file_under_the_name_of_another_step(self, saved: Path):
        (saved / numbered_name(200)).write_bytes((saved / numbered_name(100)).read_bytes())
        name, step, (line,) = self.found(saved, numbered_name(200))
        assert (name, step) == (numbered_name(100), 100)
        assert "holds the checkpoint of step 100" in line

    def test_an_older_one_that_does_not_fit_is_passed_over(self, saved: Path):
        (saved / LATEST).write_bytes(b"damage")
        taken: list[int] = []

        def accept(document: dict[str, Any]) -> None:
            if document["step"] == 250:
                raise UserError("the environment did not come back")
            taken.append(document["step"])

        told: list[str] = []
        assert load_newest_valid(saved / LATEST, accept, told.append).name == numbered_name(200)
        assert taken == [200]

    def test_the_first_damage_is_told_when_none_is_left(self, saved: Path):
        for path in saved.glob("*.pt"):
            path.write_bytes(b"damage")
        with pytest.raises(DamagedError, match=r"latest\.pt: the file is cut short"):
            self.found(saved)


class TestSegments:
    def test_one_that_is_damaged_is_written_again(self, tmp_path: Path):
        """A run that went back before it comes by the same rows, and must not rely on the damaged file."""
        columns = {"x": np.arange(10)}
        piece = segments.write(tmp_path, 0, columns)
        (path,) = tmp_path.iterdir()
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        assert segments.write(tmp_path, 0, columns) == piece
        assert segments.read(tmp_path, piece)["x"].tolist() == list(range(10))

    def test_those_of_an_unreadable_checkpoint_stay_but_no_later_ones(self, tmp_path: Path):
        def rows(start: int) -> dict[str, Any]:
            def read(first: int, last: int) -> dict[str, Any]:
                return {"x": np.arange(first, last)}

            return {"state": {"replay": {"rows": ReplaySnapshot(start, start + 65_536, 16, read)}}}

        checkpointer = Checkpointer(tmp_path, keep_last=0)
        save(checkpointer, rows(0), 1, [BEST, LATEST])
        (tmp_path / BEST).unlink()
        (tmp_path / BEST).write_bytes(b"damage")
        kept = names(tmp_path / "replay")
        for step in (2, 3, 4):
            save(checkpointer, rows(65_536 * step), step, [LATEST])
        assert kept < names(tmp_path / "replay")
        assert len(names(tmp_path / "replay")) == 3, (
            "those from before, those there when it was found, the newest"
        )

    def test_rows_within_a_list_are_refused(self, tmp_path: Path):
        state = {"replay": [ReplaySnapshot(0, 0, 8, lambda *_: {"x": np.zeros(0)})]}
        with pytest.raises(TypeError, match=r"state.state.replay\[0\] are ReplaySnapshot within a list"):
            save(Checkpointer(tmp_path, keep_last=0), {"state": state}, 1, [LATEST])


class TestOneFileUnderSeveralNames:
    def test_written_once(self, tmp_path: Path):
        save(Checkpointer(tmp_path, keep_last=3), PAYLOAD, 7, [numbered_name(7), BEST, LATEST])
        assert len({path.stat().st_ino for path in tmp_path.iterdir()}) == 1
        assert names(tmp_path) == {numbered_name(7), BEST, LATEST}

    def test_copied_where_the_file_system_has_no_hard_links(
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

    def test_a_new_latest_leaves_best_as_it_was(self, tmp_path: Path):
        checkpointer = Checkpointer(tmp_path, keep_last=0)
        save(checkpointer, PAYLOAD, 1, [BEST, LATEST])
        save(checkpointer, {"state": {"weights": torch.zeros(3)}}, 2, [LATEST])
        assert load_checkpoint(tmp_path / BEST)["state"]["weights"].tolist() == [0, 1, 2]


class TestContent:
    def test_comes_back_as_it_was(self, tmp_path: Path):
        save(Checkpointer(tmp_path, keep_last=0), PAYLOAD, 42, [LATEST])
        document = load_checkpoint(tmp_path / LATEST)
        assert document["step"] == 42
        assert document["source"] == PAYLOAD["source"]
        for key, value in PAYLOAD["state"].items():
            back = np.asarray(document["state"][key])
            assert back.dtype == np.asarray(value).dtype
            assert back.tolist() == value.tolist()

    def test_opens_with_plain_torch_and_no_pickle(self, tmp_path: Path):
        save(Checkpointer(tmp_path, keep_last=0), PAYLOAD, 42, [LATEST])
        document = torch.load(tmp_path / LATEST, weights_only=True)
        assert document["format"] == FORMAT
        assert document["version"] == VERSION

    def test_a_view_is_saved_without_what_lies_around_it(self, tmp_path: Path):
        everything = np.zeros((1000, 1000))
        save(Checkpointer(tmp_path, keep_last=0), {"state": {"rows": everything[:2]}}, 1, [LATEST])
        assert (tmp_path / LATEST).stat().st_size < 100_000

    @pytest.mark.parametrize("number", [np.float64(1.5), np.float32(1.5), np.int64(3), np.bool_(True)])
    def test_a_number_of_numpy_does_not_spoil_the_file(self, tmp_path: Path, number: Any):
        save(Checkpointer(tmp_path, keep_last=0), {"state": {"mean": number}}, 1, [LATEST])
        back = load_checkpoint(tmp_path / LATEST)["state"]["mean"]
        assert np.asarray(back).item() == number.item()

    @pytest.mark.parametrize(
        ("state", "where"),
        [
            ({"loggers": {"mine": {"handle": object()}}}, "state.loggers.mine.handle is a object"),
            ({"windows": [[1], [2, {3}]]}, "state.windows[1][1] is a set"),
        ],
    )
    def test_what_cannot_be_saved_is_named_by_its_path(self, tmp_path: Path, state: Any, where: str):
        with pytest.raises(TypeError) as caught:
            save(Checkpointer(tmp_path, keep_last=0), {"state": state}, 1, [LATEST])
        assert where in str(caught.value)


class Bomb:
    """What a pickle would run when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


class TestFilesThatAreNoCheckpoints:
    @pytest.fixture
    def good(self, tmp_path: Path) -> Path:
        save(Checkpointer(tmp_path, keep_last=1), PAYLOAD, 42, [numbered_name(42), LATEST])
        return tmp_path / LATEST

    def test_a_file_cut_short(self, good: Path):
        good.write_bytes(good.read_bytes()[:-200])
        message = refused(good)
        assert "the file is cut short or not a checkpoint" in message
        assert message.endswith(f"in {good.parent} there are: {numbered_name(42)}"), "it names the others"

    @pytest.mark.parametrize("content", [b"", b"\x80\x04", b"not a checkpoint", b"PK\x03\x04 but no archive"])
    def test_any_other_file(self, tmp_path: Path, content: bytes):
        path = tmp_path / "weights.pt"
        path.write_bytes(content)
        assert "the file is cut short or not a checkpoint" in refused(path)

    @pytest.mark.parametrize("document", [{"model": {}}, [1, 2], torch.zeros(3), {"format": "another"}])
    def test_a_file_of_another_program(self, tmp_path: Path, document: Any):
        path = tmp_path / "weights.pt"
        torch.save(document, path)
        assert refused(path) == f"{path} is not a checkpoint of dqn_runner"

    def test_a_newer_format(self, tmp_path: Path):
        path = tmp_path / "future.pt"
        content = {"format": FORMAT, "version": VERSION + 1, "state": {}}
        torch.save({**content, "checksum": checksum(content)}, path)
        assert "update dqn_runner" in refused(path)

    def test_no_file(self, good: Path):
        message = refused(good.parent / "checkpoint_7.pt")
        assert "there is no checkpoint" in message
        assert message.endswith(f"there are: {numbered_name(42)}, {LATEST}")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_malicious_file_runs_nothing(self, tmp_path: Path, zipped: bool):
        path, victim = tmp_path / "evil.pt", tmp_path / "victim"
        document = {"format": FORMAT, "version": VERSION, "state": Bomb(victim)}
        torch.save(document, path, _use_new_zipfile_serialization=zipped)
        refused(path)
        assert not victim.exists()

    def test_a_plain_pickle_runs_nothing(self, tmp_path: Path):
        path, victim = tmp_path / "evil.pt", tmp_path / "victim"
        path.write_bytes(pickle.dumps(Bomb(victim)))
        refused(path)
        assert not victim.exists()


class TestAnOpenCheckpoint:
    def test_may_be_replaced_and_removed(self, tmp_path: Path):
        """Loading maps the file into memory; the run it belongs to goes on writing."""
        checkpointer = Checkpointer(tmp_path, keep_last=0)
        save(checkpointer, {"state": {"weights": torch.arange(100_000.0)}}, 1, [LATEST])
        weights = load_checkpoint(tmp_path / LATEST)["state"]["weights"]
        save(checkpointer, {"state": {"weights": torch.zeros(100_000)}}, 2, [LATEST])
        assert weights.equal(torch.arange(100_000.0))
        (tmp_path / LATEST).unlink()
        assert weights.equal(torch.arange(100_000.0))

    def test_is_read_without_a_warning(self, tmp_path: Path):
        save(Checkpointer(tmp_path, keep_last=0), PAYLOAD, 1, [LATEST])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_checkpoint(tmp_path / LATEST)


def test_a_run_directory_means_its_latest(tmp_path: Path):
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoints" / LATEST
    assert find_checkpoint(tmp_path / "checkpoints" / BEST) == tmp_path / "checkpoints" / BEST
    assert checkpointer_module.LATEST == "latest.pt"
