"""Loggers that write files: their content, and how it continues after a resume."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dqn_runner.core.log import log
from dqn_runner.core.records import Record
from dqn_runner.loggers.appended_file import AppendedFile
from dqn_runner.loggers.base import LoggerPart
from dqn_runner.loggers.console import Console
from dqn_runner.loggers.files import Csv, JsonLines, TextFile
from dqn_runner.loggers.text_log import format_record
from dqn_runner.training.metrics import METRIC_KEYS
from tests.conftest import BUDGET, Outcome
from tests.support.records import EPISODE, EVAL, INFO, TRAIN, episode, write


class TestTextFile:
    def test_the_text_log_contains_messages_and_records_with_their_time(self, tmp_path: Path):
        for message in ("first session", "second session"):
            logger = TextFile().open(tmp_path, INFO, None)
            logger.write(TRAIN)
            log.warning(message)
            logger.close(failed=False)
        lines = (tmp_path / "logs" / "training.log").read_text().splitlines()
        lines_with_time = [
            re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (\w+) +(.*)", line) for line in lines
        ]
        assert [match.groups() for match in lines_with_time if match] == [
            ("INFO", format_record(TRAIN)),
            ("WARNING", "first session"),
            ("INFO", format_record(TRAIN)),
            ("WARNING", "second session"),
        ]

    def test_closing_a_logger_removes_its_handler(self, tmp_path: Path):
        before = list(log.handlers)
        write(TextFile(), tmp_path, TRAIN)
        write(Console(), tmp_path, TRAIN)
        assert log.handlers == before


class TestResume:
    @pytest.mark.parametrize(("part", "name"), [(JsonLines(), "metrics.jsonl"), (Csv(), "metrics.csv")])
    def test_a_resumed_file_is_truncated_to_the_checkpoint(self, tmp_path: Path, part: LoggerPart, name: str):
        (tmp_path / "whole").mkdir()
        write(part, tmp_path / "whole", episode(1, 1.0), episode(2, 2.0), episode(3, 3.0))

        (tmp_path / "parts").mkdir()
        states = write(
            part, tmp_path / "parts", episode(1, 1.0), episode(2, -2.0), episode(3, -3.0), episode(4, -4.0)
        )
        write(part, tmp_path / "parts", episode(2, 2.0), episode(3, 3.0), state=states[1])
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    @pytest.mark.parametrize(("part", "name"), [(JsonLines(), "metrics.jsonl"), (Csv(), "metrics.csv")])
    def test_a_new_run_starts_a_new_file(self, tmp_path: Path, part: LoggerPart, name: str):
        write(part, tmp_path, episode(1, 1.0))
        once = (tmp_path / name).read_bytes()
        write(part, tmp_path, episode(1, 1.0))
        assert (tmp_path / name).read_bytes() == once

    @pytest.mark.parametrize("part", [JsonLines(), Csv()])
    def test_every_record_is_written_to_disk_immediately(self, tmp_path: Path, part: LoggerPart):
        logger = part.open(tmp_path, INFO, None)
        logger.write(EPISODE)
        (file,) = tmp_path.iterdir()
        assert b"15" in file.read_bytes()
        logger.close(failed=False)

    def test_a_logger_that_one_session_does_not_use_keeps_its_file(
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
    def test_jsonl_contains_one_object_per_line(self, tmp_path: Path):
        write(JsonLines(), tmp_path, EPISODE, EVAL)
        assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
            {"kind": "episode", "step": 15, "episode": 1, "train/return": 15.0, "train/length": 15.0},
            {"kind": "eval", "step": 2000, "episode": 50, **EVAL.values},
        ]

    def test_jsonl_contains_null_for_nan_and_infinity(self, tmp_path: Path):
        write(JsonLines(), tmp_path, Record("train", 1, 0, {"time/eta": math.nan, "train/loss": math.inf}))

        def reject(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert json.loads(line, parse_constant=reject)["train/loss"] is None


class TestCsv:
    def test_csv_contains_a_header_and_a_row_per_record(self, tmp_path: Path):
        write(Csv(), tmp_path, EPISODE, EVAL, TRAIN)
        rows = rows_of(tmp_path)
        assert list(rows[0]) == ["kind", "step", "episode", *METRIC_KEYS]
        for row, record in zip(rows, (EPISODE, EVAL, TRAIN), strict=True):
            assert (row["kind"], int(row["step"]), int(row["episode"])) == (
                record.kind,
                record.step,
                record.episode,
            )
            assert {key: float(row[key]) for key in METRIC_KEYS if row[key]} == dict(record.values)

    def test_a_new_key_adds_the_last_column_to_all_rows(self, tmp_path: Path):
        surprise = Record("train", 1, 1, {"train/loss": 0.5, "train/metrics/a": 1.0, "train/metrics/b": 2.0})
        write(Csv(), tmp_path, EPISODE, surprise, surprise)
        rows = rows_of(tmp_path)
        assert [row["train/loss"] for row in rows] == ["", "0.5", "0.5"]
        assert [row["train/metrics/b"] for row in rows] == ["", "2.0", "2.0"]
        expected = ["kind", "step", "episode", *METRIC_KEYS, "train/metrics/a", "train/metrics/b"]
        assert list(rows[0]) == expected

    @pytest.mark.parametrize("at", range(5))
    def test_a_csv_file_resumed_at_any_record_ends_with_the_same_bytes(self, tmp_path: Path, at: int):
        records = [
            EPISODE,
            Record("train", 20, 2, {"train/loss": 0.5, "train/metrics/a": 1.0}),
            EVAL,
            Record("eval", 40, 4, {"eval/metrics/b": 3.0}),
        ]
        for name in ("whole", "parts"):
            (tmp_path / name).mkdir()
        write(Csv(), tmp_path / "whole", *records)
        states = write(Csv(), tmp_path / "parts", *records)
        write(Csv(), tmp_path / "parts", *records[at:], state=states[at])
        assert (tmp_path / "parts/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()

    def test_csv_columns_are_the_metric_keys_that_the_run_declares(self, tmp_path: Path):
        info = replace(INFO, metric_keys=("train/loss", "my/key"))
        logger = Csv().open(tmp_path, info, None)
        logger.write(Record("train", 1, 1, {"my/key": 2.0}))
        logger.close(failed=False)
        expected = {"kind": "train", "step": "1", "episode": "1", "train/loss": "", "my/key": "2.0"}
        assert rows_of(tmp_path) == [expected]

    def test_a_resumed_csv_file_keeps_the_order_of_its_columns(self, tmp_path: Path):
        state = write(Csv(), tmp_path, EPISODE, TRAIN)[1]
        info = replace(INFO, metric_keys=("train/new", *METRIC_KEYS))
        logger = Csv().open(tmp_path, info, state)
        logger.write(Record("train", 20, 2, {"train/loss": 0.5, "train/new": 1.0}))
        logger.close(failed=False)
        first, second = rows_of(tmp_path)
        assert list(first) == ["kind", "step", "episode", *METRIC_KEYS, "train/new"]
        assert first["train/return"] == "15.0"
        assert (second["kind"], second["step"], second["train/loss"]) == ("train", "20", "0.5")
        assert (first["train/new"], second["train/new"]) == ("", "1.0")


def rows_of(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_that_was_removed_is_reported_once(tmp_path: Path, warnings: list[str]) -> None:
    file = AppendedFile(tmp_path / "metrics.jsonl", None)
    file.write("a\n")
    file.sync()
    assert not warnings
    (tmp_path / "metrics.jsonl").unlink()
    for _ in range(2):
        file.write("b\n")
        file.sync()
    file.close()
    assert warnings == [
        f"{tmp_path}/metrics.jsonl was removed by another program; what is written to it is lost"
    ]
