"""The format of checkpoint files: exact content, no code, clear errors for anything else."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner.checkpointing.checkpointer import Checkpointer
from dqn_runner.checkpointing.format import DTYPES, FORMAT, VERSION, checksum, load_checkpoint
from dqn_runner.checkpointing.names import LATEST, numbered_name
from dqn_runner.core.exceptions import UserError
from tests.support.checkpoints import PAYLOAD, Bomb, save


def load_error(path: Path) -> str:
    """The message for a file that is not a valid checkpoint, in one line that names it."""
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


class TestContent:
    def test_a_loaded_checkpoint_equals_the_saved_state(self, tmp_path: Path):
        save(Checkpointer(tmp_path, keep_last=0), PAYLOAD, 42, [LATEST])
        document = load_checkpoint(tmp_path / LATEST)
        assert document["step"] == 42
        assert document["source"] == PAYLOAD["source"]
        for key, value in PAYLOAD["state"].items():
            loaded = np.asarray(document["state"][key])
            assert loaded.dtype == np.asarray(value).dtype
            assert loaded.tolist() == value.tolist()

    @pytest.mark.parametrize("code", np.typecodes["All"])
    def test_what_can_be_saved_can_be_loaded(self, code: str, tmp_path: Path):
        """Every dtype of numpy, also in another byte order; or an error before anything is written."""
        dtype = np.dtype(code)
        for value in (np.zeros(3, dtype), np.zeros((2, 1), dtype.newbyteorder(">"))):
            document = {"state": {"x": value}, "source": {}}
            if dtype.kind in "OSUVMm" or dtype.itemsize * 8 not in (8, 16, 32, 64, 128) or code in "HILQPNgG":
                with pytest.raises(UserError, match=r"state\.x is an array of \w+; checkpoints hold bool, "):
                    save(Checkpointer(tmp_path, keep_last=0), document, 1, [LATEST])
                assert not (tmp_path / LATEST).exists()
            else:
                save(Checkpointer(tmp_path, keep_last=0), document, 1, [LATEST])
                loaded = np.asarray(load_checkpoint(tmp_path / LATEST)["state"]["x"])
                assert loaded.tolist() == value.tolist()
                assert loaded.dtype == dtype

    @pytest.mark.parametrize("name", DTYPES)
    def test_tensors_of_every_stored_dtype_come_back(self, name: str, tmp_path: Path):
        for shape in [(), (0,), (2, 3)]:
            value = torch.ones(shape, dtype=getattr(torch, name))
            save(Checkpointer(tmp_path, keep_last=0), {"state": {"x": value}, "source": {}}, 1, [LATEST])
            loaded = load_checkpoint(tmp_path / LATEST)["state"]["x"]
            assert loaded.dtype == value.dtype
            assert loaded.shape == value.shape
            assert loaded.equal(value)

    @pytest.mark.parametrize("key", [1, None, ("a", 1)])
    def test_keys_that_are_not_texts_are_rejected(self, key: Any, tmp_path: Path):
        with pytest.raises(UserError, match=r"state\.a has the key .*, which is not a text"):
            save(Checkpointer(tmp_path, keep_last=0), {"state": {"a": {key: 1}}, "source": {}}, 1, [LATEST])

    def test_plain_torch_loads_a_checkpoint_without_pickle(self, tmp_path: Path):
        save(Checkpointer(tmp_path, keep_last=0), PAYLOAD, 42, [LATEST])
        document = torch.load(tmp_path / LATEST, weights_only=True)
        assert document["format"] == FORMAT
        assert document["version"] == VERSION

    def test_a_view_is_saved_without_the_rest_of_its_array(self, tmp_path: Path):
        everything = np.zeros((1000, 1000))
        save(Checkpointer(tmp_path, keep_last=0), {"state": {"rows": everything[:2]}}, 1, [LATEST])
        assert (tmp_path / LATEST).stat().st_size < 100_000

    @pytest.mark.parametrize("number", [np.float64(1.5), np.float32(1.5), np.int64(3), np.bool_(True)])
    def test_numpy_scalars_are_saved_as_plain_numbers(self, tmp_path: Path, number: Any):
        save(Checkpointer(tmp_path, keep_last=0), {"state": {"mean": number}}, 1, [LATEST])
        loaded = load_checkpoint(tmp_path / LATEST)["state"]["mean"]
        assert np.asarray(loaded).item() == number.item()

    @pytest.mark.parametrize(
        ("state", "where"),
        [
            ({"loggers": {"mine": {"handle": object()}}}, "state.loggers.mine.handle is a object"),
            ({"windows": [[1], [2, {3}]]}, "state.windows[1][1] is a set"),
        ],
    )
    def test_the_error_for_a_value_that_cannot_be_saved_names_its_path(
        self, tmp_path: Path, state: Any, where: str
    ):
        with pytest.raises(UserError) as caught:
            save(Checkpointer(tmp_path, keep_last=0), {"state": state}, 1, [LATEST])
        assert where in str(caught.value)


class TestInvalidFiles:
    @pytest.fixture
    def good(self, tmp_path: Path) -> Path:
        save(Checkpointer(tmp_path, keep_last=1), PAYLOAD, 42, [numbered_name(42), LATEST])
        return tmp_path / LATEST

    def test_a_truncated_checkpoint_is_rejected_and_the_error_lists_the_others(self, good: Path):
        good.write_bytes(good.read_bytes()[:-200])
        message = load_error(good)
        assert "the file is cut short or not a checkpoint" in message
        assert message.endswith(f"; available in {good.parent}: {numbered_name(42)}")

    @pytest.mark.parametrize(
        "content", [b"", b"\x80\x04", b"not a checkpoint", b"PK\x03\x04 but not an archive"]
    )
    def test_a_file_that_is_not_a_checkpoint_is_rejected(self, tmp_path: Path, content: bytes):
        path = tmp_path / "weights.pt"
        path.write_bytes(content)
        assert "the file is cut short or not a checkpoint" in load_error(path)

    @pytest.mark.parametrize("document", [{"model": {}}, [1, 2], torch.zeros(3), {"format": "another"}])
    def test_a_torch_file_of_another_program_is_rejected(self, tmp_path: Path, document: Any):
        path = tmp_path / "weights.pt"
        torch.save(document, path)
        assert load_error(path) == f"{path} is not a checkpoint of dqn_runner"

    @staticmethod
    def of_version(version: int, path: Path) -> Path:
        content = {"format": FORMAT, "version": version, "state": {}}
        torch.save({**content, "checksum": checksum(content)}, path)
        return path

    def test_a_checkpoint_of_an_earlier_format_version_is_rejected(self, tmp_path: Path):
        path = self.of_version(VERSION - 1, tmp_path / "old.pt")
        assert load_error(path) == (
            f"{path} was written by an earlier version of dqn_runner (checkpoint format {VERSION - 1}, "
            f"this one reads {VERSION}); use that version, or start over in another output directory"
        )

    def test_a_checkpoint_of_a_later_format_version_is_rejected(self, tmp_path: Path):
        path = self.of_version(VERSION + 1, tmp_path / "new.pt")
        assert load_error(path) == (
            f"{path} was written by a later version of dqn_runner (checkpoint format {VERSION + 1}, this one "
            f"reads {VERSION}); update dqn_runner"
        )

    def test_the_error_for_a_missing_checkpoint_lists_the_others(self, good: Path):
        message = load_error(good.parent / "checkpoint_7.pt")
        assert "checkpoint_7.pt does not exist; " in message
        assert message.endswith(f"; available in {good.parent}: {numbered_name(42)}, {LATEST}")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_malicious_torch_file_executes_nothing(self, tmp_path: Path, zipped: bool):
        path, victim = tmp_path / "evil.pt", tmp_path / "victim"
        document = {"format": FORMAT, "version": VERSION, "state": Bomb(victim)}
        torch.save(document, path, _use_new_zipfile_serialization=zipped)
        load_error(path)
        assert not victim.exists()

    def test_a_malicious_pickle_executes_nothing(self, tmp_path: Path):
        path, victim = tmp_path / "evil.pt", tmp_path / "victim"
        path.write_bytes(pickle.dumps(Bomb(victim)))
        load_error(path)
        assert not victim.exists()


class TestLoadedCheckpoint:
    def test_a_loaded_checkpoint_survives_when_its_file_is_replaced_or_removed(self, tmp_path: Path):
        """Loading may map the file into memory, while the run continues to write."""
        checkpointer = Checkpointer(tmp_path, keep_last=0)
        save(checkpointer, {"state": {"weights": torch.arange(100_000.0)}}, 1, [LATEST])
        weights = load_checkpoint(tmp_path / LATEST)["state"]["weights"]
        save(checkpointer, {"state": {"weights": torch.zeros(100_000)}}, 2, [LATEST])
        assert weights.equal(torch.arange(100_000.0))
        (tmp_path / LATEST).unlink()
        assert weights.equal(torch.arange(100_000.0))

    def test_a_checkpoint_is_loaded_without_a_warning(self, tmp_path: Path):
        save(Checkpointer(tmp_path, keep_last=0), PAYLOAD, 1, [LATEST])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_checkpoint(tmp_path / LATEST)
