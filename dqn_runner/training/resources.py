"""What can be known to be wrong before the first step, across the borders of single settings."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from dqn_runner.agent.config import DQNConfig
from dqn_runner.core.exceptions import NoRoomError
from dqn_runner.core.types import EnvSpec
from dqn_runner.training.config import FrequencyUnit, TrainingConfig


@dataclass(frozen=True)
class ResourceEstimate:
    """Bytes that a run takes at most."""

    memory: int
    """Of the replay, when it is full or the run over."""
    disk: int
    """Of the checkpoints that are kept, and the one being written; but for the run's history in them."""

    def __str__(self) -> str:
        """One line for the log."""
        memory, disk = format_bytes(self.memory), format_bytes(self.disk)
        return f"the replay takes up to {memory} of memory, checkpoints up to {disk}"


def estimate_resources(
    agent: DQNConfig, trainer: TrainingConfig, env: EnvSpec, state: int
) -> ResourceEstimate:
    """What a run will need; `state` is the bytes of a checkpoint without its replay."""
    capacity: int = agent.replay.capacity
    steps = math.inf if trainer.max_steps is None else trainer.max_steps
    held = replace(agent.replay, capacity=min(capacity, steps))
    kept = replace(agent.replay, capacity=min(_kept_transitions(capacity, trainer), steps))
    files = trainer.keep_last + 3  # best.pt, latest.pt, and the one that is being written
    disk = files * (state + held.disk_usage(env).per_checkpoint) + kept.disk_usage(env).shared
    return ResourceEstimate(held.num_bytes(env), disk)


def _kept_transitions(capacity: int, trainer: TrainingConfig) -> int:
    """How many different transitions the kept checkpoints name at most; what they share is written once.

    best.pt may be old. The others reach back from now by the replay of the oldest, which is as old as
    `keep_last` periods.
    """
    in_steps = (
        1 if trainer.frequency_unit is FrequencyUnit.steps else trainer.max_steps_per_episode or math.inf
    )
    reach = capacity + trainer.keep_last * trainer.checkpoint_frequency * in_steps
    return capacity + int(min(reach, (trainer.keep_last + 1) * capacity))


def check_disk(output_dir: Path, agent: DQNConfig, trainer: TrainingConfig, env: EnvSpec, state: int) -> None:
    """Raise a NoRoomError if the checkpoints will not fit; `state` is the bytes of one without its replay."""
    needed = estimate_resources(agent, trainer, env, state).disk
    existing = next(path for path in (output_dir, *output_dir.absolute().parents) if path.exists())
    own = {path.stat().st_ino: path.stat().st_size for path in output_dir.glob("checkpoints/**/*.*")}
    free = shutil.disk_usage(existing).free + sum(own.values())
    if needed > free:
        raise NoRoomError(
            f"the checkpoints of this run need up to {format_bytes(needed)} on the disk of {output_dir}, "
            f"where {format_bytes(free)} are free; make room, choose another directory or a smaller "
            f"agent.replay.capacity={agent.replay.capacity}"
        )


def format_bytes(size: int) -> str:
    """A number of bytes, for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def available_memory() -> int:
    """Bytes that can be used without swapping; all of the memory where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
