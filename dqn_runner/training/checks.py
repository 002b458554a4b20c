"""Checks of settings against each other and against the environment, before the first step."""

from __future__ import annotations

import inspect

from dqn_runner.agent.config import DQNConfig
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import EnvSpec
from dqn_runner.replay.demonstrations import reserved
from dqn_runner.training.config import TrainingConfig
from dqn_runner.training.resources import available_memory, estimate_resources, format_bytes


def check(agent: DQNConfig, spec: EnvSpec, trainer: TrainingConfig, env: EnvSpec) -> None:
    """Raise a UserError that lists all problems; `spec` is the agent's, `env` the environment's."""
    memory = estimate_resources(agent, trainer, env, 0).memory
    problems = [
        *_shapes(spec, env),
        *_scale(agent, env),
        *_exploration(agent, env),
        *_replay(agent, env, memory),
        *_budget(agent, trainer),
    ]
    if problems:
        raise UserError("; ".join(problems))


def _shapes(spec: EnvSpec, env: EnvSpec) -> list[str]:
    if (spec.obs_shape, spec.num_actions, spec.layout) == (env.obs_shape, env.num_actions, env.layout):
        return []
    return [
        f"the agent was built for observations {_observations(spec)} and {spec.num_actions} actions, the "
        f"environment has {_observations(env)} and {env.num_actions}; set agent.state_dim and "
        "agent.action_dim accordingly"
    ]


def _observations(spec: EnvSpec) -> str:
    return str(spec.obs_shape) if spec.layout is None else f"with the entries {spec.layout.describe()}"


def _scale(agent: DQNConfig, env: EnvSpec) -> list[str]:
    if not agent.normalize_observations or env.obs_dtype == "float32" or env.layout is not None:
        return []
    return [
        f"normalize_observations needs float observations, but those of the environment are "
        f"{env.obs_dtype}, which networks scale to [0, 1]; set it to false"
    ]


def _exploration(agent: DQNConfig, env: EnvSpec) -> list[str]:
    """An exploration of the user may be written without masks."""
    if not env.has_action_mask or "mask" in inspect.signature(agent.exploration.__call__).parameters:
        return []
    name = type(agent.exploration).__name__
    return [f"env.action_mask needs an exploration that takes a mask; add the argument `mask` to {name}"]


def _replay(agent: DQNConfig, env: EnvSpec, memory: int) -> list[str]:
    problems: list[str] = []
    capacity: int = agent.replay.capacity
    if agent.batch_size > capacity:
        problems.append(
            f"agent.batch_size={agent.batch_size} is larger than agent.replay.capacity={capacity}"
        )
    if agent.warmup_steps > capacity:
        problems.append(
            f"agent.learning_starts={agent.warmup_steps} is larger than agent.replay.capacity={capacity}: "
            "the first transitions would be overwritten before the first update"
        )
    share = getattr(agent.replay, "demonstrations", 0.0)  # a replay of the user's has none
    if share and not reserved(share, agent.batch_size):
        problems.append(
            f"agent.replay.demonstrations={share:g} of agent.batch_size={agent.batch_size} is less than one "
            "transition; raise one of them"
        )
    available = available_memory()
    if memory > available:
        fitting = int(capacity * available / agent.replay.num_bytes(env) * 0.8)
        problems.append(
            f"agent.replay.capacity={capacity} needs {format_bytes(memory)} of memory for observations "
            f"{env.obs_shape} {env.obs_dtype}, but {format_bytes(available)} are free; a capacity of "
            f"{fitting} would fit"
        )
    return problems


def _budget(agent: DQNConfig, trainer: TrainingConfig) -> list[str]:
    problems: list[str] = []
    if trainer.max_steps is None:
        return problems
    if agent.warmup_steps >= trainer.max_steps:
        problems.append(
            f"agent.learning_starts={agent.warmup_steps} is not below trainer.max_steps="
            f"{trainer.max_steps}: no update would be made"
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
