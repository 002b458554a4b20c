"""Truncated, altered, swapped or forged files: a run resumes from exactly what was saved, or not at all."""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.schedules import Constant
from dqn_runner.checkpointing import segments
from dqn_runner.checkpointing.checkpointer import Checkpointer
from dqn_runner.checkpointing.format import (
    FORMAT,
    SNAPSHOT,
    VERSION,
    checksum,
    encode,
    load_checkpoint,
    read_document,
)
from dqn_runner.checkpointing.names import BEST, LATEST, numbered_name
from dqn_runner.checkpointing.recovery import load_newest_valid
from dqn_runner.core.exceptions import DamagedError, UserError
from dqn_runner.core.state import RowSnapshot
from dqn_runner.io.json_io import read_json
from dqn_runner.run import plots
from dqn_runner.training.config import FrequencyUnit
from tests.conftest import BUDGET, Outcome, records
from tests.support import crash
from tests.support.checkpoints import Bomb

STEPS = (100, 200, 300, 400)


def payload(step: int) -> dict[str, Any]:
    """A state like that of a run: nested plain values, arrays, and rows, most of which are in segments."""
    rng = np.random.default_rng(step)

    def read(start: int, stop: int) -> dict[str, Any]:
        return {"obs": np.arange(2 * start, 2 * stop).reshape(-1, 2), "done": np.arange(start, stop) % 7 == 0}

    state = {
        "agent": {"online": rng.normal(size=50), "updates": step, "name": "dqn"},
        "replay": {
            "rows": RowSnapshot(step // 2, step, 17, read),
            "windows": [[rng.normal(size=2), 1, 0.5]],
        },
        "best": {"mean": 1.5, "step": 200, "reference": None},
    }
    return {"source": {"config": {"seed": 0, "text": "ü"}}, "state": state}


def content(document: dict[str, Any]) -> str:
    """Checksum of the whole content of a checkpoint, including its rows."""
    replay = document["state"]["replay"]
    rows = {name: column.tolist() for name, column in replay["rows"].all().items()}
    rest = {**document["state"], "replay": replay["windows"]}
    return checksum([document["step"], document["source"], rest, rows])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints at STEPS, of which the second is the best; tests damage copies only."""
    directory = tmp_path_factory.mktemp("saved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "rows_per_segment", lambda _: 32)
        checkpointer = Checkpointer(directory, keep_last=3)
        for step in STEPS:
            best = [BEST] if step == 200 else []
            checkpointer.save(payload(step), step, [*([numbered_name(step)] * (step != 400)), *best, LATEST])
        checkpointer.close()
    return directory


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, float, float, int]:
    """Kind of damage, which file and where in it (both as fractions), and a number."""
    kind = draw(st.sampled_from(["cut", "flip", "blank", "insert", "swap", "remove", "empty"]))
    share = st.floats(0, 1, exclude_max=True)
    return kind, draw(share), draw(share), draw(st.integers(0, 2**16))


def damage(directory: Path, kind: str, which: float, where: float, number: int) -> None:
    """Damage one file in `directory`, under all of its names."""
    files = sorted(path for path in directory.rglob("*.*") if path.is_file())
    path = files[int(which * len(files))]
    data = bytearray(path.read_bytes())
    at = int(where * len(data))
    if kind == "swap":
        others = [other for other in files if other.suffix == path.suffix]
        other = others[number % len(others)]
        copy = other.read_bytes()
        path.unlink()
        path.write_bytes(copy)
        return
    if kind == "remove":
        path.unlink()
        return
    if kind == "cut":
        del data[at:]
    elif kind == "insert":
        data[at:at] = number.to_bytes(4)
    elif kind == "blank":
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    elif kind == "empty":
        data.clear()
    elif data:
        data[at] ^= 1 << number % 8
    path.write_bytes(data)


@pytest.mark.slow
@settings(max_examples=150, derandomize=True)
@given(happened=st.lists(damages(), min_size=1, max_size=4))
@example(
    happened=[("flip", 0.0, 0.0, 0), ("flip", 0.0, 0.990234375, 0)]
)  # an end record that zipfile rejects
def test_a_run_never_resumes_from_anything_but_what_was_saved(
    saved: Path, happened: list[tuple[str, float, float, int]]
) -> None:
    written = {step: load_checkpoint(saved / name) for name, step in names().items()}
    contents = {step: content(document) for step, document in written.items()}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "checkpoints"
        shutil.copytree(saved, directory)
        for each in happened:
            damage(directory, *each)
        intact = [step for name, step in names().items() if valid(directory / name, contents)]
        accepted: list[tuple[int, str]] = []
        reported: list[str] = []

        def accept(document: dict[str, Any]) -> None:
            accepted.append((document["step"], content(document)))

        used = directory
        try:
            used = load_newest_valid(directory / LATEST, accept, reported.append)
        except UserError as error:
            reported.append(str(error))
            assert not intact
        assert all("\n" not in line for line in reported)
        if not accepted:
            return
        step, found = accepted[-1]
        assert contents[step] == found, "exactly what was saved at that step"
        if used.name == LATEST:
            assert reported == []
            return
        assert step == max(intact), "the newest valid one"
        (line,) = reported
        assert line.endswith(f"; {used.name} is used instead")


def names() -> dict[str, int]:
    return {numbered_name(200): 200, numbered_name(300): 300, numbered_name(100): 100, BEST: 200, LATEST: 400}


def valid(path: Path, contents: dict[int, str]) -> bool:
    """Whether a file contains what was saved under its name."""
    try:
        document = load_checkpoint(path)
        return content(document) == contents[names()[path.name]]
    except DamagedError:
        return False
    except UserError:
        assert not path.exists()
        return False


class TestForgeries:
    def forged(self, directory: Path, segment: bytes) -> Path:
        """A checkpoint with a valid checksum that names a segment with a valid name."""
        digest = hashlib.blake2b(segment, digest_size=16).hexdigest()
        name = f"{0:012d}-{32:012d}-{digest}.npz"
        (directory / segments.FOLDER).mkdir()
        (directory / segments.FOLDER / name).write_bytes(segment)
        place = {"start": 0, "stop": 32, "row_bytes": 8, "segments": [[0, 32, name]]}
        rows = {SNAPSHOT: True, **place, "tail": {"x": torch.zeros(0)}}
        path = directory / LATEST
        path.write_bytes(encode({"step": 1, "names": [], "source": {}, "state": {"replay": {"rows": rows}}}))
        return path

    def test_a_forged_segment_with_a_pickle_inside_is_not_loaded(self, tmp_path: Path):
        victim, buffer = tmp_path / "victim", io.BytesIO()
        np.savez(buffer, x=np.array([Bomb(victim)] * 32, dtype=object), allow_pickle=True)
        document = load_checkpoint(self.forged(tmp_path, buffer.getvalue()))
        with pytest.raises(DamagedError, match="other columns or rows than its checkpoint"):
            document["state"]["replay"]["rows"].all()
        assert not victim.exists()

    def test_a_forged_segment_that_is_a_pickle_is_not_loaded(self, tmp_path: Path):
        victim = tmp_path / "victim"
        document = load_checkpoint(self.forged(tmp_path, pickle.dumps(Bomb(victim))))
        with pytest.raises(DamagedError, match="contains something other than arrays"):
            document["state"]["replay"]["rows"].all()
        assert not victim.exists()

    def test_a_forged_checkpoint_with_a_sparse_tensor_is_reported_as_damaged(self, tmp_path: Path):
        path = tmp_path / LATEST
        document = {"format": FORMAT, "version": VERSION, "state": torch.eye(3).to_sparse()}
        torch.save({**document, "checksum": "0" * 32}, path)
        with pytest.raises(DamagedError, match="something other than tensors and plain values"):
            read_document(path)


COMMAND = [
    *BUDGET,
    "trainer.frequency_unit=steps",
    "trainer.target_return=null",
    "logging=[jsonl,csv]",
    "hydra.run.dir=run",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, and one with another seed."""
    cwd = tmp_path_factory.mktemp("runs")
    for name, more in (("whole", []), ("other", ["seed=1"])):
        folder = cwd / name
        folder.mkdir()
        assert crash.run([*COMMAND, *more], folder) == 0, (folder / "output").read_text()
    return cwd


@pytest.mark.slow
class TestProgramWithDamagedCheckpoints:
    """A run with checkpoints at steps 400 and 800 continues to step 1200."""

    @pytest.fixture
    def half(self, runs: Path, tmp_path: Path) -> Path:
        """The checkpoints of the run just after it saved step 800."""
        shutil.copytree(runs / "whole" / "run", tmp_path / "run")
        checkpoints = tmp_path / "run" / "checkpoints"
        (checkpoints / numbered_name(1200)).unlink()
        shutil.copy(checkpoints / numbered_name(800), checkpoints / LATEST)
        return checkpoints

    @pytest.mark.parametrize("kind", ["truncated", "altered", "missing", "of another step"])
    def test_a_run_with_a_damaged_checkpoint_ends_like_an_uninterrupted_one(
        self, runs: Path, half: Path, program: Callable[..., Outcome], kind: str
    ):
        """The checkpoint of step 800 is damaged under all of its names."""
        data, older = bytearray((half / LATEST).read_bytes()), (half / numbered_name(400)).read_bytes()
        data[len(data) // 2] ^= 1
        for path in (half / LATEST, half / numbered_name(800)):
            path.unlink()
            if kind != "missing":
                new = {"truncated": bytes(data[:-100]), "altered": bytes(data), "of another step": older}[
                    kind
                ]
                path.write_bytes(new)
        done = program(*COMMAND)
        assert done.status == 0, done.err
        assert "Traceback" not in done.err
        if kind != "of another step":
            assert "checkpoint_0000000400.pt is used instead" in done.err
        found = crash.differences(runs / "whole" / "run", half.parent)
        assert [line for line in found if not line.startswith("the checkpoints are")] == []

    def test_a_latest_checkpoint_of_another_run_is_rejected(
        self, runs: Path, half: Path, program: Callable[..., Outcome]
    ):
        shutil.copy(runs / "other" / "run" / "checkpoints" / LATEST, half / LATEST)
        before = {path: path.read_bytes() for path in half.rglob("*") if path.is_file()}
        error = program(*COMMAND).error
        assert "is not of the run in" in error
        assert "resuming from it would change seed from 1 to 0. To continue it, copy it" in error
        unchanged = {path: path.read_bytes() == data for path, data in before.items()}
        assert all(unchanged.values()), unchanged

    def test_older_checkpoints_of_another_run_are_skipped(
        self, runs: Path, half: Path, program: Callable[..., Outcome]
    ):
        (half / LATEST).unlink()
        (half / LATEST).write_bytes(b"damage")
        foreign = runs / "other" / "run" / "checkpoints" / numbered_name(800)
        (half / numbered_name(800)).unlink()
        shutil.copy(foreign, half)
        done = program(*COMMAND)
        assert done.status == 0, done.err
        (reported,) = (line for line in done.err.splitlines() if "used instead" in line)
        reason = "resuming from it would change seed from 1 to 0"
        assert f"{numbered_name(800)} is of another run: {reason}" in reported
        assert reported.endswith(f"; {numbered_name(400)} is used instead")
        found = crash.differences(runs / "whole" / "run", half.parent)
        assert [line for line in found if not line.startswith("the checkpoints are")] == []
        renamed = half / f"superseded_{numbered_name(800)}"
        assert renamed.read_bytes() == foreign.read_bytes(), "the file of the other run is kept"

    def test_the_error_lists_the_damaged_checkpoint_and_those_of_another_run(
        self, runs: Path, half: Path, program: Callable[..., Outcome]
    ):
        for path in half.glob("*.pt"):
            path.unlink()
        (half / LATEST).write_bytes(b"damage")
        for step in (400, 800):
            shutil.copy(runs / "other" / "run" / "checkpoints" / numbered_name(step), half)
        error = program(*COMMAND).error
        assert "latest.pt: the file is cut short" in error
        assert error.count("is of another run") == 2

    def test_a_damaged_run_json_is_reported_and_may_be_removed(
        self, runs: Path, half: Path, program: Callable[..., Outcome]
    ):
        """It records the provenance of the run; the run resumes without it."""
        run_json = half.parent / "run.json"
        run_json.write_text("{")
        assert crash.run(COMMAND, half.parent.parent) == 2
        output = (half.parent.parent / "output").read_text()
        assert f"{run_json.name} is damaged: " in output.partition("error: ")[2]
        run_json.unlink()
        assert program(*COMMAND).status == 0
        assert crash.differences(runs / "whole" / "run", half.parent) == []

    def test_the_error_is_one_line_if_every_checkpoint_is_damaged(
        self, half: Path, program: Callable[..., Outcome]
    ):
        for path in half.glob("*.pt"):
            path.write_bytes(b"damage")
        assert "cut short or not a checkpoint" in program(*COMMAND).error


class TestScriptWithDamagedCheckpoints:
    """A run of the Python API, whose checkpoints contain the agent instead of a configuration."""

    def trainer(self, run_dir: Path, learning_rate: float, steps: int = 20) -> Trainer:
        exploration = EpsilonGreedy(schedule=Constant(value=1.0))
        agent = DQNAgent(
            DQNConfig(
                state_dim=4,
                action_dim=2,
                learning_rate=learning_rate,
                learning_starts=5,
                batch_size=4,
                exploration=exploration,
            )
        )
        config = TrainingConfig(
            frequency_unit=FrequencyUnit.steps,
            max_steps=steps,
            checkpoint_frequency=8,
            eval_frequency=100,
            eval_episodes=1,
        )
        return Trainer(agent, gymnasium.make("CartPole-v1"), config, run_dir, loggers={})

    @pytest.fixture
    def damaged(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A run directory whose latest.pt is damaged and whose checkpoint before it is of another agent."""
        monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)
        for name, learning_rate in (("run", 1e-3), ("other", 1e-4)):
            self.trainer(tmp_path / name, learning_rate).train()
        checkpoints = tmp_path / "run" / "checkpoints"
        for name in (LATEST, BEST):
            (checkpoints / name).unlink()
        (checkpoints / LATEST).write_bytes(b"damage")
        (checkpoints / numbered_name(16)).unlink()
        shutil.copy(tmp_path / "other" / "checkpoints" / numbered_name(16), checkpoints)
        return tmp_path / "run"

    def test_an_older_checkpoint_of_another_agent_is_skipped(self, damaged: Path):
        trainer = self.trainer(damaged, 1e-3, steps=30)
        assert trainer.train().steps == 30
        (notice,) = trainer.directory.notices
        assert f"{numbered_name(16)} is of another run: its agent differs: " in notice
        assert "agent.learning_rate: 0.0001 -> 0.001" in notice
        assert notice.endswith(f"; {numbered_name(8)} is used instead")

    def test_a_requested_checkpoint_of_another_agent_is_loaded(self, damaged: Path):
        trainer = self.trainer(damaged, 1e-3)
        trainer.resume(damaged / "checkpoints" / numbered_name(16))
        assert trainer.step == 16
        trainer.directory.unlock()


def test_a_checkpoint_without_the_state_of_a_logger_is_damaged(
    finished_run: Path, program: Callable[..., Outcome], tmp_path: Path
) -> None:
    """The logger would overwrite its file."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    path = run / "checkpoints" / "latest.pt"
    document = torch.load(path, weights_only=True)
    del document["state"]["progress"]["loggers"]["jsonl"]
    del document["checksum"]
    document["checksum"] = checksum(document)
    path.unlink()
    torch.save(document, path)
    before = records(run)
    assert program("resume=run", "trainer.max_steps=1600").status == 0
    notices = read_json(run / "run.json")["sessions"][-1]["notices"]
    assert any("state.progress.loggers lacks jsonl" in notice for notice in notices)
    assert records(run)[: len(before) // 2] == before[: len(before) // 2]
