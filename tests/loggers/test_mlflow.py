"""MLflow, with the real library and a real store, and with a server that fails."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.records import Record, RunInfo
from dqn_runner.loggers import mlflow as mlflow_logger
from dqn_runner.loggers import sender
from dqn_runner.loggers.mlflow import Mlflow
from dqn_runner.loggers.mlflow_run import MlflowRun, Value
from dqn_runner.loggers.sender import Sender
from tests.conftest import BUDGET, Outcome


class Store:
    """Some of the methods of an MlflowClient, which fail while `fails`."""

    def __init__(self) -> None:
        self.metrics: list[tuple[str, float, int]] = []
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.fails = False
        self.rejects_files = False
        self.status = ""
        self.artifacts: list[str] = []
        self.batches: list[int] = []

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if callable(value) and object.__getattribute__(self, "fails"):
            raise ConnectionError("no route to https://me:hunter22@host")
        return value

    def get_experiment_by_name(self, _: str) -> Any:
        return self

    experiment_id = "1"
    run_id = "abc"

    @property
    def info(self) -> Any:
        return self

    @property
    def data(self) -> Any:
        return self

    def create_run(self, _: str, run_name: str, tags: dict[str, str]) -> Any:
        self.tags |= tags
        return self

    def get_run(self, _: str) -> Any:
        return self

    def update_run(self, _: str, status: str) -> None:
        self.status = status

    def set_tag(self, _: str, key: str, value: str) -> None:
        self.tags[key] = value

    def log_dict(self, _: str, content: Any, name: str) -> None:
        if self.rejects_files:
            raise PermissionError("/mlruns")
        json.dumps(content)
        self.artifacts.append(name)

    def log_batch(self, _: str, metrics: Any, params: Any, tags: Any) -> None:
        self.batches += [len(metrics) or len(params)]
        self.metrics += [(m.key, m.value, m.step) for m in metrics]
        self.params |= {p.key: p.value for p in params}
        self.tags |= {t.key: t.value for t in tags}

    def log_artifact(self, _: str, path: str, folder: str | None) -> None:
        self.artifacts.append(Path(path).name)

    def set_terminated(self, _: str, status: str) -> None:
        self.status = status


def a_run(store: Store, params: dict[str, str] | None = None, run_id: str | None = None) -> MlflowRun:
    run = MlflowRun(lambda: store, None, "run", {}, params or {}, {}, None, run_id)
    run.open()
    return run


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return Store()


def values(kind: str, *steps: int) -> list[Value]:
    return [Value(kind, f"{kind}/x", float(step), 0, step) for step in steps]


@pytest.mark.slow
def test_more_settings_than_a_call_takes_and_changed_ones(store: Store) -> None:
    a_run(store, {f"p{n}": "1" for n in range(250)})
    assert store.batches == [100, 100, 50]
    a_run(store, {"p0": "2", "new": "3"}, "abc")
    assert (store.params["p0"], store.params["new"], store.tags["changed.p0"]) == ("1", "3", "2")


@pytest.mark.slow
def test_records_that_the_store_has_are_not_sent_again(store: Store) -> None:
    run = a_run(store)
    run.store_values([*values("episode", 3, 7, 9), *values("eval", 10)])
    again = a_run(store, run_id="abc")
    again.store_values(
        [*values("episode", 7, 9, 12), *values("eval", 10, 20), Value("eval", "n", float("nan"), 0, 20)]
    )
    assert [step for key, _, step in store.metrics if key == "episode/x"] == [3, 7, 9, 12]
    assert [step for key, _, step in store.metrics if key == "eval/x"] == [10, 20]
    run = a_run(store)
    run.store_values(values("train", *range(30, 2540)))
    assert store.batches[-3:] == [1000, 1000, 510]


INFO = RunInfo(name="run", config={"a": {"long": "x" * 9000}}, unit="steps", total=1, metric_keys=())


@pytest.mark.slow
def test_a_server_that_fails_for_a_while_gets_everything_later(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    monkeypatch.setattr("mlflow.tracking.MlflowClient", lambda **_: store)
    monkeypatch.setattr(sender, "_RETRY", (0.01, 0.02))
    store.fails = True
    logger = Mlflow().open(tmp_path, INFO, None)
    logger.write(Record("eval", 5, 1, {"eval/return_mean": 2.0}))
    assert logger.state_dict() == {"id": None}
    store.fails = False
    logger.close(failed=True)
    assert store.metrics == [("eval/return_mean", 2.0, 5)]
    assert store.status == "FAILED"
    assert len(store.params["a.long"]) == 500
    (warning,) = warnings
    assert "MLflow cannot be reached (ConnectionError: no route" in warning
    assert "hunter22" not in warning


@pytest.mark.slow
def test_a_store_that_never_answers_costs_a_run_some_seconds_and_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    def fail(**_: Any) -> None:
        raise ValueError("the database is damaged")

    monkeypatch.setattr("mlflow.tracking.MlflowClient", fail)
    monkeypatch.setattr(mlflow_logger, "_WAIT", 0.1)
    logger = Mlflow().open(tmp_path, INFO, None)
    logger.write(Record("eval", 5, 1, {"eval/return_mean": 2.0}))
    logger.close(failed=False)
    assert len(warnings) == 2
    assert "did not get the last 4 messages" in warnings[1]


def test_calls_beyond_the_most_drop_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked, made = threading.Event(), list[int]()
    each = Sender("server", lambda: (blocked.wait(10), made.append(0))[1])
    monkeypatch.setattr(sender, "MOST", 3)
    for number in range(1, 6):
        each.put(lambda number=number: made.append(number))
    blocked.set()
    each.close(10)
    assert made == [0, 4, 5]


def test_mlflow_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(UserError, match=r"logging=mlflow needs .* pip install 'dqn_runner\[mlflow\]'"):
        Mlflow().open(tmp_path, INFO, None)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_a_real_store_has_a_resumed_run_of_a_sweep_once(
    program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    command = (*BUDGET, "logging=[jsonl,mlflow]", "logging.mlflow.tags.who=me", "hydra.sweep.dir=mine")
    done = program("-m", *command, "seed=0,1")
    assert done.status == 0, done.err
    done = program("resume=mine/0", "trainer.max_steps=1600")
    assert done.status == 0, done.err
    client: Any = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("theirs").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert sorted(runs) == ["0", "1", "mine"]
    parent = runs["mine"].info.run_id
    assert {runs[name].data.tags["mlflow.parentRunId"] for name in "01"} == {parent}
    first = runs["0"]
    assert first.info.status == "FINISHED"
    assert first.data.params["agent.learning_rate"]
    assert (first.data.tags["who"], first.data.tags["changed.trainer.max_steps"]) == ("me", "1600")
    artifacts = {item.path for item in client.list_artifacts(first.info.run_id)}
    assert artifacts >= {"config.json", "metrics.json"}
    lines = [json.loads(line) for line in (tmp_path / "mine/0/metrics.jsonl").read_text().splitlines()]
    for kind, key in (("eval", "eval/return_mean"), ("episode", "train/return")):
        stored = Counter((m.step, m.value) for m in client.get_metric_history(first.info.run_id, key))
        expected = Counter((line["step"], line[key]) for line in lines if line["kind"] == kind)
        assert set(stored.values()) == {1}
        assert expected - stored == Counter()


@pytest.mark.slow
def test_a_store_that_takes_no_files_gets_the_numbers(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    monkeypatch.setattr("mlflow.tracking.MlflowClient", lambda **_: store)
    store.rejects_files = True
    logger = Mlflow().open(tmp_path, INFO, None)
    logger.write(Record("eval", 5, 1, {"eval/return_mean": 2.0}))
    logger.close(failed=False)
    assert [key for key, _, _ in store.metrics] == ["eval/return_mean"]
    assert store.status == "FINISHED"
    (line,) = warnings
    assert line.startswith(
        "MLflow cannot store files (PermissionError: /mlruns); check the artifact location"
    )
