"""Loggers: what they write, where they go on after a resume, and that none of them can stop a run."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqn_runner.core.log import log
from dqn_runner.core.records import Record, RunInfo
from dqn_runner.loggers.base import Logger, LoggerPart
from dqn_runner.loggers.console import Console, format_record
from dqn_runner.loggers.files import Csv, JsonLines, TextFile
from dqn_runner.loggers.logger_group import LoggerGroup
from dqn_runner.training.metrics import METRIC_KEYS
from tests.conftest import BUDGET, Outcome, environment, run_cli, write_my_env

INFO = RunInfo(name="run", config={}, unit="steps", total=1200, metric_keys=METRIC_KEYS)
TRAIN = Record(
    "train",
    12_000,
    345,
    {
        "train/epsilon": 0.05,
        "train/return_mean_100": 123.456,
        "train/length_mean_100": 123.456,
        "train/loss": 0.000123456,
        "train/q_mean": 45.678,
        "train/grad_norm": 1.5,
        "time/elapsed": 12.5,
        "time/eta": 3725.4,
        "time/steps_per_second": 4321.0,
    },
)
EVAL = Record("eval", 2_000, 50, {"eval/return_mean": 475.5, "eval/return_std": 12.0})
EPISODE = Record("episode", 15, 1, {"train/return": 15.0, "train/length": 15.0})


def write(part: LoggerPart, run_dir: Path, *records: Record, state: Any = None) -> list[dict[str, Any]]:
    """Open `part`, write `records`; returns its state before and after each."""
    sink = part.open(run_dir, INFO, state)
    states = [sink.state_dict()]
    for record in records:
        sink.write(record)
        states.append(sink.state_dict())
    sink.close(failed=False)
    return states


def step(number: int, value: float) -> Record:
    return Record("episode", number, number, {"train/return": value, "train/length": 1.0})


class TestLinesForPeople:
    def test_a_training_line(self):
        assert format_record(TRAIN) == (
            "train step 12,000 episode 345: return 123.5, loss 0.0001235, Q 45.68, epsilon 0.05, "
            "4,321 steps/s, ETA 1:02:05"
        )

    def test_an_evaluation_line(self):
        assert format_record(EVAL) == "eval  step 2,000 episode 50: mean return 475.5, std 12"

    def test_before_anything_was_learned(self):
        record = Record("train", 10, 0, {"train/epsilon": 1.0, "time/elapsed": 0.1})
        assert format_record(record) == "train step 10 episode 0: epsilon 1"

    def test_an_unknown_eta_is_left_out(self):
        """Before the first episode ends, a budget of episodes tells nothing about the time."""
        record = Record("train", 10, 0, {"train/epsilon": 1.0, "time/eta": math.nan})
        assert format_record(record) == "train step 10 episode 0: epsilon 1"

    def test_a_budget_of_episodes_longer_than_the_log_interval(self, program: Callable[..., Outcome]):
        budget = ("trainer.max_steps=null", "trainer.max_episodes=1", "trainer.eval_episodes=1")
        done = program("env=acrobot", *BUDGET, *budget, "logging=[console,jsonl,csv]")
        assert done.status == 0, done.err


class TestConsole:
    def test_plain_lines_where_there_is_no_terminal(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        sink = Console().open(tmp_path, INFO, None)
        for record in (EPISODE, TRAIN, EVAL):
            sink.write(record)
        log.info("a word")
        sink.close(failed=False)
        log.info("a word after the end")
        shown = capsys.readouterr().err
        assert shown.splitlines() == [format_record(TRAIN), format_record(EVAL), "a word"]

    @pytest.mark.slow
    def test_a_progress_bar_on_a_terminal(self, tmp_path: Path):
        status, shown = on_a_terminal(tmp_path, *BUDGET, "hydra.run.dir=run")
        assert status == 0
        assert HIDE_CURSOR in shown
        assert shown.count(SHOW_CURSOR) == 1
        text = plain(shown)
        assert "steps ━" in text
        assert "1200/1200 return" in text
        assert "eval step 400 episode" in text
        assert re.search(r"ETA \d:\d\d:\d\d", text)
        assert re.search(r"best evaluation .* at step ", text.partition(SHOW_CURSOR)[2] or text)

    @pytest.mark.slow
    def test_the_bar_is_closed_when_a_run_fails(self, tmp_path: Path):
        write_my_env(tmp_path)
        (tmp_path / "broken").touch()
        status, shown = on_a_terminal(
            tmp_path, "env.id=my_pkg.envs.MyEnv", "env.kwargs.at=650", "trainer.retry_env=false", *BUDGET
        )
        assert status == 1
        bar, _, after = shown.rpartition(SHOW_CURSOR)
        assert HIDE_CURSOR in bar
        assert HIDE_CURSOR not in after
        assert "RuntimeError: the sensor is lost" in plain(bar), "the traceback is above the bar"
        assert "error: the run failed: RuntimeError: the sensor is lost" in plain(after)

    def test_the_bar_can_be_turned_off(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        stderr = io.StringIO()
        monkeypatch.setattr(stderr, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stderr", stderr)
        write(Console(progress_bar=False), tmp_path, TRAIN)
        assert stderr.getvalue() == format_record(TRAIN) + "\n"


HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def on_a_terminal(cwd: Path, *args: str) -> tuple[int, str]:
    """Exit status of the program, and what a terminal of 160 columns gets to show."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "dqn_runner", *args]
    variables = environment(TERM="xterm", COLUMNS="160", LINES="40")
    with subprocess.Popen(
        command, cwd=cwd, env=variables, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while chunk := read_terminal(ours):
            shown += chunk
        os.close(ours)
        return process.wait(), shown.decode()


def read_terminal(descriptor: int) -> bytes:
    """What has come since; nothing once the other side is closed."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def plain(shown: str) -> str:
    """Without colours and cursor movements, single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown))


