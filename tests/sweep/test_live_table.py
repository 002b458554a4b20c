"""The table of a running sweep on a terminal: what it shows, and that no message is lost."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from dqn_runner.core.log import log
from dqn_runner.io import terminal
from dqn_runner.sweep import live_table as table_module
from dqn_runner.sweep.jobs import print_status
from dqn_runner.sweep.live_table import LiveTable
from dqn_runner.sweep.live_view import BestView, RunView, SweepView, live_table
from dqn_runner.sweep.runner import SweepRunner
from dqn_runner.sweep.trial_record import RunState
from tests.conftest import environment
from tests.support.fork_server import forked_python
from tests.sweep.test_runner import SimulatedJobs, a_plan, jobs

__all__ = ["jobs"]

SETTINGS = "learning_rate=0.0003 batch_size=64 network=[64,64] n_step=3 target_update_every=1000"
RUN = RunView(12, 3, False, 0.42, 21_000, 182.34, 199.0, 3_725.0, SETTINGS)


def a_view(runs: int = 2, **changes: Any) -> SweepView:
    found = [RunView(**{**vars(RUN), "trial": i, "share": i / 100 or None}) for i in range(runs)]
    best = [BestView(4, "return 398.5", SETTINGS), BestView(1, "return 120", SETTINGS)]
    counts = {"complete": 3, "pruned": 2, "diverged": 0, "failed": 1, "running": runs, "waiting": 0}
    return SweepView(**{**vars(SweepView("cartpole", 20, counts, found, best, 192.0, 760.0)), **changes})


def drawn(view: SweepView, width: int, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, markup=False, highlight=False)
    console.print(live_table(view, width, height))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_the_table_at_80_columns() -> None:
    assert [line.rstrip() for line in drawn(a_view(), 80)] == [
        "",
        "cartpole: 6 of 20 trials, 3 complete, 2 pruned, 1 failed | 0:03:12, about",
        "0:12:40 left",
        "trial  seed                done  return   eval     left  settings",
        "    0     3              starts   182.3  199.0  1:02:05  learning_rate=0.0003 b…",
        "    1     3                  1%   182.3  199.0  1:02:05  learning_rate=0.0003 b…",
        "best  value         settings",
        "   4  return 398.5  learning_rate=0.0003 batch_size=64 network=[64,64] n_step=3…",
        "   1  return 120    learning_rate=0.0003 batch_size=64 network=[64,64] n_step=3…",
    ]


@pytest.mark.parametrize("width", [30, 40, 59, 60, 79, 80, 99, 100, 120, 300])
def test_the_table_fits_every_width(width: int) -> None:
    lines = drawn(a_view(), width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert (" 182.3 " in text and " 1:02:05" in text) or width < 40
    assert ("settings" in text) is (width >= 60)
    assert ("21,000" in text) is (width >= 100)


@pytest.mark.parametrize("height", [5, 10, 24, 50])
def test_hundreds_of_jobs_leave_room_for_the_messages(height: int) -> None:
    lines = drawn(a_view(runs=300), 80, height)
    assert len(lines) <= max(height, 6)
    more = next(line for line in lines if line.startswith("and "))
    assert 300 - int(more.split()[1]) == sum(" 1:02:05 " in line for line in lines)
    assert "  299  " in "\n".join(lines), "the run that has got furthest is shown"


def test_texts_of_a_user_have_no_effect_on_the_terminal() -> None:
    hostile = "[bold]x[/bold] :smile: \x1b[31m\r\n日本"
    view = a_view(name=hostile, best=[BestView(0, "return 1", terminal.printable(hostile))])
    text = "\n".join(drawn(view, 120))
    assert "\x1b" not in text
    assert text.count("[bold]x[/bold] :smile: ?[31m??日本") == 2


def test_overrides_are_shortened() -> None:
    short = table_module._shortened  # pyright: ignore[reportPrivateUsage]
    assert short("agent.learning_rate=0.008311303692128173") == "learning_rate=0.008311"
    assert short("agent/network=mlp") == "agent/network=mlp"
    assert short("agent.network.hidden=[16,16]") == "hidden=[16,16]"
    assert short("env.id=my.Env") == "id=my.Env"


class Terminal(io.StringIO):
    encoding = "utf-8"  # pyright: ignore[reportAssignmentType]

    def isatty(self) -> bool:
        return True


def open_screen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard output on a terminal; not a fixture, because pytest replaces the stream after those."""
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}.items():
        monkeypatch.setenv(name, value)
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(table_module, "INTERVAL", 0.0)
    monkeypatch.setattr(table_module, "LARGEST_SHARE", 1e9)
    return shown


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


