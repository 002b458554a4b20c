"""A dry run measures a run by its log."""

from __future__ import annotations

import json
from pathlib import Path

from dqn_runner.sweep.dry_run import _progress  # pyright: ignore[reportPrivateUsage]


def test_records_that_do_not_know_the_time_left_are_passed_over(tmp_path: Path) -> None:
    """That is so until a part of the budget is used up, as in a first episode with a budget of episodes."""
    records = [
        {"step": 100, "time/elapsed": 1.0, "time/eta": None},
        {"step": 200, "time/elapsed": 2.0, "time/eta": 6.0},
        {"step": 200},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "metrics.jsonl").write_text(lines + '{"step": 300, "time/el')
    assert _progress(tmp_path, learning_starts=50) == [(2.0, 0.25)]
    assert _progress(tmp_path, learning_starts=201) == []
