"""The curves of a sweep's runs are drawn by the sweep and not by its jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dqn_runner.io.json_io import METRICS
from dqn_runner.run import plots
from dqn_runner.sweep import curves
from dqn_runner.sweep.curves import CurveDrawer, LivePage
from tests.conftest import BUDGET, Outcome
from tests.support.fork_server import CURVES


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []

    def draw(run_dir: Path) -> None:
        if run_dir.name == "broken":
            raise ValueError("no numbers")
        found.append(run_dir.name)

    monkeypatch.setattr(plots, "draw_training_curves", draw)
    return found


def run_dir(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    (tmp_path / name / METRICS).touch()
    return tmp_path / name


def test_pictures_are_drawn_in_order_and_an_error_only_costs_its_own(
    tmp_path: Path, drawn: list[str], warnings: list[str]
) -> None:
    drawer = CurveDrawer()
    for name in ("one", "broken", "two"):
        drawer.draw(run_dir(tmp_path, name))
    drawer.draw(tmp_path / "elsewhere")
    drawer.close(wait=True)
    assert drawn == ["one", "two"]
    assert warnings == [f"the curves of {tmp_path / 'broken'} could not be drawn: ValueError: no numbers"]


def test_a_sweep_that_is_stopped_does_not_wait_for_pictures(
    tmp_path: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started, finish = threading.Event(), threading.Event()

    def draw(run_dir: Path) -> None:
        started.set()
        finish.wait(10)
        drawn.append(run_dir.name)

    monkeypatch.setattr(plots, "draw_training_curves", draw)
    drawer = CurveDrawer()
    for name in ("one", "two"):
        drawer.draw(run_dir(tmp_path, name))
    assert started.wait(10)
    threading.Timer(0.05, finish.set).start()
    drawer.close(wait=False)
    assert drawn == ["one"]


@pytest.mark.slow
def test_a_sweep_leaves_the_curves_of_each_run_which_its_jobs_do_not_draw(
    run_cli_here: Callable[..., Outcome], tmp_path: Path
) -> None:
    sweep = ("-m", "hydra/sweeper=optuna", "agent.gamma=0.9,0.99", "hydra.sweeper.n_trials=2", *BUDGET)
    done = run_cli_here(*sweep, "hydra.sweep.dir=sweep", "logging=[file]", env={CURVES: "1"})
    assert done.status == 0, done.err
    for number in ("0", "1"):
        picture = tmp_path / "sweep" / number / "training_curves.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
        checkpoint = tmp_path / "sweep" / number / "checkpoints" / "latest.pt"
        assert picture.stat().st_mtime > checkpoint.stat().st_mtime


def test_a_page_is_written_at_the_end_and_before_that_only_as_often_as_it_is_cheap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(curves.time, "monotonic", lambda: now[0])
    written: list[float] = []

    def write() -> None:
        written.append(now[0])
        now[0] += 1.0  # it takes a second

    drawer = CurveDrawer()
    monkeypatch.setattr(drawer, "submit", lambda task: task())
    page = LivePage(drawer, write)
    for now[0] in (10.0, 12.0, 30.0, 31.1, 40.0):
        page.update()
    page.finish()
    drawer.close(wait=True)
    assert written == [10.0, 31.1, 40.0]


def test_an_error_of_a_page_is_logged_and_ends_nothing(warnings: list[str]) -> None:
    drawer = CurveDrawer()
    LivePage(drawer, lambda: 1 / 0).finish()
    drawer.close(wait=True)
    assert warnings == ["the page of the sweep could not be written: ZeroDivisionError: division by zero"]
