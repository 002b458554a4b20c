"""Plots of a run: every run gives a picture, and the picture shows what metrics.json contains."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from dqn_runner.io import json_io
from dqn_runner.run import plots
from dqn_runner.training.collector import Episode
from dqn_runner.training.evaluator import Evaluation
from dqn_runner.training.metrics import Metrics

RETURN, EVALUATION, LOSS, EPSILON, Q, LENGTH = range(6)
NAN = math.nan


def document(
    returns: list[float] = [],  # noqa: B006
    evaluations: list[list[float]] = [],  # noqa: B006
    losses: list[float | None] = [],  # noqa: B006
) -> dict[str, Any]:
    """The metrics.json of a run with episodes of 10 steps, an evaluation every 100 and a log line every 50.

    A loss of None is a log interval without an update.
    """
    metrics = Metrics()
    for index, value in enumerate(returns, start=1):
        metrics.add_episode(Episode(10 * index, value, 10))
    for index, values in enumerate(evaluations, start=1):
        metrics.add_evaluation(100 * index, 10 * index, Evaluation(values, [10] * len(values)))
    for index, loss in enumerate(losses, start=1):
        if loss is not None:
            metrics.add_update([loss, 7.0, 1.0])
        metrics.flush(50 * index, 5 * index, 0.5)
    means = [float(np.mean(values)) for values in evaluations]
    best = int(np.argmax(means)) if means else 0
    return {
        "env_steps": max(10 * len(returns), 100 * len(evaluations), 50 * len(losses)),
        "best": {"return_mean": max(means, default=-math.inf), "step": 100 * (best + 1)},
        **metrics.history(),
    }


def draw(run_dir: Path, content: dict[str, Any]) -> Image.Image:
    """Draw the picture of a run with this metrics.json, and decode it."""
    json_io.write_json(run_dir / json_io.METRICS, content)
    plots.draw_training_curves(run_dir)
    with Image.open(run_dir / plots.CURVES) as image:
        image.load()
        return image.convert("RGB")


def build(tmp_path: Path, content: dict[str, Any], name: str = "run") -> Figure:
    """The figure of this metrics.json after writing and reading it, which turns NaN into null."""
    json_io.write_json(tmp_path / json_io.METRICS, content)
    return plots.training_figure(json_io.read_json(tmp_path / json_io.METRICS), name)


def legend(panel: Axes) -> list[str]:
    return panel.get_legend_handles_labels()[1]


def texts(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.texts]


@pytest.fixture
def full() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    returns = rng.normal(size=400).cumsum().tolist()
    evaluations = rng.normal(size=(40, 5)).tolist()
    return document(returns, evaluations, [None, None, *rng.uniform(0.1, 1, 78).tolist()])


NIGHTLY = ("no evaluation yet", "no update yet", "one episode", "one evaluation", "constant values")
"""Edge cases that resemble others: drawing takes a second."""
EDGE_CASES = {
    "no episode yet": document(),
    "no evaluation yet": document([1.0, 2.0, 3.0], [], [None, 0.5]),
    "no update yet": document([1.0], [], [None]),
    "one episode": document([5.0]),
    "one evaluation": document([5.0] * 10, [[1.0, 3.0]], [0.1]),
    "one evaluation of one episode": document([5.0] * 10, [[1.0]], [0.1]),
    "constant values": document([0.0] * 50, [[0.0, 0.0]] * 5, [0.0] * 10),
    "loss diverged": document([1.0] * 50, [[1.0]] * 5, [1.0, 1e30, NAN, math.inf]),
    "returns not finite": document([NAN, 1.0, math.inf, 2.0], [[NAN, 1.0], [2.0, 3.0]], [NAN]),
    "huge values": document([-1e12, 1e12] * 20, [[-1e12, 1e12]] * 2, [1e20, 1e-20]),
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.nightly] if case in NIGHTLY else []) for case in EDGE_CASES],
)
def test_every_run_can_be_plotted(tmp_path: Path, case: str):
    image = draw(tmp_path, EDGE_CASES[case])
    assert image.size == (1548, 1728)
    assert len(image.getcolors(maxcolors=1 << 24) or []) > 50  # not blank
    assert [file.name for file in tmp_path.glob("*.tmp")] == []


def test_panels_have_titles_and_axis_labels_with_units(tmp_path: Path, full: dict[str, Any]):
    panels = build(tmp_path, full).axes
    assert [(panel.get_title(), panel.get_ylabel()) for panel in panels] == [
        ("Training return", "return (undiscounted reward)"),
        ("Evaluation return (greedy policy)", "return (undiscounted reward)"),
        ("TD loss", "loss (mean per log interval)"),
        ("Exploration", "probability of a random action"),
        ("Q value of the actions taken", "Q (mean per log interval)"),
        ("Episode length", "env steps per episode"),
    ]
    assert {panel.get_xlabel() for panel in panels} == {"env steps"}
    assert [text for panel in panels for text in texts(panel)] == []


def test_all_panels_share_the_axis_of_env_steps_with_readable_numbers(tmp_path: Path):
    figure = build(tmp_path, document([1.0] * 4000))
    figure.canvas.draw()
    panels = figure.axes
    assert {panel.get_xlim() for panel in panels} == {(0.0, 40_800.0)}
    for panel in panels:
        ticks = [label.get_text() for label in panel.get_xticklabels()]
        assert ticks[:5] == ["0", "10k", "20k", "30k", "40k"]


def test_the_figure_title_names_the_run_and_its_best_evaluation(tmp_path: Path):
    content = document([1.0] * 130, [[1.0, 2.0], [8.0, 9.0], [3.0, 4.0]])
    assert build(tmp_path, content, "my $run_$").get_suptitle() == (
        "my $run_$\nbest evaluation 8.5 at env step 200  ·  1,300 env steps, 130 episodes"
    )
    assert "not evaluated yet" in build(tmp_path, document([1.0])).get_suptitle()


@pytest.mark.parametrize("name", ["one evaluation", "huge values", "full"])
def test_text_has_at_least_9_points_on_a_screen_and_does_not_overlap(
    tmp_path: Path, full: dict[str, Any], name: str
):
    figure = build(tmp_path, full if name == "full" else EDGE_CASES[name])
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    assert len(texts) > 60
    assert figure.get_figwidth() * 96 <= 830  # pixels of a column of text on a page
    assert min(text.get_fontsize() for text in texts) >= 9
    renderer = figure.canvas.get_renderer()
    ticks = {id(t) for panel in figure.axes for t in (*panel.get_xticklabels(), *panel.get_yticklabels())}
    placed = [text for text in texts if id(text) not in ticks]  # not all ticks are drawn
    shown = [(text.get_text(), text.get_window_extent(renderer).padded(-1)) for text in placed]
    whole = figure.bbox
    assert [t for t, box in shown if min(box.x0, box.y0) < 0 or box.x1 > whole.x1 or box.y1 > whole.y1] == []
    overlaps = [(a, b) for (a, one), (b, two) in itertools.combinations(shown, 2) if one.overlaps(two)]
    assert overlaps == []


def test_a_panel_without_data_shows_a_note(tmp_path: Path):
    panels = build(tmp_path, document([1.0, 2.0], [], [None])).axes
    empty = [index for index, panel in enumerate(panels) if texts(panel) == ["no data yet"]]
    assert empty == [EVALUATION, LOSS, Q]


def test_training_panels_show_each_episode_and_its_moving_average(tmp_path: Path):
    returns = [float(value) for value in range(200)]
    panel = build(tmp_path, document(returns)).axes[RETURN]
    raw, average = panel.lines
    assert np.asarray(raw.get_ydata()).tolist() == returns
    assert np.asarray(raw.get_xdata()).tolist() == [10.0 * index for index in range(1, 201)]
    assert np.asarray(average.get_ydata())[-1] == pytest.approx(np.mean(returns[-10:]))
    assert legend(panel) == ["each episode", "mean of the last 10"]


def test_the_evaluation_panel_shows_mean_spread_and_best(tmp_path: Path):
    evaluations = [[0.0, 2.0, 4.0], [10.0, 20.0, 30.0], [5.0, 5.0, 5.0]]
    panel = build(tmp_path, document([1.0], evaluations)).axes[EVALUATION]
    extremes, std, best = panel.collections
    assert isinstance(extremes, PolyCollection)
    assert extremes.get_paths()[0].get_extents().intervaly.tolist() == [0.0, 30.0]
    corners = std.get_paths()[0].vertices.tolist()
    assert [200.0, 20.0 - np.std(evaluations[1])] in corners
    assert [200.0, 20.0 + np.std(evaluations[1])] in corners
    assert np.asarray(best.get_offsets()).tolist() == [[200.0, 20.0]]
    (mean,) = panel.lines
    assert np.asarray(mean.get_ydata()).tolist() == [2.0, 20.0, 5.0]
    assert legend(panel) == ["min to max", "±1 std", "mean", "best: 20"]


def test_a_single_evaluation_is_drawn_as_a_bar_with_a_marker(tmp_path: Path):
    panel = build(tmp_path, document([1.0], [[1.0, 3.0]])).axes[EVALUATION]
    extremes = panel.collections[0]
    assert isinstance(extremes, LineCollection)
    assert np.asarray(extremes.get_segments()).tolist() == [[[100.0, 1.0], [100.0, 3.0]]]
    assert panel.lines[0].get_marker() == "o"


def test_the_loss_curve_skips_missing_values(tmp_path: Path):
    panel = build(tmp_path, document([1.0], [], [None, 3.0, NAN, 4.0])).axes[LOSS]
    assert np.asarray(panel.lines[0].get_xydata()).tolist() == [[100.0, 3.0], [200.0, 4.0]]


@pytest.mark.parametrize(
    ("losses", "scale"),
    [([1.0, 50.0], "linear"), ([1.0, 500.0], "log"), ([0.0, 500.0], "linear")],
)
def test_the_loss_axis_is_logarithmic_if_the_loss_spans_orders_of_magnitude(
    tmp_path: Path, losses: list[float | None], scale: str
):
    panel = build(tmp_path, document([1.0], [], losses)).axes[LOSS]
    assert panel.get_yscale() == scale
    assert panel.get_title() == ("TD loss (log scale)" if scale == "log" else "TD loss")


@pytest.mark.parametrize(("count", "window"), [(0, 5), (1, 5), (7, 5), (400, 20), (50_000, 100)])
def test_the_window_of_the_moving_average_grows_with_the_run(count: int, window: int):
    assert plots.average_window(count) == window


@pytest.mark.parametrize("window", [1, 3, 100])
@pytest.mark.parametrize("count", [0, 1, 3, 250])
def test_the_moving_average_is_the_mean_of_the_last_values(count: int, window: int):
    values = np.random.default_rng(count).normal(size=count)
    naive = [values[max(0, stop - window) : stop].mean() for stop in range(1, count + 1)]
    np.testing.assert_allclose(plots.moving_average(values, window), naive, atol=1e-12)


def test_the_moving_average_is_not_affected_by_earlier_large_values():
    assert plots.moving_average(np.array([1e30, 1.0, 2.0, 3.0]), 2).tolist()[2:] == [1.5, 2.5]


@pytest.mark.parametrize("count", [101, 150, 1000, 12_345])
def test_thinning_a_curve_keeps_its_ends_and_extremes(count: int):
    values = np.random.default_rng(count).normal(size=count)
    kept = plots.thin(values, 100)
    assert 50 < len(kept) <= 100
    assert (np.diff(kept) > 0).all()
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert {values.argmin(), values.argmax()} <= set(kept.tolist())


@pytest.mark.parametrize("count", [0, 1, 100])
def test_thinning_does_not_change_short_curves(count: int):
    assert plots.thin(np.zeros(count), 100).tolist() == list(range(count))


def test_a_long_run_is_drawn_with_few_points(tmp_path: Path):
    returns = [0.0] * 50_000
    returns[31_415] = -1.0
    figure = build(tmp_path, document(returns, [[1.0, 2.0]] * 10, [0.1] * 100))
    for panel in figure.axes:
        assert all(len(line.get_xydata()) <= 4_000 for line in panel.lines)
    raw = np.asarray(figure.axes[RETURN].lines[0].get_xydata())
    assert [314_160.0, -1.0] in raw.tolist()
    assert raw[-1].tolist() == [500_000.0, 0.0]


def test_plots_can_be_drawn_in_a_thread(tmp_path: Path, full: dict[str, Any]):
    json_io.write_json(tmp_path / json_io.METRICS, full)
    thread = threading.Thread(target=plots.draw_training_curves, args=(tmp_path,))
    thread.start()
    thread.join()
    assert (tmp_path / plots.CURVES).stat().st_size > 10_000


def test_an_error_while_plotting_keeps_the_old_picture(
    tmp_path: Path, full: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    draw(tmp_path, full)
    before = (tmp_path / plots.CURVES).read_bytes()

    def fail(_figure: Figure, file: Any, **_: Any) -> None:
        file.write(b"half a picture")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plots.draw_training_curves(tmp_path)
    assert (tmp_path / plots.CURVES).read_bytes() == before
    assert list(tmp_path.glob("*.tmp")) == []


def test_plots_import_matplotlib_only_when_drawing_and_never_pyplot(tmp_path: Path, full: dict[str, Any]):
    json_io.write_json(tmp_path / json_io.METRICS, full)
    script = """if True:
        import sys
        from pathlib import Path
        from dqn_runner.run import plots
        assert "matplotlib" not in sys.modules
        plots.draw_training_curves(Path(sys.argv[1]))
        assert "matplotlib" in sys.modules
        assert "matplotlib.pyplot" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert (tmp_path / plots.CURVES).exists()


