"""Videos of greedy episodes, on an environment of their own: they change nothing of the run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.log import log
from dqn_runner.core.rng import eval_seeds
from dqn_runner.core.state import State, crossed
from dqn_runner.envs.base import EnvPart
from dqn_runner.envs.checked_env import make_env
from dqn_runner.io.video import Video
from dqn_runner.loggers.logger_group import LoggerGroup
from dqn_runner.training.callbacks import Run
from dqn_runner.training.config import TrainingConfig
from dqn_runner.training.evaluator import Evaluation, Evaluator, Policy

FOLDER = "videos"
"""Directory of the videos in the directory of a run."""
DEFAULT_FPS = 20
"""Frames per second of an environment that does not say."""


def record(evaluator: Evaluator, policy: Policy, episodes: int, stem: Path) -> Path:
    """Record the first episodes of `evaluator`, whose environment renders; returns the file.

    Raises UserError if the environment does not render, or the encoder fails.
    """
    fps = float(evaluator.env.metadata.get("render_fps") or DEFAULT_FPS)
    video: Video | None = None
    try:
        video = Video(stem, fps)
        evaluator.run(policy, episodes, lambda env: video.add(env.render()))
        return video.save()
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"no video could be made: {reason:.300}") from error
    finally:
        if video is not None:
            video.discard()


def rendering_evaluator(env: EnvPart, seeds: Any, max_episode_steps: int | None) -> Evaluator:
    """An evaluator whose environment renders pictures; raises UserError if it does not."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without a display
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        made = make_env(env, seeds(-1), training=False, render=True)
        if getattr(made, "render_mode", None) != "rgb_array":
            made.close()
            raise UserError("it has no render_mode rgb_array")
        return Evaluator(made, seeds, max_episode_steps)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"this environment cannot be rendered: {reason:.300}") from error


class VideoRecorder:
    """Records the first evaluation episode when `trainer.video_frequency` has passed; a callback."""

    def __init__(self, env: EnvPart, config: TrainingConfig, policy: Policy, loggers: LoggerGroup) -> None:
        """`policy` is greedy; `loggers` get the videos too."""
        self.every = config.video_frequency
        """Position from one video to the next; None for no videos."""
        self._env, self._policy, self._loggers = env, policy, loggers
        self._limit = config.max_steps_per_episode
        self._last = 0
        self._failed = False

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> None:
        """Record a video if one is due. A failure is reported once, and ends the videos, not the run."""
        previous, self._last = self._last, run.position
        if self._failed or self.every is None or not crossed(previous, self._last, self.every):
            return
        try:
            evaluator = rendering_evaluator(self._env, eval_seeds("eval"), self._limit)
            try:
                path = record(evaluator, self._policy, 1, run.directory / FOLDER / f"step_{run.step:010d}")
            finally:
                evaluator.close()
        except UserError as error:
            self._failed = True
            log.warning("trainer.video_frequency: %s; the run continues without videos", error)
        else:
            self._loggers.write_video(path, run.step)

    def state_dict(self) -> State:
        """The position of the last evaluation."""
        return {"last": self._last}

    def load_state_dict(self, state: State) -> None:
        """Restore it."""
        self._last = state["last"]
