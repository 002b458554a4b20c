"""The report of a run shows what the run stored, loads nothing, and runs nothing that a run contains."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dqn_runner.core.exceptions import DamagedError, UserError
from dqn_runner.io import json_io
from dqn_runner.io.lock import RunLock
from dqn_runner.report import pages, stored_run
from dqn_runner.report.__main__ import main
from dqn_runner.report.charts import MAX_POINTS
from dqn_runner.report.configuration import continue_command, settings_of
from dqn_runner.report.history import read_history
from dqn_runner.report.run_page import run_page
from dqn_runner.report.stored_run import read_run
from tests.support.stored_runs import HOSTILE, charts_of, store_run, tags_of, text_of


def page_of(directory: Path, live: bool = True) -> str:
    """The page of a run; live pages have no pictures, which take most of the time."""
    return run_page(read_run(directory), live)


def test_the_page_shows_score_interval_time_and_the_command_that_continues(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", [10.0, 30.0, 20.0], seconds=200.0)
    text = text_of(page_of(run))
    assert (
        "last evaluation 20 95 % interval 19.25 to 20.75 · 4 episodes, greedy policy at env step 300" in text
    )
    assert "best evaluation 30" in text
    assert "the highest of 3, so it is optimistic" in text
    assert "training time 0:03:20" in text
    assert f"python -m dqn_runner resume={run} trainer.max_steps=4000" in text
    assert "finished trainer.max_steps=2000 reached" in text


def evaluated(run: Path, **changes: Any) -> None:
    """Write the result of mode=eval of a checkpoint of the run."""
    checkpoint = str(run / "checkpoints" / "latest.pt")
    result = {"checkpoint": checkpoint, "step": 100, "return_mean": 12.5, "return_ci95": [11.0, 14.0]}
    json_io.write_json(run / "eval.json", {**result, **changes})


def test_a_score_of_mode_eval_comes_first(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run")
    evaluated(run, return_ci95=[11.0, 14.0], episodes=100)
    text = text_of(page_of(run))
    assert (
        "score 12.5 95 % interval 11 to 14 · 100 greedy episodes of mode=eval, checkpoint of step 100" in text
    )


def test_a_score_of_a_single_episode_has_no_interval(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run")
    evaluated(run, return_ci95=None, episodes=1)
    text = text_of(page_of(run))
    assert "score 12.5 1 greedy episodes of mode=eval" in text


def test_an_evaluation_of_another_run_is_not_the_score(tmp_path: Path) -> None:
    run, other = store_run(tmp_path / "run"), store_run(tmp_path / "other", agent__gamma=0.5)
    checkpoint = other / "checkpoints" / "latest.pt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    evaluated(run, checkpoint=str(checkpoint))
    assert read_run(run).evaluation is None
    (other / "run.json").unlink()
    assert read_run(run).evaluation is None


def test_a_run_that_was_moved_or_copied_keeps_its_score(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "latest.pt").touch()
    evaluated(run)
    shutil.copytree(run, tmp_path / "copy")
    assert read_run(tmp_path / "copy").evaluation is not None
    shutil.rmtree(run)
    assert read_run(tmp_path / "copy").evaluation is not None, "as one that was moved"


def test_a_run_whose_lock_cannot_be_checked_is_not_called_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    run = store_run(tmp_path / "run")
    monkeypatch.setattr(stored_run, "reject_if_locked", unreadable)
    assert read_run(run).state == "finished"


@pytest.mark.parametrize(
    ("finished", "more"),
    [
        (None, ""),
        ("trainer.max_steps=2000 reached", " trainer.max_steps=4000"),
        ("trainer.max_episodes=7 reached", " trainer.max_episodes=14"),
        ("evaluation mean 500 reached trainer.target_return=475", " trainer.target_return=null"),
        ("no improvement in trainer.patience=50 evaluations", " trainer.early_stopping=false"),
    ],
)
def test_the_command_gives_a_finished_run_a_larger_budget(
    tmp_path: Path, finished: str | None, more: str
) -> None:
    assert continue_command(tmp_path, {}, finished) == f"python -m dqn_runner resume={tmp_path}{more}"


def test_the_command_of_an_own_environment_grants_it(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", env__id="my_pkg.envs:MyEnv")
    assert continue_command(run, read_run(run).config, None).endswith(" trust=true")


def test_settings_that_differ_from_the_defaults_are_marked(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", seed=3, agent__seed=3, agent__gamma=0.9)
    different = {
        s.key: (s.value, s.default) for s in settings_of(read_run(run).config) if s.default is not None
    }
    assert different == {"seed": ("3", "0"), "agent.gamma": ("0.9", "0.99")}
    assert "agent.gamma 0.9 0.99" in text_of(page_of(run))


def test_a_part_that_was_chosen_is_compared_with_its_own_defaults(tmp_path: Path) -> None:
    loss = {"_target_": "agent/loss=categorical", "num_atoms": 51, "v_min": -5.0, "v_max": 500.0}
    run = store_run(tmp_path / "run", agent__loss=loss)
    different = {s.key for s in settings_of(read_run(run).config) if s.default is not None}
    assert "agent.loss._target_" in different
    assert "agent.loss.num_atoms" not in different


def test_charts_are_linked_and_leave_out_what_was_not_measured(tmp_path: Path) -> None:
    charts = charts_of(page_of(store_run(tmp_path / "run")))
    assert list(charts) == ["return", "evaluation", "loss", "q", "epsilon", "length"]
    assert {chart["linked"] for chart in charts.values()} == {"steps"}
    (band,) = (band for band in charts["evaluation"]["bands"] if band["strong"])
    assert (band["low"], band["high"]) == ([9, 19], [11, 21])


def test_a_metric_of_the_user_has_a_chart(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": 300, "episode": 3, "my/lines": 4.0}) + "\n")
    chart = charts_of(page_of(run))["user0"]
    assert (chart["yLabel"], chart["lines"][0]["y"]) == ("my/lines", [None, None, 4])


def test_a_value_that_is_missing_or_null_is_nan(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", [10.0])
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": 200, "episode": 2, "train/loss": None}) + "\n")
    history = read_history(run)
    assert [np.isnan(history.column("train", name)[-1]) for name in ("step", "loss", "q_mean")] == [0, 1, 1]


def test_a_run_without_any_record_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    text = text_of(page_of(tmp_path / "run"))
    assert "not evaluated yet" in text
    assert "No records yet." in text


def test_sessions_tell_how_they_ended(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run")
    events = [("start", 0), ("saved", 100), ("killed", 150), ("resume", 100), ("ended", None)]
    lines = [
        {"time": f"2026-01-01T00:00:0{i}+00:00", "event": event} | ({} if step is None else {"step": step})
        for i, (event, step) in enumerate(events)
    ]
    lines[1]["names"] = ["best.pt"]  # pyright: ignore[reportArgumentType]
    (run / "timeline.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = page_of(run)
    assert "1 2026-01-01 00:00:00 2026-01-01 00:00:02 2.0 s 0 to 150 1 killed" in text_of(page)
    chart = charts_of(page)["timeline"]
    lines_of = {line["label"]: [y for y in line["y"] if y is not None] for line in chart["lines"]}
    assert lines_of == {
        "session 1": [0, 100, 150],
        "session 2": [100, 200],
        "checkpoint": [100],
        "best": [100],
        "killed": [150],
    }


def test_warnings_of_the_log_are_shown_without_secrets(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run")
    (run / "logs").mkdir()
    (run / "logs" / "training.log").write_text(
        "2026-01-01 00:00:00,000 INFO    all is well\n"
        "2026-01-01 00:00:01,000 WARNING the disk ftp://me:hunter22@host is slow\n"
        "2026-01-01 00:00:02,000 ERROR   training failed\nTraceback (most recent call last):\n  boom\n"
        "2026-01-01 00:00:03,000 INFO    bye\n"
    )
    text = text_of(page_of(run))
    assert "warning 2026-01-01 00:00:01 the disk ftp://me:***@host is slow" in text
    assert "error 2026-01-01 00:00:02 training failed" in text
    assert "boom" in text
    assert "all is well" not in text
    assert "hunter22" not in text


def test_a_run_that_is_being_written_is_running(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", finished=None)
    assert read_run(run).state == "stopped"
    lock = RunLock(run)
    lock.acquire()
    assert read_run(run).state == "running"
    lock.release()


def test_a_recorded_episode_is_shown_as_film_strip_and_as_animation_if_it_is_small(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run")
    frames = [Image.new("RGB", (60, 40), (25 * i, 0, 0)) for i in range(10)]
    frames[0].save(run / "eval.gif", save_all=True, append_images=frames[1:])
    sources = [attrs.get("src") or "" for tag, attrs in tags_of(page_of(run)) if tag == "img"]
    assert [source[:15] for source in sources] == ["data:image/gif;", "data:image/png;"]
    (run / "eval.gif").write_bytes(b"GIF89a no picture")
    assert not [tag for tag, _ in tags_of(page_of(run)) if tag == "img"]


def test_hostile_texts_do_not_run(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", env__id=HOSTILE, overrides=[f"env.id={HOSTILE}"], finished=HOSTILE)
    (run / "logs").mkdir()
    (run / "logs" / "training.log").write_text(f"2026-01-01 00:00:01,000 WARNING {HOSTILE}\n")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": 300, "episode": 3, HOSTILE: 4.0}) + "\n")
    page = page_of(run, live=False)
    harmless = page_of(store_run(tmp_path / "other"), live=False)
    scripts = [tag for tag, _ in tags_of(page) if tag == "script"]
    assert scripts == [tag for tag, _ in tags_of(harmless) if tag == "script"]
    assert not [attrs for _, attrs in tags_of(page) if any(name.startswith("on") for name in attrs)]
    assert not [
        attrs for tag, attrs in tags_of(page) if tag == "img" and not (attrs["src"] or "").startswith("data:")
    ]
    assert charts_of(page)["user0"]["yLabel"] == HOSTILE
    assert "{{7*7}}" in text_of(page)


def test_nothing_outside_of_the_page_is_named_or_allowed(tmp_path: Path) -> None:
    page = page_of(store_run(tmp_path / "run"), live=False)
    loading = [(t, a) for t, a in tags_of(page) if t in ("link", "iframe", "object", "embed", "form", "base")]
    assert not loading
    sources = [a["src"] or "" for _, a in tags_of(page) if "src" in a]
    assert sources
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    policy = next(a["content"] or "" for t, a in tags_of(page) if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "connect-src 'none'" in policy
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script == [pages._script()]  # pyright: ignore[reportPrivateUsage]


def test_scripts_contain_nothing_that_ends_their_element() -> None:
    assert not re.search(r"</script|<!--", pages._script(), re.IGNORECASE)  # pyright: ignore[reportPrivateUsage]
    assert "\u2028" not in pages.as_data("\u2028")


def long_run(directory: Path, episodes: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    returns = rng.normal(100, 10, episodes).round(3)
    returns[episodes // 3], returns[episodes // 2] = 999.0, -999.0
    store_run(directory)
    with (directory / "metrics.jsonl").open("w") as file:
        for i, value in enumerate(returns, start=1):
            values = {"train/return": float(value), "train/length": 50.0}
            file.write(json.dumps({"kind": "episode", "step": 50 * i, "episode": i, **values}) + "\n")
    return {"returns": returns}


def test_a_long_run_is_thinned_and_keeps_minimum_and_maximum(tmp_path: Path) -> None:
    long_run(tmp_path / "run", 20_000)
    page = page_of(tmp_path / "run")
    chart = charts_of(page)["return"]
    values = chart["lines"][0]["y"]
    assert len(values) <= MAX_POINTS + 2
    assert (min(values), max(values)) == (-999, 999)
    assert chart["x"] == sorted(chart["x"])
    assert len(page) < 300_000


def test_a_usual_page_with_its_pictures_is_small(tmp_path: Path) -> None:
    long_run(tmp_path / "run", 5_000)
    started = time.process_time()
    page = page_of(tmp_path / "run", live=False)
    assert len(page) < 600_000
    assert time.process_time() - started < 30
    assert sum(tag == "img" for tag, _ in tags_of(page)) == len(charts_of(page))


def test_a_partial_last_record_is_left_out_and_a_damaged_one_is_reported(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", [10.0])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "ep')
    assert read_history(run).env_steps == 100
    with (run / "metrics.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(DamagedError, match=r"metrics\.jsonl is damaged"):
        read_history(run)


def test_metrics_json_alone_is_enough(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", [10.0, 20.0])
    (run / "metrics.jsonl").unlink()
    assert read_history(run).column("eval", "return_mean").tolist() == [10.0, 20.0]
    (run / "metrics.json").write_text('{"episodes": 3}')
    with pytest.raises(DamagedError, match=r"metrics\.json is damaged"):
        read_history(run)


def test_the_command_writes_the_page_beside_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = store_run(tmp_path / "run")
    main([str(run)])
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert "last evaluation" in text_of((run / "report.html").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing is not a directory"),
        (["."], r"\. contains no runs"),
        (["run", "--by", "agent"], "--by groups the runs of a comparison"),
        (["run", "-o", "run"], "run is a directory; give -o the name of a file"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "run" in arguments:
        store_run(tmp_path / "run")
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"error: {message}", line)


def test_a_directory_without_a_run_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the directory of a run"):
        read_run(tmp_path)
