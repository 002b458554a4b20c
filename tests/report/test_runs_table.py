"""`python -m dqn_runner.runs`: the table of runs."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from dqn_runner import runs
from dqn_runner.report.history import read_history
from dqn_runner.report.listing import Entry, Listing
from dqn_runner.report.records import EVAL
from dqn_runner.report.terminal import table, with_what_differs
from dqn_runner.run.timeline import ENDED, RESUME, SAVED, START, Timeline
from tests.report.test_run_page import page_of
from tests.support.stored_runs import store_run, text_of


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


def test_steps_and_scores_are_known_without_metrics_jsonl(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", [10.0, 20.0, 15.0])
    (run / "metrics.jsonl").unlink()
    (found,) = Listing(tmp_path).entries()
    assert (found.step, found.score, found.best) == (300, 15, 20)
    (run / "metrics.json").unlink()
    happened(run, [(START, 0), (SAVED, 170), (SAVED, 190), (RESUME, 170), (SAVED, 180)])
    assert [found.step for found in Listing(tmp_path).entries()] == [180]


def happened(run: Path, events: list[tuple[str, int | None]]) -> None:
    for event, step in events:
        Timeline(run).add(event, step)


def keep_records(run: Path, keep: Callable[[int], bool]) -> None:
    """Keep the lines of metrics.jsonl whose env step satisfies a condition."""
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if keep(json.loads(line)["step"])))


def state_and_evaluations(run: Path) -> tuple[str, int, float | None, list[float]]:
    """What the list says of a run (state, step, score), and its evaluations on its page."""
    (found,) = Listing(run.parent).entries()
    history = read_history(run)
    assert history.env_steps == found.step
    assert (history.finished is not None) == (found.state == "finished")
    return found.state, found.step, found.score, history.column(EVAL, "return_mean").tolist()


def test_a_run_that_was_resumed_from_an_older_checkpoint_has_its_steps_again(tmp_path: Path) -> None:
    """The metrics.json of the session before has records after that checkpoint."""
    run = store_run(tmp_path / "run", [10.0, 20.0, 30.0], finished=None)
    happened(run, [(START, 0), (SAVED, 300), (ENDED, None), (RESUME, 200)])
    keep_records(run, lambda step: step <= 200)
    assert state_and_evaluations(run) == ("stopped", 200, 20, [10, 20])
    (run / "metrics.jsonl").unlink()
    assert state_and_evaluations(run)[3] == [10, 20]


def test_a_session_without_metrics_jsonl_has_its_evaluations(tmp_path: Path) -> None:
    """Whether it was the first, the last or one between others; while later ones run, and once they ended."""
    run = store_run(tmp_path / "run", [10.0, 20.0, 30.0, 40.0])
    happened(run, [(START, 0), (SAVED, 400), (ENDED, None)])
    complete = ("finished", 400, 40, [10, 20, 30, 40])
    everything = (run / "metrics.jsonl").read_text()
    kept: list[Callable[[int], bool]] = [
        lambda step: step > 200,
        lambda step: step <= 200,
        lambda step: not 100 < step <= 300,
        lambda _: True,
    ]
    for keep in kept:
        (run / "metrics.jsonl").write_text(everything)
        keep_records(run, keep)
        assert state_and_evaluations(run) == complete
    happened(run, [(RESUME, 400)])
    for keep in kept[:3]:
        (run / "metrics.jsonl").write_text(everything)
        keep_records(run, keep)
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "eval", "step": 500, "episode": 5, "eval/return_mean": 50.0}\n')
        assert state_and_evaluations(run) == ("stopped", 500, 50, [10, 20, 30, 40, 50])


def test_a_copy_of_metrics_jsonl_that_lost_its_end_changes_no_score(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", [10.0, 20.0, 30.0])
    happened(run, [(START, 0), (SAVED, 300), (ENDED, None)])
    content = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(content[: len(content) // 2])
    assert state_and_evaluations(run) == ("finished", 300, 30, [10, 20, 30])


def test_a_session_whose_metrics_json_could_not_be_written_has_its_records(tmp_path: Path) -> None:
    """Such as on a full disk: the file is that of an earlier session."""
    run = store_run(tmp_path / "run", [10.0, 20.0, 30.0])
    earlier = store_run(tmp_path / "earlier" / "run", [10.0])
    (run / "metrics.json").write_bytes((earlier / "metrics.json").read_bytes())
    happened(run, [(START, 0), (ENDED, None), (RESUME, 100), (SAVED, 300), (ENDED, None)])
    shutil.rmtree(tmp_path / "earlier")
    assert state_and_evaluations(run) == ("stopped", 300, 30, [10, 20, 30])


def test_a_killed_run_without_metrics_jsonl_says_why_it_shows_no_records(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    (run / "metrics.json").unlink()
    happened(run, [(START, 0), (SAVED, 200)])
    assert state_and_evaluations(run) == ("stopped", 200, None, [])
    text = text_of(page_of(run))
    assert "not known yet" in text
    assert "No records: this run writes no metrics.jsonl, and metrics.json at the end of a session." in text


def test_files_with_line_ends_of_windows_are_read(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", [10.0, 20.0])
    for name in ("metrics.json", "metrics.jsonl"):
        (run / name).write_bytes((run / name).read_bytes().replace(b"\n", b"\r\n"))
    assert state_and_evaluations(run) == ("finished", 200, 20, [10, 20])


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
