"""mode=eval: a checkpoint is evaluated on fixed seeds, and the run that wrote it is not touched."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.io.json_io import read_json
from dqn_runner.io.video import as_gif
from tests.conftest import BUDGET, Outcome

pytestmark = pytest.mark.slow


def test_evaluation_of_a_checkpoint_writes_eval_json_and_prints_a_summary(
    finished_run: Path, program: Callable[..., Outcome], tmp_path: Path
) -> None:
    best = finished_run / "checkpoints" / "best.pt"
    done = program("mode=eval", f"checkpoint={best}", "hydra.run.dir=evaluation", "evaluator.episodes=20")
    assert done.status == 0, done.err
    result = read_json(tmp_path / "evaluation" / "eval.json")
    returns = result["returns"]
    assert len(returns) == len(result["lengths"]) == result["episodes"] == 20
    assert result["checkpoint"] == str(best)
    assert result["step"] == load_checkpoint(best)["step"]
    assert result["return_mean"] == pytest.approx(np.mean(returns))
    assert result["return_std"] == pytest.approx(np.std(returns))
    assert (result["return_min"], result["return_max"]) == (min(returns), max(returns))
    low, high = result["return_ci95"]
    assert low <= result["return_mean"] <= high
    assert 1 < (high - low) / (result["return_std"] / np.sqrt(20)) < 6, "about 2 * 1.96 standard errors"
    mean, std = f"mean {result['return_mean']:.2f}", f"std {result['return_std']:.2f}"
    assert f"{mean}, {std}, 95% CI [{low:.2f}, {high:.2f}]" in done.out
    assert f"min {min(returns):g}, max {max(returns):g}" in done.out


def test_a_single_episode_has_no_confidence_interval(
    finished_run: Path, program: Callable[..., Outcome], tmp_path: Path
) -> None:
    args = (f"checkpoint={finished_run}", "evaluator.episodes=1", "hydra.run.dir=out")
    done = program("mode=eval", *args)
    assert done.status == 0, done.err
    assert ", std 0.00, min " in done.out
    result = read_json(tmp_path / "out" / "eval.json")
    assert result["return_ci95"] is None
    done = program("mode=publish", *args)
    assert done.status == 0, done.err
    card = (tmp_path / "out" / "published" / "README.md").read_text()
    assert f"| mean return | {result['return_mean']:.2f} |" in card


def test_evaluation_is_repeatable_and_another_seed_gives_other_episodes(
    finished_run: Path, program: Callable[..., Outcome], tmp_path: Path
) -> None:
    for name, extra in (("a", []), ("b", []), ("c", ["evaluator.seed=1"])):
        args = ("mode=eval", f"checkpoint={finished_run}", "evaluator.episodes=10", *extra)
        assert program(*args, f"hydra.run.dir={name}").status == 0
    a, b, c = (read_json(tmp_path / name / "eval.json")["returns"] for name in "abc")
    assert a == b
    assert a != c


def test_evaluation_of_a_run_directory_uses_its_latest_checkpoint_and_changes_no_file(
    run_copy: Path, program: Callable[..., Outcome], tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")}
    done = program("mode=eval", "checkpoint=run", "evaluator.episodes=2")
    assert done.status == 0, done.err
    assert f"{run_copy}/checkpoints/latest.pt\n" in done.out
    assert {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")} == before
    assert list(tmp_path.glob("outputs/*/*/eval.json"))


def test_settings_that_the_agent_does_not_fit_are_named(
    finished_run: Path, program: Callable[..., Outcome]
) -> None:
    done = program("mode=eval", f"checkpoint={finished_run}", "env=acrobot", "evaluator.episodes=1")
    assert "changed for this evaluation: env.id: CartPole-v1 -> Acrobot-v1\n" in done.out
    assert "latest.pt does not fit the settings of this command; leave those of the agent and" in done.error


def test_evaluation_of_a_user_env_makes_it_with_the_stored_arguments(
    my_env: str, program: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert program(f"env.id={my_env}", "env.kwargs.gain=3", *BUDGET, "hydra.run.dir=run").status == 0
    args = ("mode=eval", "checkpoint=run", "evaluator.episodes=2", "hydra.run.dir=evaluation")
    assert program(*args).error.startswith("checkpoint=run asks for env.id=my_pkg.envs.MyEnv, ")
    assert not (tmp_path / "evaluation").exists()
    done = program(*args, f"env.id={my_env}")
    assert done.status == 0, done.err
    result = read_json(tmp_path / "evaluation" / "eval.json")
    assert result["lengths"] == [20, 20]
    assert {value % 3 for value in result["returns"]} == {0.0}


def test_evaluation_records_a_video_if_the_env_renders(
    finished_run: Path, run_cli_here: Callable[..., Outcome], tmp_path: Path
) -> None:
    args = ("mode=eval", f"checkpoint={finished_run}", "evaluator.episodes=1", "evaluator.video=true")
    done = run_cli_here(*args, "hydra.run.dir=evaluation")
    assert done.status == 0, done.err
    with Image.open(io.BytesIO(as_gif(tmp_path / "evaluation" / "eval.mp4"))) as video:
        length = read_json(tmp_path / "evaluation" / "eval.json")["lengths"][0]
        frames: int = getattr(video, "n_frames")  # noqa: B009
        assert length / 2 < frames <= length + 1, "GIF merges equal consecutive frames"
        assert video.size >= (300, 200)


def test_evaluation_with_video_reports_an_env_that_does_not_render(
    my_env: str, program: Callable[..., Outcome]
) -> None:
    assert program(f"env.id={my_env}", *BUDGET, "hydra.run.dir=run").status == 0
    args = ("mode=eval", "checkpoint=run", "evaluator.episodes=1", "evaluator.video=true", "trust=true")
    assert program(*args).error.startswith("evaluator.video: this environment cannot be rendered: ")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["mode=eval"], "mode=eval needs checkpoint=PATH"),
        (["mode=eval", "checkpoint=nowhere.pt"], "nowhere.pt does not exist"),
        (
            ["checkpoint=run"],
            "checkpoint= is for mode=eval, play, export, publish, record and report; use resume= to continue "
            "training",
        ),
    ],
)
@pytest.mark.usefixtures("run_copy")
def test_evaluation_without_a_usable_checkpoint_is_rejected_in_one_line(
    program: Callable[..., Outcome], args: list[str], message: str
) -> None:
    assert message in program(*args).error


def test_an_agent_is_evaluated_without_the_module_of_a_callback(
    program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "gone.py"
    module.write_text("class Mine:\n    def on_evaluation(self, run, evaluation): pass\n")
    callback = ("+callbacks.mine._target_=gone.Mine", "hydra.run.dir=run")
    assert program(*BUDGET, *callback).status == 0
    module.unlink()
    monkeypatch.delitem(sys.modules, "gone")
    done = program("mode=eval", "checkpoint=run", "evaluator.episodes=2", "trust=true")
    assert done.status == 0, done.err
    assert "callbacks.mine cannot be built" in program("resume=run", "trust=true").err
