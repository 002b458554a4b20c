"""Videos of greedy episodes, during training and after it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dqn_runner.inference.publish import model_card
from dqn_runner.io import video
from dqn_runner.io.video import Video, as_frame, as_gif
from tests.conftest import BUDGET, Outcome, records

FRAMES = [np.full((21, 31, 3), 40 * number, np.uint8) for number in range(5)]


def write(stem: Path, frames: list[Any]) -> Path:
    made = Video(stem, 20)
    try:
        for frame in frames:
            made.add(frame)
        return made.save()
    finally:
        made.discard()


def frames_of(content: bytes) -> int:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        return int(getattr(picture, "n_frames"))  # noqa: B009


@pytest.fixture(params=["mp4", "gif"])
def suffix(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "gif":
        monkeypatch.setattr(video, "has_ffmpeg", lambda: False)
    return request.param


@pytest.mark.slow
def test_a_video_is_written_and_can_be_converted(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / "sub" / "a", FRAMES)
    assert path.name == f"a.{suffix}"
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert frames_of(as_gif(path)) == 5


@pytest.mark.slow
@pytest.mark.usefixtures("suffix")
@pytest.mark.parametrize("bad", [None, np.zeros((3, 3)), "text", np.zeros((4, 4, 4))])
def test_a_video_that_fails_leaves_no_file(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(ValueError, match="not a picture"):
        write(tmp_path / "a", [FRAMES[0], bad])
    assert list(tmp_path.iterdir()) == []


def test_small_pictures_are_enlarged_and_have_even_sizes() -> None:
    grid = np.zeros((10, 10, 3))
    grid[0, 0] = 1.0
    frame = as_frame(grid)
    assert (frame.shape, frame.dtype) == ((200, 200, 3), np.uint8)
    assert (frame[:20, :20] == 255).all()
    assert not frame[20:].any()
    assert as_frame(np.zeros((211, 333, 3), np.uint8)).shape == (212, 334, 3)


def test_a_long_gif_has_a_bounded_number_of_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "has_ffmpeg", lambda: False)
    monkeypatch.setattr(video, "GIF_FRAMES", 10)
    frames = [np.full((200, 200, 3), number, np.uint8) for number in range(75)]
    assert 5 <= frames_of(write(tmp_path / "a", frames).read_bytes()) <= 10


FILM = ("trainer.video_frequency=500", "trainer.eval_episodes=1", "trainer.max_steps_per_episode=20")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_videos_change_nothing_of_a_run_and_reach_tensorboard(
    program: Callable[..., Outcome], tmp_path: Path, suffix: str
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = program(*BUDGET, *FILM, "logging=[jsonl,tensorboard]", "hydra.run.dir=run")
    assert done.status == 0, done.err
    names = sorted(path.name for path in (tmp_path / "run/videos").iterdir())
    assert names == [f"step_{step:010d}.{suffix}" for step in (800, 1200)]
    done = program(*BUDGET, *FILM[1:], "logging=[jsonl]", "hydra.run.dir=plain")
    assert records(tmp_path / "run") == records(tmp_path / "plain")
    events = EventAccumulator(str(tmp_path / "run/tensorboard"), size_guidance={"images": 0}).Reload()
    images = events.Images("eval/video")
    assert [image.step for image in images] == [800, 1200]
    assert frames_of(images[0].encoded_image_string) > 2


@pytest.mark.slow
def test_what_goes_wrong_with_videos_is_one_line_and_the_run_continues(
    program: Callable[..., Outcome], tmp_path: Path, my_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = program(*BUDGET, *FILM, "env=gym", f"env.id={my_env}", "hydra.run.dir=run")
    assert done.status == 0, done.err
    assert done.err.count("this environment cannot be rendered") == 1

    def fail(*_: Any) -> None:
        raise RuntimeError("ffmpeg is gone")

    monkeypatch.setattr(Video, "add", fail)
    done = program(*BUDGET, *FILM, "hydra.run.dir=other")
    assert done.status == 0, done.err
    assert done.err.count("no video could be made: RuntimeError: ffmpeg is gone; the run continues") == 1
    assert list((tmp_path / "other").rglob("*.mp4")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "env",
    [
        pytest.param(["env=cartpole"], id="cartpole"),
        pytest.param(["env=minatar"], id="minatar", marks=pytest.mark.nightly),
    ],
)
def test_play_shows_episodes_in_a_window(
    program: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, env: list[str]
) -> None:
    short = ("trainer.max_steps=600", "trainer.max_steps_per_episode=10", "hydra.run.dir=run")
    assert program(*BUDGET, *env, *short).status == 0
    play = ("mode=play", "checkpoint=run", "evaluator.episodes=2")
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(variable, raising=False)
    assert "needs a display" in program(*play).error
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    done = program(*play)
    assert done.status == 0, done.err
    assert done.out.count("episode ") == 2


@pytest.mark.slow
def test_play_reports_an_environment_that_does_not_render(
    program: Callable[..., Outcome], my_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert program(*BUDGET, "env=gym", f"env.id={my_env}", "hydra.run.dir=run").status == 0
    assert "cannot be rendered" in program("mode=play", "checkpoint=run", "trust=true").error
    assert "needs checkpoint=PATH" in program("mode=play").error


def test_the_model_card_shows_masks_imports_and_entries() -> None:
    layout = SimpleNamespace(entry_shapes={"a": (2, 3), "b": ()}, entry_dtypes={"a": "uint8", "b": "int64"})
    about = dict.fromkeys(("dqn_runner", "run", "checkpoint", "config_hash", "best_return_mean", "best_step"))
    agent: Any = SimpleNamespace(
        provenance=about,
        has_action_mask=True,
        layout=layout,
        step=9,
        num_actions=2,
        obs_shape=(),
        obs_dtype="",
    )
    score = dict.fromkeys(("return_mean", "return_std", "return_min", "return_max", "episodes"), 1.0)
    config = {"env": {"id": "Nim"}, "agent": {"network": {"_target_": "my_pkg:MyNet"}}}
    card = model_card(agent, config, {**score, "return_ci95": None, "metrics": {}}, False)
    assert 'load_agent("PATH_OF_THIS_FOLDER", trust=True)' in card
    assert "`trust=True` allows to import my_pkg:MyNet." in card
    assert "agent.predict(observation, action_mask=action_mask)" in card
    assert "| observations | `a`: uint8 [2, 3], `b`: int64 [] |" in card


@pytest.mark.slow
def test_publish_writes_a_folder_that_load_agent_and_eval_take(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    from dqn_runner import load_agent

    assert program(*BUDGET, "hydra.run.dir=run").status == 0
    publish = (
        "mode=publish",
        "checkpoint=run/checkpoints/best.pt",
        "evaluator.episodes=3",
        "hydra.run.dir=out",
    )
    done = program(*publish)
    assert done.status == 0, done.err
    folder = tmp_path / "out" / "published"
    names = {"README.md", "agent.safetensors", "best.pt", "config.json", "eval.json"}
    assert {path.name for path in folder.iterdir()} == names, "without curves, which this run did not draw"
    card = (folder / "README.md").read_text()
    score = json.loads((folder / "eval.json").read_text())
    low, high = score["return_ci95"]
    assert (
        f"| mean return | {score['return_mean']:.2f}, 95 % confidence interval [{low:.2f}, {high:.2f}] |"
        in card
    )
    assert "TO FILL IN" in card
    assert 'load_agent("PATH_OF_THIS_FOLDER")' in card
    assert "agent.predict(observation)" in card
    for path in folder.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    published, original = load_agent(folder), load_agent(tmp_path / "run")
    assert np.array_equal(published.q_values(observations), original.q_values(observations))
    done = program(
        "mode=eval", "checkpoint=out/published/best.pt", "evaluator.episodes=3", "hydra.run.dir=eval"
    )
    assert json.loads((tmp_path / "eval/eval.json").read_text())["returns"] == score["returns"]
    assert "already exists; nothing was changed" in program(*publish).error
    error = program("resume=out/published/best.pt", "trainer.max_steps=1300").error
    assert error.endswith("it can be evaluated, loaded and exported")
