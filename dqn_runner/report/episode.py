"""The recorded greedy episode of a run, small enough for a page; a report runs no environment."""

from __future__ import annotations

import io
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqn_runner.io.entries import is_file
from dqn_runner.io.video import as_gif
from dqn_runner.report.pictures import data_url
from dqn_runner.training.video import FOLDER as VIDEOS

MOST_BYTES = 250_000
"""A larger video is shown as a strip of frames only."""
FRAMES = 8
FRAME_HEIGHT = 110
LARGEST_FILE = 200_000_000


@dataclass(frozen=True)
class Episode:
    """A recorded episode, as data URLs."""

    strip: str
    """Frames from the start to the end beside each other."""
    video: str | None
    """The animation; None if it is too large for a page."""
    frames: int


def greedy_episode(run_dir: Path) -> Episode | None:
    """The newest recorded episode; None if there is none, or if it cannot be shown here."""
    found = [run_dir / f"eval{suffix}" for suffix in (".gif", ".mp4")]
    found += [path for suffix in (".gif", ".mp4") for path in (run_dir / VIDEOS).glob(f"*{suffix}")]
    videos = [path for path in found if is_file(path) and path.stat().st_size <= LARGEST_FILE]
    if not videos:
        return None
    try:
        from PIL import Image

        content = as_gif(max(videos, key=lambda path: path.stat().st_mtime))
        with Image.open(io.BytesIO(content), formats=["GIF"]) as video:
            count: int = getattr(video, "n_frames", 1)
            strip = _strip(video, count)
    except (ImportError, OSError, ValueError, EOFError, RuntimeError, subprocess.SubprocessError):
        return None  # it is not a video, or was recorded on a machine with other libraries
    return Episode(strip, data_url(content, "image/gif") if len(content) <= MOST_BYTES else None, count)


def _strip(video: Any, count: int) -> str:
    """Frames at equal distances in one picture."""
    from PIL import Image

    shown = min(FRAMES, count)
    frames: list[Any] = []
    for index in range(shown):
        video.seek(round(index * (count - 1) / max(1, shown - 1)))
        width = max(1, round(video.width * FRAME_HEIGHT / video.height))
        frames.append(video.convert("RGB").resize((width, FRAME_HEIGHT)))
    strip = Image.new("RGB", (sum(f.width for f in frames) + 4 * (shown - 1), FRAME_HEIGHT), "white")
    left = 0
    for frame in frames:
        strip.paste(frame, (left, 0))
        left += frame.width + 4
    content = io.BytesIO()
    strip.convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(content, "PNG", optimize=True)
    return data_url(content.getvalue(), "image/png")