def test_the_plots_command_draws_the_picture_again(
    tmp_path: Path, full: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    json_io.write_json(tmp_path / json_io.METRICS, full)
    plots.main([str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path / plots.CURVES}\n"
    assert (tmp_path / plots.CURVES).read_bytes().startswith(b"\x89PNG")


def test_the_plots_command_reports_a_damaged_file_in_one_line(
    tmp_path: Path, full: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    json_io.write_json(tmp_path / json_io.METRICS, full)
    content = (tmp_path / json_io.METRICS).read_text()
    (tmp_path / json_io.METRICS).write_text(content[: len(content) // 2])
    with pytest.raises(SystemExit) as ended:
        plots.main([str(tmp_path)])
    assert ended.value.code == 2
    assert re.fullmatch(r"error: .*metrics.json is damaged: .*\n", capsys.readouterr().err)


def test_the_plots_command_reports_a_missing_metrics_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        plots.main([str(tmp_path)])
    assert ended.value.code == 2
    assert f"{tmp_path / json_io.METRICS} does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("content", ['{"accuracy": [1, 2]}', "[]", "null", '{"episodes": 3, "best": []}'])
def test_a_metrics_json_of_another_program_is_one_line(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / json_io.METRICS).write_text(content)
    with pytest.raises(SystemExit, match="2"):
        plots.main([str(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / json_io.METRICS} is damaged (")
