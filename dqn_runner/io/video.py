"""Videos: mp4 by ffmpeg where imageio-ffmpeg is installed, otherwise gif."""

from __future__ import annotations

import importlib
import importlib.util
import io
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqn_runner.io.entries import require_file
from dqn_runner.io.files import TEMPORARY, remove, write_atomically

SMALLEST = 200
"""Smaller frames are enlarged to this many pixels: those of MinAtar have ten."""
GIF_PIXELS = 400
"""Frames of a gif, which is held in memory, are reduced to this size."""
GIF_FRAMES = 1_000
"""Most frames of a gif; of a longer video, every second one, or every third, is left out."""

CONVERSION_SECONDS = 60
"""A conversion that takes longer is given up."""

_LIBRARY = "imageio_ffmpeg"
"""It brings ffmpeg; it has no types."""

Frame = NDArray[np.uint8]
"""[height, width, 3]"""


def has_ffmpeg() -> bool:
    """Whether videos are mp4."""
    if importlib.util.find_spec(_LIBRARY) is None:
        return False
    try:
        return bool(_ffmpeg().get_ffmpeg_exe())
    except RuntimeError:
        return False


class Video:
    """A video that grows frame by frame, and has its name once it is complete.

    Every method may raise OSError or RuntimeError if the encoder fails, and `add` ValueError for what is no
    frame; call `discard` then.
    """

    def __init__(self, stem: Path, fps: float) -> None:
        """The file is `stem` with the suffix .mp4 or .gif."""
        is_mp4 = has_ffmpeg()
        self.path = stem.with_name(stem.name + (".mp4" if is_mp4 else ".gif"))
        require_file(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fps = fps
        self._gif = None if is_mp4 else _Gif()
        self._temporary = self.path.with_name(f"{stem.name}{TEMPORARY}.mp4")
        """ffmpeg chooses the format by the suffix."""
        self._ffmpeg: Any = None

    def add(self, rendered: Any) -> None:
        """Add a frame [height, width, 3], uint8 or numbers from 0 to 1."""
        frame = as_frame(rendered)
        if self._gif is not None:
            self._gif.add(frame)
            return
        if self._ffmpeg is None:
            size = (frame.shape[1], frame.shape[0])
            self._ffmpeg = _ffmpeg().write_frames(
                self._temporary, size, fps=self._fps, macro_block_size=1, ffmpeg_log_level="error"
            )
            self._ffmpeg.send(None)
        self._ffmpeg.send(np.ascontiguousarray(frame))

    def save(self) -> Path:
        """Complete the file, and return it."""
        if self._gif is not None:
            write_atomically(self.path, self._gif.encode(self._fps))
        else:
            self._ffmpeg.close()
            self._temporary.replace(self.path)
        return self.path

    def discard(self) -> None:
        """Leave nothing of a video that could not be completed."""
        if self._ffmpeg is not None:
            with suppress(Exception):
                self._ffmpeg.close()
        remove(self._temporary)


class _Gif:
    """An animated gif of at most GIF_FRAMES frames."""

    def __init__(self) -> None:
        self._pictures: list[Any] = []
        self._number, self._step = 0, 1

    def add(self, frame: Frame) -> None:
        from PIL import Image

        self._number += 1
        if (self._number - 1) % self._step:
            return
        picture = Image.fromarray(frame)
        picture.thumbnail((GIF_PIXELS, GIF_PIXELS))
        self._pictures.append(picture.quantize(64, dither=Image.Dither.NONE))
        if len(self._pictures) > GIF_FRAMES:
            self._pictures, self._step = self._pictures[::2], 2 * self._step

    def encode(self, fps: float) -> bytes:
        first, *others = self._pictures
        content = io.BytesIO()
        duration = max(20, round(1000 * self._step / fps))
        first.save(content, "GIF", save_all=True, append_images=others, duration=duration, loop=0)
        return content.getvalue()


def as_gif(path: Path) -> bytes:
    """A written video as a gif, for programs that show no other."""
    if path.suffix == ".gif":
        return path.read_bytes()
    size = f"scale='min({GIF_PIXELS},iw)':-2"
    command = [_ffmpeg().get_ffmpeg_exe(), "-loglevel", "error", "-i", str(path)]
    command += ["-frames:v", str(GIF_FRAMES), "-vf", size, "-f", "gif", "-"]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=CONVERSION_SECONDS
    ).stdout


def _ffmpeg() -> Any:
    return importlib.import_module(_LIBRARY)


def as_frame(rendered: Any, smallest: int = SMALLEST) -> Frame:
    """What an environment rendered as a frame of even size, at least `smallest` pixels wide."""
    frame = np.asarray(rendered)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype.kind not in "fiub":
        kind = "nothing" if rendered is None else f"{type(rendered).__name__} {frame.shape}"
        raise ValueError(f"render() returned {kind}, not a picture [height, width, 3]")
    if frame.dtype != np.uint8:
        frame = (
            (np.clip(frame, 0, 1) * 255).astype(np.uint8)
            if frame.dtype.kind == "f"
            else frame.astype(np.uint8)
        )
    scale = max(1, smallest // min(frame.shape[:2]))
    frame = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
