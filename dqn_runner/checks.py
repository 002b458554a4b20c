"""What can be known to be wrong before the first step, across the borders of single settings."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dqn_runner.agent import DQNConfig
from dqn_runner.training import TrainingConfig
from dqn_runner.types import EnvSpec, UserError

_GIB = 2**30


def check(agent: DQNConfig, spec: EnvSpec, trainer: TrainingConfig, env: EnvSpec) -> None:
    """Raise a UserError that lists everything found; `spec` is the agent's, `env` the environment's."""
    problems = [*_shapes(spec, env), *_scale(agent, env), *_replay(agent, env), *_budget(agent, trainer)]
    if problems:
        raise UserError("; ".join(problems))


def check_disk(output_dir: Path, agent: DQNConfig, trainer: TrainingConfig, env: EnvSpec, state: int) -> None:
    """Raise a UserError if the checkpoints will not fit; `state` is the bytes of one without its replay.

    The kept checkpoints share their replay segments: the newest needs a full replay, and best.pt, which may
    be old, another one.
    """
    rows = 2 * agent.replay.capacity
    if trainer.max_steps is not None:
        rows = min(rows, trainer.max_steps)
    needed = (trainer.keep_last + 3) * state + rows * agent.replay.num_bytes(env) // agent.replay.capacity
    existing = next(path for path in (output_dir, *output_dir.absolute().parents) if path.exists())
    own = sum(path.stat().st_size for path in output_dir.glob("checkpoints/**/*") if path.is_file())
    free = shutil.disk_usage(existing).free + own
    if needed > free:
        raise UserError(
            f"the checkpoints of this run need up to {needed / _GIB:.1f} GiB on the disk of {output_dir}, "
            f"where {free / _GIB:.1f} GiB are free; make room, choose another directory or a smaller "
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


def _replay(agent: DQNConfig, env: EnvSpec) -> list[str]:
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
    needed, available = agent.replay.num_bytes(env), _available_memory()
    if needed > available:
        problems.append(
            f"agent.replay.capacity={capacity} needs {needed / _GIB:.1f} GiB of memory for observations "
            f"{env.obs_shape} {env.obs_dtype}, but {available / _GIB:.1f} GiB are free; a capacity of "
            f"{int(capacity * available / needed * 0.8)} would fit"
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


def _available_memory() -> int:
    """Bytes that can be used without swapping; all of the memory where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
