"""TensorBoard logger."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_module
from dqn_runner.core.records import Record, RunInfo
from dqn_runner.core.registry import option
from dqn_runner.core.state import State
from dqn_runner.io.video import as_gif
from dqn_runner.loggers.base import Logger


@option("logging", "tensorboard", package="logging.tensorboard")
@dataclass(kw_only=True)
class TensorBoard:
    """`tensorboard/`: event files for `tensorboard --logdir`."""

    state_type: ClassVar[type] = dict[str, int]

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """Open a writer; events that an earlier session wrote after the checkpoint are purged."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "logging=tensorboard needs the tensorboard package: pip install 'dqn_runner[tensorboard]'"
            ) from error
        purge = None if state is None else state["step"] + 1
        return _TensorBoard(SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge), state)


class _TensorBoard:
    def __init__(self, writer: Any, state: State | None) -> None:
        self._writer = writer
        self._step: int = 0 if state is None else state["step"]

    def write(self, record: Record) -> None:
        self._step = record.step
        for key, value in record.values.items():
            self._writer.add_scalar(key, value, record.step)

    def write_video(self, path: Path, step: int) -> None:
        """TensorBoard shows a gif as an image."""
        Summary: Any = import_module("tensorboard.compat.proto.summary_pb2", "a video").Summary  # noqa: N806
        content = as_gif(path)
        width, height = (int.from_bytes(content[at : at + 2], "little") for at in (6, 8))
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=content)
        summary = Summary(value=[Summary.Value(tag="eval/video", image=image)])
        self._writer._get_file_writer().add_summary(summary, step)

    def state_dict(self) -> State:
        with suppress(OSError):  # a full disk is reported where records are written
            self._writer.flush()
        return {"step": self._step}

    def close(self, failed: bool) -> None:
        self._writer.close()
