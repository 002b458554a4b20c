"""What can be known to be wrong before the first step, across the borders of single settings."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from dqn_runner.agent import DQNConfig
from dqn_runner.training import TrainingConfig, Unit
from dqn_runner.types import EnvSpec, NoRoomError, UserError


def check(agent: DQNConfig, spec: EnvSpec, trainer: TrainingConfig, env: EnvSpec) -> None:
    """Raise a UserError that lists everything found; `spec` is the agent's, `env` the environment's."""
    memory = footprint(agent, trainer, env, 0).memory
    problems = [
        *_shapes(spec, env),
        *_scale(agent, env),
        *_replay(agent, env, memory),
        *_budget(agent, trainer),
    ]
    if problems:
        raise UserError("; ".join(problems))


@dataclass(frozen=True)
class Footprint:
    """Bytes that a run takes at most."""

    memory: int
    """Of the replay, when it is full or the run over."""
    disk: int
    """Of the checkpoints that are kept, and the one being written; but for the run's history in them."""

    def __str__(self) -> str:
        """One line for the log."""
        memory, disk = show_bytes(self.memory), show_bytes(self.disk)
        return f"the replay takes up to {memory} of memory, checkpoints up to {disk}"


def footprint(agent: DQNConfig, trainer: TrainingConfig, env: EnvSpec, state: int) -> Footprint:
    """What a run will need; `state` is the bytes of a checkpoint without its replay."""
    capacity: int = agent.replay.capacity
    steps = math.inf if trainer.max_steps is None else trainer.max_steps
    held = replace(agent.replay, capacity=min(capacity, steps))
    kept = replace(agent.replay, capacity=min(_kept_transitions(capacity, trainer), steps))
    files = trainer.keep_last + 3  # best.pt, latest.pt, and the one that is being written
    disk = files * (state + held.saved(env).own) + kept.saved(env).shared
    return Footprint(held.num_bytes(env), disk)


def _kept_transitions(capacity: int, trainer: TrainingConfig) -> int:
    """How many different transitions the kept checkpoints name at most; what they share is written once.

    best.pt may be old. The others reach back from now by the replay of the oldest, which is as old as
    `keep_last` periods.
    """
    in_steps = 1 if trainer.unit is Unit.steps else trainer.max_steps_per_episode or math.inf
    reach = capacity + trainer.keep_last * trainer.checkpoint_frequency * in_steps
    return capacity + int(min(reach, (trainer.keep_last + 1) * capacity))


def check_disk(output_dir: Path, agent: DQNConfig, trainer: TrainingConfig, env: EnvSpec, state: int) -> None:
    """Raise a NoRoomError if the checkpoints will not fit; `state` is the bytes of one without its replay."""
    needed = footprint(agent, trainer, env, state).disk
    existing = next(path for path in (output_dir, *output_dir.absolute().parents) if path.exists())
    own = {path.stat().st_ino: path.stat().st_size for path in output_dir.glob("checkpoints/**/*.*")}
    free = shutil.disk_usage(existing).free + sum(own.values())
    if needed > free:
        raise NoRoomError(
            f"the checkpoints of this run need up to {show_bytes(needed)} on the disk of {output_dir}, "
            f"where {show_bytes(free)} are free; make room, choose another directory or a smaller "
            f"agent.replay.capacity={agent.replay.capacity}"
        )


def _shapes(spec: EnvSpec, env: EnvSpec) -> list[str]:
    if (spec.obs_shape, spec.num_actions) == (env.obs_shape, env.num_actions):
        return []
    return [
        f"the agent was built for observations {spec.obs_shape} and {spec.num_actions} actions, the "
        f"environment has {env.obs_shape} and {env.num_actions}; set agent.state_dim and agent.action_dim "
        "accordingly"
    ]


def _scale(agent: DQNConfig, env: EnvSpec) -> list[str]:
    if not agent.normalize_observations or env.obs_dtype == "float32":
        return []
    return [
        f"normalize_observations is for observations of numbers, but those of the environment are "
        f"{env.obs_dtype}, which networks bring to between 0 and 1 already; set it to false"
    ]


def _replay(agent: DQNConfig, env: EnvSpec, memory: int) -> list[str]:
    problems: list[str] = []
    capacity: int = agent.replay.capacity
    if agent.batch_size > capacity:
        problems.append(
            f"agent.batch_size={agent.batch_size} is larger than agent.replay.capacity={capacity}"
        )
    if agent.learning_starts > capacity:
        problems.append(
            f"agent.learning_starts={agent.learning_starts} is larger than agent.replay.capacity={capacity}: "
            "the first transitions would be forgotten before anything is learned from them"
        )
    available = _available_memory()
    if memory > available:
        fitting = int(capacity * available / agent.replay.num_bytes(env) * 0.8)
        problems.append(
            f"agent.replay.capacity={capacity} needs {show_bytes(memory)} of memory for observations "
            f"{env.obs_shape} {env.obs_dtype}, but {show_bytes(available)} are free; a capacity of "
            f"{fitting} would fit"
        )
    return problems


def _budget(agent: DQNConfig, trainer: TrainingConfig) -> list[str]:
    problems: list[str] = []
    if trainer.max_steps is None:
        return problems
    if agent.learning_starts >= trainer.max_steps:
        problems.append(
            f"agent.learning_starts={agent.learning_starts} is not below trainer.max_steps="
            f"{trainer.max_steps}: nothing would be learned"
        )
    durations: dict[str, int] = {
        "agent.exploration.schedule": agent.exploration.duration,
        "agent.learning_rate_schedule": agent.learning_rate_schedule.duration,
    }
    for name, duration in durations.items():
        if duration > trainer.max_steps:
            problems.append(
                f"{name} takes {duration} env steps, longer than trainer.max_steps="
                f"{trainer.max_steps}; shorten the schedule or lengthen the run"
            )
    return problems


def show_bytes(size: int) -> str:
    """A number of bytes, for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _available_memory() -> int:
    """Bytes that can be used without swapping; all of the memory where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
