"""The workloads of speed.py: an environment and settings, the same for all libraries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from dqn_runner.agent.precision import BFLOAT16_FEATURES
from dqn_runner.core import processor


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Settings of a run, the same for all libraries; every period is in env steps."""

    env: str
    """An id of gymnasium, `minatar` for its Breakout, or `atari` for Pong under the protocol `sticky`."""
    network: str = "mlp"
    hidden: list[int] = field(default_factory=list[int])
    """Units of the layers of an `mlp`; `minatar_cnn` and `nature_cnn` have their own."""
    batch_size: int
    train_every: int
    gradient_steps: int = 1
    capacity: int = 10_000
    learning_rate: float = 2.5e-4
    gamma: float = 0.99
    max_grad_norm: float = 10.0
    precision: str = "float32"
    """Of dqn_runner's updates; those of stable-baselines3 have float32."""
    target_update_every: int = 500
    learning_starts: int = 1_000
    epsilon_end: float = 0.05
    epsilon_steps: int
    steps: int
    """Env step at which the measurement ends."""
    steady_from: int
    """Env step at which the measurement starts; learning is on."""
    log_every: int = 1_000
    """Steps between log lines of dqn_runner, which read the clock; divides `steady_from` and `steps`."""


WORKLOADS = {
    "W1": Workload(
        env="CartPole-v1",
        hidden=[120, 84],
        batch_size=128,
        train_every=10,
        epsilon_steps=30_000,
        steps=60_000,
        steady_from=2_000,
    ),
    "W2": Workload(
        env="LunarLander-v3",
        hidden=[256, 256],
        batch_size=128,
        train_every=4,
        gradient_steps=4,
        capacity=50_000,
        learning_rate=6.3e-4,
        target_update_every=250,
        learning_starts=200,
        epsilon_end=0.1,
        epsilon_steps=1_000,
        steps=8_000,
        steady_from=1_500,
        log_every=500,
    ),
    "W3": Workload(
        env="CartPole-v1",
        hidden=[64, 64],
        batch_size=64,
        train_every=1,
        epsilon_steps=1_500,
        steps=20_000,
        steady_from=2_000,
    ),
    "W4": Workload(
        env="atari",
        network="nature_cnn",
        batch_size=32,
        train_every=4,
        learning_rate=1e-4,
        target_update_every=1_000,
        learning_starts=800,
        epsilon_end=0.01,
        epsilon_steps=600,
        steps=2_400,
        steady_from=1_200,
        log_every=400,
    ),
    "W5": Workload(
        env="minatar",
        network="minatar_cnn",
        batch_size=32,
        train_every=1,
        capacity=50_000,
        target_update_every=1_000,
        epsilon_end=0.1,
        epsilon_steps=1_000,
        steps=6_000,
        steady_from=1_500,
        log_every=500,
    ),
}
WORKLOADS["W4-bfloat16"] = replace(WORKLOADS["W4"], precision="bfloat16")


def feasible() -> list[str]:
    """The workloads for which this processor has the instructions."""
    has_bfloat16 = bool(BFLOAT16_FEATURES & processor.features())
    return [name for name, each in WORKLOADS.items() if has_bfloat16 or each.precision == "float32"]


def make_env(workload: Workload) -> Any:
    """The environment for all libraries, without gymnasium's checker."""
    import gymnasium

    if workload.env == "minatar":
        from dqn_runner.envs.minatar import MinAtar

        return MinAtar().make()
    if workload.env == "atari":
        from dqn_runner.envs.atari import Atari

        return Atari(game="Pong").make()
    return gymnasium.make(workload.env, disable_env_checker=True)


def vector_part(workload: Workload, num_envs: int) -> Any:
    """Several environments of Pong, each in a process of its own."""
    from dqn_runner.envs.atari import Atari
    from dqn_runner.envs.base import Vectorization

    if workload.env != "atari":
        raise ValueError(f"only Pong has several environments here, not {workload.env}")
    return Atari(game="Pong", num_envs=num_envs, vectorization=Vectorization["async"])
