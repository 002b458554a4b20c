"""The loggers of a run as a group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dqn_runner.core.log import log
from dqn_runner.core.records import Record, RunInfo
from dqn_runner.loggers.base import Logger
from dqn_runner.loggers.files import JsonLines, TextFile
from dqn_runner.loggers.logger_group import LoggerGroup
from tests.support.records import EPISODE, INFO


class UnclosableLogger:
    """A logger whose `close` raises an exception."""

    def __init__(self, closed: list[str]) -> None:
        self.closed = closed

    def open(self, run_dir: Path, info: RunInfo, state: Any) -> Logger:
        return self

    def write(self, record: Record) -> None:
        self.closed.clear()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def close(self, failed: bool) -> None:
        self.closed.append(f"closed {failed}")
        raise ConnectionError("the service is unavailable")


def test_a_logger_that_cannot_be_closed_does_not_affect_the_others(tmp_path: Path):
    closed: list[str] = []
    parts = {
        "file": TextFile(),
        "one": UnclosableLogger(closed),
        "jsonl": JsonLines(),
        "two": UnclosableLogger(closed),
    }
    group, handlers = LoggerGroup(parts), list(log.handlers)
    group.open(tmp_path, INFO)
    group.write(EPISODE)
    group.close(failed=True)
    assert closed == ["closed True", "closed True"]
    written = (tmp_path / "logs" / "training.log").read_text()
    assert "logging.one could not be closed" in written
    assert "logging.two could not be closed" in written
    assert "the service is unavailable" in written
    assert log.handlers == handlers
    assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"\n")