def write_records(run_dir: Path) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    train = {"train/return_mean_100": 55.5, "time/eta": 61.0}
    records = [
        {"kind": "eval", "step": 400, "episode": 9, "eval/return_mean": 21.5},
        {"kind": "train", "step": 500, "episode": 10, **train},
    ]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_sweep_shows_its_runs_below_its_messages(
    tmp_path: Path, jobs: SimulatedJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = open_screen(monkeypatch)
    jobs.ends = {(2, 0): [RunState.PRUNED]}
    plan = a_plan(tmp_path, n_trials=3, seeds=2)
    object.__setattr__(plan, "job", OmegaConf.create({"trainer": {"max_steps": 1000, "max_episodes": None}}))
    sweep = SweepRunner(plan)
    table = sweep._table  # pyright: ignore[reportPrivateUsage]
    refresh = table.refresh

    def run(*arguments: Any) -> Any:
        write_records(arguments[1])
        refresh()
        return jobs(*arguments)

    monkeypatch.setattr("dqn_runner.sweep.jobs.Jobs.run", lambda _, *arguments: run(*arguments))
    sweep.run()
    shown = plain(screen.getvalue())
    assert sys.stdout is screen
    assert re.search(r"trial +seed +done +steps +return +eval +left +settings", shown)
    assert re.search(r"\n +1 +6 +[━╸╺]+ +50% +500 +55\.5 +21\.5 +0:01:01 +gamma=0\.9\d+", shown)
    assert re.search(r"it: 2 of 3 trials, 2 complete \| 0:00:\d\d, about 0:0\d:\d\d left", shown)
    messages = [line for line in shown.splitlines() if line.startswith("trial ") and "finished" in line]
    assert [line.strip() for line in messages] == [
        "trial 0 complete: return 1 | 1 of 3 finished",
        "trial 1 complete: return 1 | 2 of 3 finished",
        "trial 2 it pruned | 3 of 3 finished",
    ]
    last = screen.getvalue().rpartition("3 of 3 finished")[2]
    assert "\x1b[?25l" not in last, "the cursor is shown"
    assert last.rstrip("\n").endswith("\x1b[2K"), "the table is removed"


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize(
    ("variables", "config", "job"),
    [
        ({"TERM": "dumb"}, {}, {}),
        ({"CI": "true"}, {}, {}),
        ({}, {"hydra": {"verbose": True}}, {}),
        ({}, {}, {"logging": {"console": {"progress_bar": False}}}),
    ],
)
def test_plain_lines_where_a_table_is_not_wanted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    config: dict[str, Any],
    job: dict[str, Any],
) -> None:
    screen = open_screen(monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    plan = a_plan(tmp_path)
    object.__setattr__(plan, "config", OmegaConf.create(config))
    object.__setattr__(plan, "job", OmegaConf.create(job))
    SweepRunner(plan).run()
    first, second, *_ = screen.getvalue().splitlines()
    assert first == "trial 0 complete: return 1 | 1 of 2 finished"
    assert second == "trial 1 complete: return 1 | 2 of 2 finished"


@pytest.mark.usefixtures("jobs")
def test_plain_lines_in_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SweepRunner(a_plan(tmp_path)).run()
    assert capsys.readouterr().out.splitlines()[:1] == ["trial 0 complete: return 1 | 1 of 2 finished"]


@pytest.fixture
def table(tmp_path: Path, jobs: SimulatedJobs) -> LiveTable:
    del jobs
    plan = a_plan(tmp_path)
    return SweepRunner(plan)._table  # pyright: ignore[reportPrivateUsage]


def test_no_message_is_lost(table: LiveTable, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = open_screen(monkeypatch)
    errors = Terminal()
    monkeypatch.setattr(sys, "stderr", errors)
    handler, root = logging.StreamHandler(errors), logging.getLogger("some.library")
    root.addHandler(handler)
    try:
        with table:
            table.refresh()
            print_status("[/red] a status")
            print("an error", file=sys.stderr)
            log.warning("a warning of the program")
            root.warning("a warning of a library: %s", "é" * 150)
            print("without an end", end="")
        assert handler.stream is errors
        root.warning("later")
    finally:
        root.removeHandler(handler)
    text = plain(screen.getvalue())
    for message in ("[/red] a status", "an error", "a warning of a library:", "without an end"):
        assert message in text, message
    assert text.count("é") == 150
    assert errors.getvalue() == "later\n"


def test_errors_go_to_their_file_if_standard_error_is_not_the_terminal(
    table: LiveTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = open_screen(monkeypatch)
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    with table:
        table.refresh()
        print("an error", file=sys.stderr)
    assert errors.getvalue() == "an error\n"
    assert "an error" not in screen.getvalue()


def test_an_error_of_the_table_does_not_end_the_sweep(
    table: LiveTable, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = open_screen(monkeypatch)
    with table:
        table.refresh()
        monkeypatch.setattr(table, "_render", lambda _: 1 / 0)
        table.refresh()
        table.refresh()
        print_status("goes on")
    assert warnings == ["the table of the sweep ends: ZeroDivisionError: division by zero"]
    assert screen.getvalue().endswith("goes on\n")
    assert sys.stdout is screen


def test_a_slow_table_is_drawn_rarely(table: LiveTable, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = open_screen(monkeypatch)
    monkeypatch.setattr(table_module, "LARGEST_SHARE", 0.004)
    now, cpu, drawings = 0.0, 0.0, 0

    def render(_: object) -> str:
        nonlocal cpu, drawings
        cpu, drawings = cpu + 0.02, drawings + 1
        return "a table"

    with table, monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: now)
        patch.setattr(time, "thread_time", lambda: cpu)
        patch.setattr(table, "_render", render)
        for tenth in range(1000):
            now = 1.0 + tenth / 10
            table.refresh()
    assert 0.9 * 20 <= drawings <= 20
    assert "a table" in screen.getvalue()


@pytest.mark.slow
@pytest.mark.nightly
def test_ctrl_c_leaves_a_clean_terminal(tmp_path: Path) -> None:
    controller, slave = pty.openpty()
    command = [forked_python(), "-m", "dqn_runner", "-m", "hydra/sweeper=optuna", "agent.gamma=0.9,0.99"]
    command += ["hydra.sweep.dir=s", "hydra.sweeper.n_trials=2", "trainer.max_steps=1000000"]
    variables = environment(TERM="xterm", COLUMNS="80", LINES="24")
    variables.pop("CI", None)
    with subprocess.Popen(
        command, cwd=tmp_path, env=variables, stdin=slave, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        shown = _read_until(controller, lambda text: "starts" in text)
        process.send_signal(signal.SIGINT)
        shown += _read_until(controller, lambda _: False)
        os.close(controller)
        assert process.wait() == 130
    assert re.search(r"s: 0 of 2 trials \| 0:00:\d\d", plain(shown))
    assert "stopping: the jobs save their state; repeat the command to continue" in plain(shown)
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l"), "the cursor is shown"
    assert shown.rpartition("\x1b[2K")[2].strip() == "\x1b[?25h" or shown.rstrip().endswith("\x1b[2K")


def _read_until(descriptor: int, enough: Callable[[str], bool]) -> str:
    shown = ""
    while not enough(shown):
        try:
            shown += os.read(descriptor, 65536).decode(errors="replace")
        except OSError:
            break
    return shown
