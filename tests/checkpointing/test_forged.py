"""Well-formed checkpoints with nonsense inside: one line says what is wrong, and an older one is used."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dqn_runner.checkpointing.checkpointer import Checkpointer
from dqn_runner.checkpointing.format import FORMAT, SNAPSHOT, VERSION, checksum, load_checkpoint
from dqn_runner.checkpointing.names import BEST, LATEST, numbered_name
from dqn_runner.checkpointing.recovery import find_checkpoint, has_checkpoints, load_newest_valid
from dqn_runner.core.exceptions import DamagedError, UserError
from tests.io.test_entries import KINDS, put
from tests.support.checkpoints import PAYLOAD, save

TAIL = {"x": torch.zeros(2)}
ROWS = {SNAPSHOT: True, "start": 0, "stop": 2, "row_bytes": 4, "segments": [], "tail": TAIL}
NAME = "000000000000-000000000002-" + "0" * 32 + ".npz"


def write(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A checkpoint of step 7, changed, with a valid checksum."""
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION, "step": 7, "names": [], "source": {}}
    document["state"] = {"step": 7, "replay": dict(ROWS), "list": [[1]], "deep": {}}
    change(document)
    document["checksum"] = "0" * 32 if change in WITHOUT_CHECKSUM else checksum(document)
    torch.save(document, path)
    return path


def replay(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["state"]["replay"].update(changes)


def put_cycle(document: dict[str, Any]) -> None:
    document["state"]["list"].append(document["state"]["list"])


def put_bomb(document: dict[str, Any]) -> None:
    value: Any = [0] * 10
    for _ in range(40):
        value = [value] * 10
    document["state"]["list"] = value


HUGE = replay(tail={"x": torch.zeros(1).expand(10**13)})
META = replay(tail={"x": torch.empty(10**12, device="meta")})
SPARSE = replay(tail={"x": torch.eye(2).to_sparse()})
WITHOUT_CHECKSUM = (put_cycle, put_bomb, HUGE, META, SPARSE)
"""Changes after which computing a checksum would fail or never end."""

NONSENSE: dict[str, Callable[[dict[str, Any]], object]] = {
    "missing required field step": lambda d: d.pop("step"),
    "step: expected int, got bool": lambda d: d.update(step=True),
    "step: expected int >= 0": lambda d: d.update(step=-1),
    "version is 'x'": lambda d: d.update(version="x"),
    "source: expected object, got array": lambda d: d.update(source=[]),
    "source.overrides: expected array, got int": lambda d: d.update(source={"overrides": 3, "config": {}}),
    "source.its content: object missing required field config": lambda d: d.update(source={"overrides": []}),
    "state: expected object, got null": lambda d: d.update(state=None),
    "names: '../../x' is not a name of this checkpoint": lambda d: d.update(names=["../../x"]),
    "names: '/tmp/x' is not a name": lambda d: d.update(names=["/tmp/x"]),
    "names: 'checkpoint_0000000008.pt' is no": lambda d: d.update(names=[numbered_name(8)]),
    "names\\[0\\]: |names.*: expected str": lambda d: d.update(names=[5]),
    "state.replay.stop: expected 2": replay(stop=3),
    "state.replay.start: expected int >= 0": replay(start=-1),
    "state.replay.tail: expected columns": replay(tail={}),
    "state.replay.segments": replay(segments=[[0, 2, "../x.npz"]]),
    "does not continue at row 0": replay(segments=[[1, 2, NAME]]),
    "larger or smaller than its data": HUGE,
    "not a plain array|something other": META,
    "something other than tensors": SPARSE,
    "not a tree": put_cycle,
    "not a tree of plain": put_bomb,
    "a key that is not a text": lambda d: d["state"].update({5: 1}),
}


@pytest.mark.parametrize("expected", NONSENSE)
def test_nonsense_is_named_in_one_line_and_an_older_checkpoint_is_used(tmp_path: Path, expected: str) -> None:
    write(tmp_path / numbered_name(7), lambda _: None)
    path = write(tmp_path / LATEST, NONSENSE[expected])
    with pytest.raises(DamagedError, match=expected) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    accepted: list[Any] = []
    reported: list[str] = []
    used = load_newest_valid(path, accepted.append, reported.append)
    assert used.name == numbered_name(7)
    assert len(reported) == 1


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), TypeError("t"), ValueError("v"), IndexError("i"), RuntimeError("a\nb"), OverflowError()],
)
def test_a_state_that_cannot_be_loaded_counts_as_damage(tmp_path: Path, error: Exception) -> None:
    for name in (numbered_name(7), LATEST):
        write(tmp_path / name, lambda _: None)
    calls: list[Any] = []

    def accept(document: Any) -> None:
        calls.append(document)
        if len(calls) == 1:
            raise error

    reported: list[str] = []
    assert load_newest_valid(tmp_path / LATEST, accept, reported.append).name == numbered_name(7)
    assert "latest.pt does not hold such a run" in reported[0]
    assert "\n" not in reported[0]


def test_a_compressed_checkpoint_is_rejected_before_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / LATEST, lambda d: d["state"].update(zeros=torch.zeros(10**6)))
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    path.write_bytes(packed.getvalue())
    with pytest.raises(DamagedError, match="claim to be larger than the file"):
        load_checkpoint(path)


class TestOddEntries:
    @pytest.fixture
    def run_dir(self, tmp_path: Path) -> Path:
        checkpointer = Checkpointer(tmp_path / "checkpoints", keep_last=2)
        for step in (10, 20, 30):
            save(checkpointer, PAYLOAD, step, [numbered_name(step), *([BEST] * (step == 10)), LATEST])
        return tmp_path

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        "name",
        [LATEST, BEST, numbered_name(30), "checkpoint_²³.pt", "x.pt", "best_0000000010.pt", f"{LATEST}.tmp"],
    )
    def test_a_run_resumes_and_saves_beside_them(self, run_dir: Path, name: str, kind: str):
        directory = run_dir / "checkpoints"
        if os.path.lexists(directory / name):
            (directory / name).unlink()
        put(kind, directory / name)
        assert has_checkpoints(run_dir)
        found = find_checkpoint(run_dir)
        assert find_checkpoint(found) == found
        used = load_newest_valid(found, lambda _: None, lambda _: None)
        assert load_checkpoint(used)["step"] == 30
        checkpointer = Checkpointer(directory, keep_last=2)
        checkpointer.resume_from(used, best_step=10)
        for step in (40, 50):
            save(
                checkpointer,
                PAYLOAD,
                step,
                [numbered_name(step), BEST, LATEST],
            )
            assert not checkpointer.failed
        for saved in (LATEST, BEST, numbered_name(50), numbered_name(40)):
            assert load_checkpoint(directory / saved)["step"] == (40 if saved == numbered_name(40) else 50)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_directory_with_nothing_else_is_a_new_run_except_where_a_link_is_broken(
        self, tmp_path: Path, kind: str
    ):
        (tmp_path / "checkpoints").mkdir()
        put(kind, tmp_path / "checkpoints" / LATEST)
        assert has_checkpoints(tmp_path) == (kind in ("loop", "dangling"))
        with pytest.raises(UserError, match=r"latest\.pt: it is a") as caught:
            load_newest_valid(find_checkpoint(tmp_path), lambda _: None, lambda _: None)
        assert "\n" not in str(caught.value)
