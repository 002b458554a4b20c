"""A run from the command line: the files that it writes, what they contain, and what it prints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.io.json_io import read_json
from tests.conftest import BUDGET, Outcome, records


def test_a_run_writes_the_documented_files(finished_run: Path) -> None:
    assert {path.name for path in finished_run.iterdir()} == {
        ".hydra",
        ".lock",
        "checkpoints",
        "logs",
        "metrics.json",
        "metrics.jsonl",
        "run.json",
        "timeline.jsonl",
        "training_curves.png",
    }
    numbered = {f"checkpoint_{step:010d}.pt" for step in (400, 800, 1200)}
    checkpoints = {path.name for path in (finished_run / "checkpoints").iterdir()}
    assert checkpoints == {"best.pt", "latest.pt", *numbered}


def test_a_run_prints_its_progress_and_result(finished_run: Path) -> None:
    best = read_json(finished_run / "metrics.json")["best"]
    printed = (finished_run.parent / "stdout").read_text()
    assert printed.splitlines()[-1] == (
        f"best evaluation {best['return_mean']:g} at step {best['step']}; everything is in {finished_run}"
    )
    lines = (finished_run.parent / "stderr").read_text().splitlines()
    assert lines[0].startswith("starting at step 0, episode 0 in ")
    assert "step 1200" in lines[-1]
    assert "trainer.max_steps=1200 reached" in lines[-1]
    assert [line.split(" episode")[0] for line in lines if line.startswith("eval")] == [
        "eval  step 400",
        "eval  step 800",
        "eval  step 1,200",
    ]


def test_training_log_contains_the_printed_lines_with_timestamps(finished_run: Path) -> None:
    logged = (finished_run / "logs" / "training.log").read_text().splitlines()
    printed = (finished_run.parent / "stderr").read_text().splitlines()
    matches = [re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO +(.*)", line) for line in logged]
    assert [match[1] for match in matches if match] == printed


def test_metrics_json_contains_the_whole_history(finished_run: Path) -> None:
    metrics = read_json(finished_run / "metrics.json")
    episodes, train, evaluations = metrics["episodes"], metrics["train"], metrics["evaluations"]

    count = len(episodes["return"])
    assert count > 20
    assert len(episodes["length"]) == len(episodes["step"]) == count
    assert episodes["return"] == episodes["length"], "CartPole gives a reward of 1 for each step"
    assert episodes["step"] == np.cumsum(episodes["length"]).tolist()

    assert evaluations["step"] == [400, 800, 1200]
    for returns, mean, std in zip(
        evaluations["returns"], evaluations["return_mean"], evaluations["return_std"], strict=True
    ):
        assert len(returns) == 2
        assert (mean, std) == pytest.approx((np.mean(returns), np.std(returns)))

    assert train["step"] == list(range(200, 1201, 200))
    assert train["epsilon"] == pytest.approx([0.62, 0.24, 0.05, 0.05, 0.05, 0.05])
    for key in ("loss", "q_mean", "grad_norm"):
        assert all(value > 0 for value in train[key]), key
    assert train["episode"] == [sum(s <= step for s in episodes["step"]) for step in train["step"]]

    top = int(np.argmax(evaluations["return_mean"]))
    assert metrics["best"] == {
        "return_mean": evaluations["return_mean"][top],
        "step": evaluations["step"][top],
    }
    assert metrics["finished"] == "trainer.max_steps=1200 reached"
    assert 0 < metrics["time"]["training_seconds"] < 120
    assert metrics["time"]["eta_seconds"] == 0


def test_metrics_jsonl_contains_every_record_in_order(finished_run: Path) -> None:
    lines = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    history = read_json(finished_run / "metrics.json")
    for kind, key, column in (
        ("episode", "train/return", history["episodes"]["return"]),
        ("train", "train/loss", history["train"]["loss"]),
        ("eval", "eval/return_mean", history["evaluations"]["return_mean"]),
    ):
        assert [line[key] for line in lines if line["kind"] == kind] == column
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    for line in lines:
        if line["kind"] == "train":
            assert line["time/eta"] >= 0
            assert line["time/steps_per_second"] > 0


def test_run_json_records_configuration_command_packages_and_hardware(finished_run: Path) -> None:
    document = read_json(finished_run / "run.json")
    assert document["config"]["trainer"]["max_steps"] == 1200
    (session,) = document["sessions"]
    assert session["overrides"] == [*BUDGET, "logging=[console,file,jsonl]"]
    assert session["command"][1:3] == ["-m", "dqn_runner"]
    assert session["command"][3:5] == list(BUDGET[:2])
    assert session["seeds"]["run"] == 0
    assert session["packages"].keys() >= {"torch", "gymnasium", "hydra-core", "numpy"}
    assert session["hardware"]["torch_threads"] == 1
    assert re.fullmatch(r"[0-9a-f]{64}", session["config_hash"])


def test_training_curves_are_a_readable_picture(finished_run: Path) -> None:
    with Image.open(finished_run / "training_curves.png") as picture:
        picture.load()
        assert picture.size >= (800, 600)
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 50


def test_best_and_latest_checkpoints_are_of_the_best_and_last_step(finished_run: Path) -> None:
    checkpoints = finished_run / "checkpoints"
    best = read_json(finished_run / "metrics.json")["best"]
    assert load_checkpoint(checkpoints / "best.pt")["step"] == best["step"]
    assert load_checkpoint(checkpoints / "latest.pt")["step"] == 1200


def test_the_same_seed_gives_the_same_records_and_another_seed_others(
    finished_run: Path, program: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert program(*BUDGET, "hydra.run.dir=same").status == 0
    assert program(*BUDGET, "hydra.run.dir=other", "seed=1").status == 0
    assert records(tmp_path / "same") == records(finished_run)
    assert records(tmp_path / "other") != records(finished_run)


def test_a_working_directory_that_was_removed_is_named(
    program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert program("--help").error.startswith("the working directory does not exist any more; change to")
