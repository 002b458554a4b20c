"""mode=play: show greedy episodes of a checkpoint in a window."""

from __future__ import annotations

import os
import sys
from typing import Any

from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.cli.evaluate import stored_agent
from dqn_runner.cli.job import Job
from dqn_runner.config.build import build_evaluator
from dqn_runner.config.schema import RunConfig
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_module
from dqn_runner.envs.base import Env
from dqn_runner.envs.minatar import MinAtar
from dqn_runner.io.signals import exits_as_errors
from dqn_runner.io.video import as_frame
from dqn_runner.training.evaluator import EvaluationStopped, Evaluator
from dqn_runner.training.video import DEFAULT_FPS

SCALE = 400
"""Smaller pictures are enlarged to this many pixels."""


def play(job: Job) -> float:
    """Show `evaluator.episodes` episodes, and return the mean return of those that were shown."""
    if job.stored is None:
        raise UserError("mode=play needs checkpoint=PATH, a checkpoint or a run directory")
    if not _has_display():
        raise UserError(
            "mode=play needs a display, and this session has none (DISPLAY and WAYLAND_DISPLAY are not set); "
            "mode=eval evaluator.video=true writes a video instead"
        )
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    path = job.stored.path
    agent = stored_agent(job.run, path, load_checkpoint(path))
    evaluator, window = _open(job.run)
    totals: list[float] = []
    print(f"{path}: greedy episodes; close the window or press Ctrl-C to stop")
    try:
        with exits_as_errors():
            for index in range(job.run.evaluator.episodes):
                on_frame = window.show if window is not None else None
                stops = window.is_closed if window is not None else lambda: False
                played = evaluator.run(agent.greedy, 1, on_frame, stops, first=index)
                totals += played.returns
                print(f"episode {index + 1}: return {played.mean:g}, {played.lengths[0]} steps", flush=True)
    except EvaluationStopped:
        print("the window was closed")
    finally:
        evaluator.close()
    return sum(totals) / len(totals) if totals else 0.0


def _has_display() -> bool:
    variables = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    return not sys.platform.startswith("linux") or any(map(os.environ.get, variables))


def _open(run: RunConfig) -> tuple[Evaluator, _Window | None]:
    """An environment that shows itself, or one whose pictures are shown in a window of ours."""
    if not isinstance(run.env, MinAtar):  # its own window needs a toolkit of matplotlib
        try:
            evaluator = build_evaluator(run, render="human")
        except Exception as error:
            reason = " ".join(str(error).split())
        else:
            if getattr(evaluator.env, "render_mode", None) == "human":
                return evaluator, None
            evaluator.close()
            reason = "it has no render_mode human"
    else:
        reason = ""
    try:
        evaluator = build_evaluator(run, render=True)
    except Exception as error:
        raise UserError(f"mode=play: this environment cannot be rendered: {reason or error}") from error
    if getattr(evaluator.env, "render_mode", None) != "rgb_array":
        evaluator.close()
        raise UserError(f"mode=play: this environment cannot be rendered: {reason}")
    return evaluator, _Window(float(evaluator.env.metadata.get("render_fps") or DEFAULT_FPS))


class _Window:
    """A window of pygame that shows the pictures of an environment."""

    def __init__(self, fps: float) -> None:
        self._pygame: Any = import_module("pygame", "mode=play", extra="render")
        self._pygame.init()
        self._clock = self._pygame.time.Clock()
        self._fps = fps
        self._screen: Any = None

    def show(self, env: Env) -> None:
        """Show the picture that `env` renders now."""
        frame = as_frame(env.render(), SCALE)
        size = (frame.shape[1], frame.shape[0])
        if self._screen is None:
            self._screen = self._pygame.display.set_mode(size)
        self._screen.blit(self._pygame.surfarray.make_surface(frame.swapaxes(0, 1)), (0, 0))
        self._pygame.display.flip()
        self._clock.tick(self._fps)

    def is_closed(self) -> bool:
        """Whether the user has closed the window."""
        return any(event.type == self._pygame.QUIT for event in self._pygame.event.get())
