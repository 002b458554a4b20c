"""The history of a run in its checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dqn_runner.checkpointing.checkpointer import Checkpointer
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.checkpointing.names import numbered_name
from dqn_runner.core.exceptions import DamagedError
from dqn_runner.training.collector import Episode
from dqn_runner.training.history import History, problem_with
from dqn_runner.training.metrics import Metrics
from dqn_runner.training.stopwatch import Stopwatch

EPISODES = 70_000
"""More than two segments of 32,768 rows."""


def add_episodes(metrics: Metrics, first: int, stop: int) -> None:
    for number in range(first, stop):
        metrics.add_episode(Episode(number * 10, float(number), 10))


def save(metrics: Metrics, checkpointer: Checkpointer, step: int) -> Path:
    checkpointer.save({"source": {}, "state": {"metrics": metrics.state_dict()}}, step, [numbered_name(step)])
    checkpointer.wait()
    return checkpointer.directory / numbered_name(step)


def test_a_checkpoint_does_not_grow_with_the_episodes_done(tmp_path: Path) -> None:
    metrics, checkpointer = Metrics(), Checkpointer(tmp_path, 5)
    add_episodes(metrics, 0, 4464)
    early = save(metrics, checkpointer, 1).stat().st_size
    add_episodes(metrics, 4464, EPISODES)
    late = save(metrics, checkpointer, 2)
    segments = {path: path.stat().st_ino for path in (tmp_path / "segments").iterdir()}
    assert len(segments) == 2
    assert abs(late.stat().st_size - early) < 2000, "4,464 rows are in no segment, as at first"
    add_episodes(metrics, EPISODES, EPISODES + 1)
    again = save(metrics, checkpointer, 3)
    assert {path: path.stat().st_ino for path in (tmp_path / "segments").iterdir()} == segments
    checkpointer.close()

    resumed = Metrics()
    resumed.load_state_dict(load_checkpoint(again)["state"]["metrics"])
    assert resumed.history() == metrics.history()
    add_episodes(resumed, EPISODES + 1, EPISODES + 3)
    assert resumed.episodes.lists()["return"] == [float(number) for number in range(EPISODES + 3)]


@pytest.mark.parametrize(("done", "sign"), [(0.5, 1), (1.0, 0), (1.4, 0)])
def test_the_time_left_is_never_negative(done: float, sign: int) -> None:
    """Also in a run that continues with a smaller budget than it has used."""
    stopwatch = Stopwatch()
    stopwatch.start(10.0, 100)
    assert np.sign(stopwatch.eta(done)) == sign


def test_rows_of_another_table_are_rejected() -> None:
    ours = History({"step": "q", "loss": "d"})
    ours.append(1, 0.5)
    assert problem_with(ours.snapshot(), ours.snapshot()) is None
    for other in ({"step": "q"}, {"step": "d", "loss": "d"}, {"step": "q", "loss": "d", "more": "d"}):
        problem = problem_with(History(other).snapshot(), ours.snapshot())
        assert problem == "has other columns than step, loss"


def test_a_snapshot_is_not_changed_by_later_rows() -> None:
    history = History({"step": "q"})
    history.append(1)
    before = history.snapshot()
    history.append(2)
    np.testing.assert_array_equal(before.all()["step"], [1])


def test_a_damaged_segment_of_the_history_is_damage(tmp_path: Path) -> None:
    metrics, checkpointer = Metrics(), Checkpointer(tmp_path, 5)
    add_episodes(metrics, 0, 33_000)
    path = save(metrics, checkpointer, 1)
    checkpointer.close()
    (segment,) = (tmp_path / "segments").iterdir()
    segment.write_bytes(segment.read_bytes()[:-100])
    with pytest.raises(DamagedError, match=r"the segment .* is damaged"):
        Metrics().load_state_dict(load_checkpoint(path)["state"]["metrics"])
