"""mode=report: the page of a run, of a sweep, or of several runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dqn_runner.report.__main__ import main
from tests.conftest import Outcome
from tests.report.test_sweep_page import RATE, a_study, add


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures for readers without JavaScript take most of the time of a page."""
    monkeypatch.setattr("dqn_runner.report.pages.picture", lambda _: "")


@pytest.mark.parametrize("path", ["", "checkpoints", "checkpoints/best.pt"])
def test_the_page_of_a_run_and_of_each_checkpoint_is_that_of_the_report_program(
    program: Callable[..., Outcome], finished_run: Path, tmp_path: Path, path: str
) -> None:
    done = program("mode=report", f"checkpoint={finished_run / path}", "hydra.run.dir=page")
    assert done.status == 0, done.err
    assert done.out == f"written to {tmp_path / 'page' / 'report.html'}\n"
    main([str(finished_run), "-o", "expected.html"])
    written, expected = (Path(p).read_text() for p in ("page/report.html", "expected.html"))
    assert _without_time(written) == _without_time(expected)


def _without_time(page: str) -> str:
    """A page without the line that says when it was made."""
    return "\n".join(line for line in page.splitlines() if "UTC" not in line)


def test_the_page_of_a_run_can_be_written_beside_it(
    program: Callable[..., Outcome], finished_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    done = program("mode=report", "checkpoint=run", "hydra.run.dir=run", "hydra.output_subdir=null")
    assert done.status == 0, done.err
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    page = tmp_path / "run" / "report.html"
    assert after.pop(page)
    assert after == before


def test_a_directory_of_runs_is_compared_and_a_sweep_has_its_own_page(
    program: Callable[..., Outcome], finished_run: Path, tmp_path: Path
) -> None:
    for name in ("0", "1"):
        shutil.copytree(finished_run, tmp_path / "runs" / name)
    done = program("mode=report", "checkpoint=runs", "hydra.run.dir=page")
    assert done.status == 0, done.err
    assert [Path(line).suffix for line in done.out.splitlines()] == [".html", ".csv", ".tex"]
    study = a_study(tmp_path / "sweep.journal")
    add(study, [100.0], rate=1e-4)
    (tmp_path / "sweep").mkdir()
    shutil.move(tmp_path / "sweep.journal", tmp_path / "sweep" / "study.journal")
    done = program("mode=report", "checkpoint=sweep", "hydra.run.dir=page2")
    assert done.status == 0, done.err
    assert RATE in (tmp_path / "page2" / "report.html").read_text()


def test_a_run_of_an_env_that_needs_trust_has_a_page_without_it(
    program: Callable[..., Outcome], my_env: str
) -> None:
    budget = ("trainer.max_steps=60", "trainer.eval_episodes=1", "logging=[jsonl]")
    assert program(f"env.id={my_env}", *budget, "hydra.run.dir=mine").status == 0
    assert "trust=true" in program("mode=eval", "checkpoint=mine").error
    assert program("mode=report", "checkpoint=mine", "hydra.run.dir=page").status == 0


def test_what_has_no_page_is_rejected_in_one_line(program: Callable[..., Outcome], tmp_path: Path) -> None:
    needs = "mode=report needs checkpoint=PATH: a run, a checkpoint of it, or a sweep"
    assert program("mode=report").error == needs
    assert program("mode=report", "checkpoint=gone").error.startswith("checkpoint=gone: gone is not a direc")
    (tmp_path / "empty").mkdir()
    assert program("mode=report", "checkpoint=empty").error == "checkpoint=empty: empty contains no runs"
    assert program("mode=report", "resume=x").error.startswith("resume=x: ")
