"""TensorBoard and Weights & Biases, with the real libraries."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dqn_runner.core.records import RunInfo
from dqn_runner.loggers.wandb import Wandb, WandbMode
from tests.conftest import BUDGET, run_cli


@pytest.fixture(scope="module")
def tracked_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a run with TensorBoard and offline W&B that was resumed once."""
    cwd = tmp_path_factory.mktemp("tracked")
    command = (*BUDGET, "logging=[console,tensorboard,wandb]", "logging.wandb.mode=offline")
    variables = no_wandb_account(cwd)
    done = run_cli(*command, "logging.wandb.tags=[a,b]", "hydra.run.dir=run", cwd=cwd, env=variables)
    assert done.status == 0, done.err
    assert len(list((cwd / "run" / "wandb").glob("offline-run-*"))) == 1
    done = run_cli("resume=run", "trainer.max_steps=1600", cwd=cwd, env=variables)
    assert done.status == 0, done.err
    return cwd / "run"


def no_wandb_account(home: Path) -> dict[str, str]:
    """Environment variables that hide the W&B account of the user who runs the tests."""
    return {"NETRC": str(home / "netrc"), "WANDB_CONFIG_DIR": str(home), "WANDB_CACHE_DIR": str(home)}


@pytest.mark.slow
class TestTensorBoard:
    @pytest.fixture
    def scalars(self, tracked_run: Path) -> Any:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        return EventAccumulator(str(tracked_run / "tensorboard"), size_guidance={"scalars": 0}).Reload()

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_tensorboard_events_equal_the_metrics_of_a_resumed_run(self, scalars: Any, tracked_run: Path):
        history = json.loads((tracked_run / "metrics.json").read_text())
        evaluations, train, episodes = (history[k] for k in ("evaluations", "train", "episodes"))
        for key, steps, values in (
            ("eval/return_mean", evaluations["step"], evaluations["return_mean"]),
            ("train/loss", train["step"], train["loss"]),
            ("train/return", episodes["step"], episodes["return"]),
        ):
            events = scalars.Scalars(key)
            assert [event.step for event in events] == steps
            assert [event.value for event in events] == pytest.approx(values, rel=1e-6)


@pytest.mark.slow
class TestWandb:
    def test_an_offline_wandb_run_keeps_its_id_when_resumed(self, tracked_run: Path):
        first, second = sorted(path.name for path in (tracked_run / "wandb").glob("offline-run-*"))
        assert first.rpartition("-")[2] == second.rpartition("-")[2]
        for name in (first, second):
            (file,) = (tracked_run / "wandb" / name).glob("*.wandb")
            assert file.stat().st_size > 1000

    def test_a_wandb_run_contains_the_configuration_and_the_records(self, tracked_run: Path):
        first, second = (
            path.read_bytes() for path in sorted(tracked_run.glob("wandb/offline-run-*/*.wandb"))
        )
        for text in (b'"max_steps":1200', b'"tags":["a","b"]', b"agent/loss=q_learning"):
            assert text in first
        history = json.loads((tracked_run / "metrics.json").read_text())
        for content, epsilon, losses in (
            (first, 0.62, history["train"]["loss"][:6]),
            (second, 0.05, history["train"]["loss"][6:]),
        ):
            assert b"train/epsilon" in content
            assert str(epsilon).encode() in content
            for key in (b"eval/return_mean", b"train/return", b"episode"):
                assert key in content
            assert all(json.dumps(loss).encode() in content for loss in losses)

    def test_a_wandb_run_without_an_account_or_a_connection_is_stored_offline(self, tmp_path: Path):
        nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9", **no_wandb_account(tmp_path)}
        command = (*BUDGET, "logging=[console,file,wandb]", "hydra.run.dir=run")
        done = run_cli(*command, cwd=tmp_path, env=nowhere)
        assert done.status == 0, done.err
        (warning,) = (line for line in done.err.splitlines() if "Weights & Biases" in line)
        assert "the run is stored offline" in warning
        assert "WARNING Weights & Biases" in (tmp_path / "run" / "logs" / "training.log").read_text()
        assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
        assert "best evaluation" in done.out


class _FakeWandb:
    """Records the arguments of `wandb.init`."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.unreachable = False

    def init(self, **arguments: Any) -> Any:
        self.calls.append(arguments)
        if self.unreachable and arguments["mode"] == "online":
            raise ConnectionError("no route")
        return self

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802, the name is that of wandb
        return settings


VARIABLES = {
    "WANDB_PROJECT": "project",
    "WANDB_NAME": "name",
    "WANDB_RUN_GROUP": "group",
    "WANDB_DIR": "dir",
    "WANDB_MODE": "mode",
    "WANDB_TAGS": "tags",
    "WANDB_ENTITY": "entity",
}


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> _FakeWandb:
    for variable in (*VARIABLES, "WANDB_CONSOLE", "WANDB_SILENT", "WANDB_INIT_TIMEOUT"):
        monkeypatch.delenv(variable, raising=False)
    fake = _FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)  # pyright: ignore[reportArgumentType]
    return fake


INFO = RunInfo(name="run", group="sweep", unit="steps", total=1, config={}, metric_keys=())


def test_wandb_gets_our_defaults_where_nothing_is_set(fake_wandb: _FakeWandb, tmp_path: Path) -> None:
    Wandb().open(tmp_path, INFO, None)
    (call,) = fake_wandb.calls
    expected = ("dqn_runner", "run", "sweep", str(tmp_path), "online", None, None)
    assert tuple(call[argument] for argument in VARIABLES.values()) == expected
    assert call["settings"] == {"console": "off", "silent": True, "init_timeout": 30}


@pytest.mark.parametrize("variable", VARIABLES)
def test_wandb_takes_from_the_environment_what_the_configuration_does_not_set(
    fake_wandb: _FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "offline")
    Wandb().open(tmp_path, INFO, None)
    assert fake_wandb.calls[0][VARIABLES[variable]] is None, "None lets W&B read the variable"


def test_the_configuration_of_wandb_precedes_the_environment(
    fake_wandb: _FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "theirs")
    monkeypatch.setenv("WANDB_SILENT", "false")
    ours = Wandb(project="p", name="n", group="g", tags=["t"], entity="e", mode=WandbMode.offline)
    ours.open(tmp_path, INFO, {"id": "abc"})
    (call,) = fake_wandb.calls
    assert [call[k] for k in ("project", "name", "group", "tags", "entity", "mode", "id", "resume")] == [
        *("p", "n", "g", ["t"], "e", "offline", "abc", "allow")
    ]
    assert call["settings"] == {"console": "off", "init_timeout": 30}


def test_a_wandb_that_cannot_be_reached_is_stored_offline(fake_wandb: _FakeWandb, tmp_path: Path) -> None:
    fake_wandb.unreachable = True
    Wandb().open(tmp_path, INFO, None)
    assert [call["mode"] for call in fake_wandb.calls] == ["online", "offline"]