class TestTextFile:
    def test_messages_and_records_with_the_time(self, tmp_path: Path):
        for word in ("first session", "second session"):
            sink = TextFile().open(tmp_path, INFO, None)
            sink.write(TRAIN)
            log.warning(word)
            sink.close(failed=False)
        lines = (tmp_path / "logs" / "training.log").read_text().splitlines()
        times = [re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (\w+) +(.*)", line) for line in lines]
        assert [match.groups() for match in times if match] == [
            ("INFO", format_record(TRAIN)),
            ("WARNING", "first session"),
            ("INFO", format_record(TRAIN)),
            ("WARNING", "second session"),
        ]

    def test_closing_leaves_no_handler(self, tmp_path: Path):
        before = list(log.handlers)
        write(TextFile(), tmp_path, TRAIN)
        write(Console(), tmp_path, TRAIN)
        assert log.handlers == before


class TestFilesGoOnWhereTheCheckpointLeftThem:
    @pytest.mark.parametrize(("part", "name"), [(JsonLines(), "metrics.jsonl"), (Csv(), "metrics.csv")])
    def test_cut_back_to_the_checkpoint(self, tmp_path: Path, part: LoggerPart, name: str):
        (tmp_path / "whole").mkdir()
        write(part, tmp_path / "whole", step(1, 1.0), step(2, 2.0), step(3, 3.0))

        (tmp_path / "parts").mkdir()
        states = write(part, tmp_path / "parts", step(1, 1.0), step(2, -2.0), step(3, -3.0), step(4, -4.0))
        write(part, tmp_path / "parts", step(2, 2.0), step(3, 3.0), state=states[1])
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    @pytest.mark.parametrize(("part", "name"), [(JsonLines(), "metrics.jsonl"), (Csv(), "metrics.csv")])
    def test_a_new_run_begins_a_new_file(self, tmp_path: Path, part: LoggerPart, name: str):
        write(part, tmp_path, step(1, 1.0))
        once = (tmp_path / name).read_bytes()
        write(part, tmp_path, step(1, 1.0))
        assert (tmp_path / name).read_bytes() == once

    @pytest.mark.parametrize("part", [JsonLines(), Csv()])
    def test_every_record_is_on_disk_at_once(self, tmp_path: Path, part: LoggerPart):
        sink = part.open(tmp_path, INFO, None)
        sink.write(EPISODE)
        (file,) = tmp_path.iterdir()
        assert b"15" in file.read_bytes()
        sink.close(failed=False)

    def test_a_logger_left_out_for_one_session_keeps_its_file(
        self, program: Callable[..., Outcome], tmp_path: Path
    ):
        assert program(*BUDGET, "logging=[jsonl]", "hydra.run.dir=run").status == 0
        before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
        assert program("resume=run", "logging=[csv]", "trainer.max_steps=1250").status == 0
        assert program("resume=run", "logging=[jsonl]", "trainer.max_steps=1300").status == 0
        after = (tmp_path / "run" / "metrics.jsonl").read_bytes()
        assert after.startswith(before)
        assert len(after) > len(before)


class TestJsonLines:
    def test_one_object_a_line(self, tmp_path: Path):
        write(JsonLines(), tmp_path, EPISODE, EVAL)
        assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
            {"kind": "episode", "step": 15, "episode": 1, "train/return": 15.0, "train/length": 15.0},
            {"kind": "eval", "step": 2000, "episode": 50, **EVAL.values},
        ]

    def test_what_json_cannot_say_is_null(self, tmp_path: Path):
        write(JsonLines(), tmp_path, Record("train", 1, 0, {"time/eta": math.nan, "train/loss": math.inf}))

        def refuse(word: str) -> None:
            raise AssertionError(f"{word} is not JSON")

        (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert json.loads(line, parse_constant=refuse)["train/loss"] is None


class TestCsv:
    def test_a_header_and_a_row_per_record(self, tmp_path: Path):
        write(Csv(), tmp_path, EPISODE, EVAL, TRAIN)
        with (tmp_path / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["kind", "step", "episode", *METRIC_KEYS]
        for row, record in zip(rows, (EPISODE, EVAL, TRAIN), strict=True):
            assert (row["kind"], int(row["step"]), int(row["episode"])) == (
                record.kind,
                record.step,
                record.episode,
            )
            assert {key: float(row[key]) for key in METRIC_KEYS if row[key]} == dict(record.values)

    def test_an_unknown_key_is_refused_by_name(self, tmp_path: Path):
        sink = Csv().open(tmp_path, INFO, None)
        with pytest.raises(KeyError, match="train/surprise"):
            sink.write(Record("train", 1, 1, {"train/surprise": 1.0}))
        sink.close(failed=False)


class Stubborn:
    """A logger that cannot be closed."""

    def __init__(self, closed: list[str]) -> None:
        self.closed = closed

    def open(self, run_dir: Path, info: RunInfo, state: Any) -> Logger:
        return self

    def write(self, record: Record) -> None:
        self.closed.clear()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def close(self, failed: bool) -> None:
        self.closed.append(f"stubborn {failed}")
        raise ConnectionError("the service is gone")


@pytest.fixture(scope="module")
def tracked_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with TensorBoard and W&B offline, resumed once; its directory."""
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
    """Variables that keep W&B from finding an account of whoever runs the tests."""
    return {"NETRC": str(home / "netrc"), "WANDB_CONFIG_DIR": str(home), "WANDB_CACHE_DIR": str(home)}


@pytest.mark.slow
class TestTensorBoard:
    @pytest.fixture
    def scalars(self, tracked_run: Path) -> Any:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        return EventAccumulator(str(tracked_run / "tensorboard"), size_guidance={"scalars": 0}).Reload()

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_events_are_readable_and_go_on_after_a_resume(self, scalars: Any, tracked_run: Path):
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
    def test_an_offline_run_keeps_its_id_when_resumed(self, tracked_run: Path):
        first, second = sorted(path.name for path in (tracked_run / "wandb").glob("offline-run-*"))
        assert first.rpartition("-")[2] == second.rpartition("-")[2]
        for name in (first, second):
            (file,) = (tracked_run / "wandb" / name).glob("*.wandb")
            assert file.stat().st_size > 1000

    def test_configuration_and_records_are_in_it(self, tracked_run: Path):
        first, second = (
            path.read_bytes() for path in sorted(tracked_run.glob("wandb/offline-run-*/*.wandb"))
        )
        for text in (b'"max_steps":1200', b'"tags":["a","b"]', b"dqn_runner.losses.QLearning"):
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

    def test_without_an_account_or_a_network_the_run_goes_on_offline(self, tmp_path: Path):
        nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9", **no_wandb_account(tmp_path)}
        command = (*BUDGET, "logging=[console,file,wandb]", "hydra.run.dir=run")
        done = run_cli(*command, cwd=tmp_path, env=nowhere)
        assert done.status == 0, done.err
        (warning,) = (line for line in done.err.splitlines() if "Weights & Biases" in line)
        assert "the run is kept offline" in warning
        assert "WARNING Weights & Biases" in (tmp_path / "run" / "logs" / "training.log").read_text()
        assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
        assert "best evaluation" in done.out


def test_one_service_that_fails_does_not_cost_the_others(tmp_path: Path):
    closed: list[str] = []
    parts = {"file": TextFile(), "one": Stubborn(closed), "jsonl": JsonLines(), "two": Stubborn(closed)}
    sinks, handlers = LoggerGroup(parts), list(log.handlers)
    sinks.open(tmp_path, INFO)
    sinks.write(EPISODE)
    sinks.close(failed=True)
    assert closed == ["stubborn True", "stubborn True"]
    written = (tmp_path / "logs" / "training.log").read_text()
    assert "logging.one could not be closed" in written
    assert "logging.two could not be closed" in written
    assert "the service is gone" in written
    assert log.handlers == handlers
    assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"\n")
