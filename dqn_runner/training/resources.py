"""Memory and disk space that a run needs, estimated before its first step."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from dqn_runner.agent.config import DQNConfig
from dqn_runner.core.exceptions import NoRoomError
from dqn_runner.core.types import EnvSpec
from dqn_runner.io.entries import is_file
from dqn_runner.training.config import FrequencyUnit, TrainingConfig


@dataclass(frozen=True)
class ResourceEstimate:
    """Upper bounds, in bytes."""

    memory: int
    """Memory of the replay at the end of the run."""
    disk: int
    """Disk space of the kept checkpoints and the one being written, without the history in them."""

    def __str__(self) -> str:
        """One line for the log."""
        memory, disk = format_bytes(self.memory), format_bytes(self.disk)
        return f"the replay needs at most {memory} of memory, the checkpoints at most {disk} of disk space"


def estimate_resources(
    agent: DQNConfig, trainer: TrainingConfig, env: EnvSpec, state: int, demonstrations: int = 0
) -> ResourceEstimate:
    """Memory and disk space of a run.

    `state` is the size of a checkpoint without its replay, in bytes; `demonstrations` is the number of
    transitions that the replay keeps beside its own.
    """
    replay = agent.replay
    capacity: int = replay.capacity
    steps = math.inf if trainer.max_steps is None else trainer.max_steps
    held = replace(replay, capacity=min(capacity, steps))
    kept = replace(replay, capacity=min(_kept_transitions(capacity, trainer), steps))
    memory, shared = held.num_bytes(env), kept.disk_usage(env).shared
    per_checkpoint = state + held.disk_usage(env).per_checkpoint
    if demonstrations:
        beside = replace(replay, capacity=demonstrations)
        memory, shared = memory + beside.num_bytes(env), shared + beside.disk_usage(env).shared
        per_checkpoint += beside.disk_usage(env).per_checkpoint
    files = trainer.keep_last + 3  # best.pt, latest.pt, and the one that is being written
    return ResourceEstimate(memory, files * per_checkpoint + shared)


def _kept_transitions(capacity: int, trainer: TrainingConfig) -> int:
    """Upper bound of the distinct transitions in the kept checkpoints; shared ones are written once.

    best.pt may be old. The oldest of the others was saved `keep_last` periods ago, and its replay reaches
    back from there.
    """
    in_steps = (
        1 if trainer.frequency_unit is FrequencyUnit.steps else trainer.max_steps_per_episode or math.inf
    )
    reach = capacity + trainer.keep_last * trainer.checkpoint_frequency * in_steps
    return capacity + int(min(reach, (trainer.keep_last + 1) * capacity))


def check_disk(
    output_dir: Path,
    agent: DQNConfig,
    trainer: TrainingConfig,
    env: EnvSpec,
    state: int,
    demonstrations: int = 0,
) -> None:
    """Raise NoRoomError if the disk is too full; the numbers are those of `estimate_resources`."""
    needed = estimate_resources(agent, trainer, env, state, demonstrations).disk
    existing = next(path for path in (output_dir, *output_dir.absolute().parents) if path.exists())
    files = filter(is_file, output_dir.glob("checkpoints/**/*.*"))
    own = {path.stat().st_ino: path.stat().st_size for path in files}
    free = shutil.disk_usage(existing).free + sum(own.values())
    if needed > free:
        raise NoRoomError(
            f"the checkpoints of this run need up to {format_bytes(needed)} on the disk of {output_dir}, "
            f"where {format_bytes(free)} are free; free disk space, choose another directory or a smaller "
            f"agent.replay.capacity={agent.replay.capacity}"
        )


def format_bytes(size: int) -> str:
    """A human-readable size."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def available_memory() -> int:
    """Bytes that a process can use without swapping."""
    import psutil  # late: composing a configuration does without it

    return psutil.virtual_memory().available
