"""`python -m dqn_runner.runs`: the table of runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from dqn_runner import runs
from dqn_runner.report.history import read_history
from dqn_runner.report.listing import Entry, Listing
from dqn_runner.report.records import EVAL
from dqn_runner.report.terminal import table, with_what_differs
from dqn_runner.run.timeline import SAVED, Timeline
from tests.support.stored_runs import store_run


def printed(entries: list[Entry], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table(entries, width))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def entry(path: str, state: str = "finished", changed: float = 0.0, overrides: str = "seed=1") -> Entry:
    return Entry(path, state, "CartPole-v1", 12_000, 199.6, None, 3_725.0, changed, overrides)


@pytest.mark.parametrize("width", [80, 120])
def test_every_run_is_a_line_that_fits(width: int) -> None:
    found = [entry("later", "running", 2.0), entry("earlier", changed=1.0, overrides="x" * 500)]
    lines = printed(found, width)
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    assert lines[0].split() == ["run", "state", "steps", "score", "best", "left", "settings"]
    assert lines[1].split()[:4] == ["earlier", "finished", "12,000", "199.6"]
    assert lines[2].split() == ["later", "running", "12,000", "199.6", "1:02:05", "seed=1"]


def test_a_finished_run_that_continues_with_a_larger_budget_is_not_finished(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", [10.0, 20.0])
    assert [found.state for found in Listing(tmp_path).entries()] == ["finished"]
    record = {"kind": "train", "step": 5000, "episode": 9, "train/loss": 1.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    assert [found.state for found in Listing(tmp_path).entries()] == ["stopped"]


def test_steps_are_known_without_metrics_jsonl(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", [10.0, 20.0])
    (run / "metrics.jsonl").unlink()
    assert [found.step for found in Listing(tmp_path).entries()] == [200]
    (run / "metrics.json").unlink()
    for step in (170, 190, 180):  # the last event counts: the run was resumed from an older checkpoint
        Timeline(run).add(SAVED, step)
    assert [found.step for found in Listing(tmp_path).entries()] == [180]


def test_a_run_that_was_resumed_from_an_older_checkpoint_has_its_steps_again(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", [10.0, 20.0, 30.0])
    Timeline(run).add(SAVED, 300)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= 200))
    assert [found.step for found in Listing(tmp_path).entries()] == [200]
    assert read_history(run).column(EVAL, "return_mean").tolist() == [10, 20]


def test_a_run_that_began_without_metrics_jsonl_has_all_its_evaluations(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", [10.0, 20.0, 30.0])
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] > 200))
    assert read_history(run).column(EVAL, "return_mean").tolist() == [10, 20, 30]


def test_jobs_of_a_sweep_show_what_differs() -> None:
    jobs = [entry("0", overrides="seed=0 agent=c51"), entry("1", overrides="seed=1 agent=c51")]
    assert [job.overrides for job in with_what_differs(jobs)] == ["seed=0", "seed=1"]
    assert with_what_differs(jobs[:1]) == jobs[:1]
    assert with_what_differs([]) == []


def test_a_name_cannot_control_the_terminal() -> None:
    text = "\n".join(printed([entry("\x1b[31mred\r", overrides="[bold]\x07x")], 120))
    assert "\x1b" not in text
    assert "?[31mred?" in text
    assert "[bold]?x" in text


def test_the_table_of_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.main([str(tmp_path)])
    assert capsys.readouterr().out == f"there are no runs below {tmp_path}\n"
    run = tmp_path / "agents" / "0"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"config": {}, "sessions": [{"overrides": ["agent=c51"]}]}))
    records = [
        {"kind": "eval", "step": 400, "episode": 9, "eval/return_mean": 21.5},
        {"kind": "train", "step": 500, "episode": 10, "time/eta": 60.0},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    runs.main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "agents/0",
        "stopped",
        "500",
        "21.5",
        "agent=c51",
    ]
    with pytest.raises(SystemExit, match="2"):
        runs.main([str(tmp_path / "missing")])
    assert capsys.readouterr().err == f"error: {tmp_path / 'missing'} is not a directory\n"


@pytest.mark.parametrize(
    "head", ['{\n "finished": "a"b",\n "best": {"return_mean": 1e', '{"return_mean": -', "\0"]
)
def test_a_damaged_run_is_listed_without_its_numbers(head: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{")
    (tmp_path / "run" / "metrics.json").write_text(head)
    (tmp_path / "run" / "metrics.jsonl").write_text("{\n[]\n")
    (found,) = Listing(tmp_path).entries()
    assert (found.path, found.step, found.best) == ("run", 0, None)
