"""The options of the DQN agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from dqn_runner.agent.device import check_device_name
from dqn_runner.agent.exploration import EpsilonGreedy, Exploration
from dqn_runner.agent.losses.base import Loss
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.agent.networks.architectures import Auto
from dqn_runner.agent.networks.base import Network
from dqn_runner.agent.optimizers import Adam, Optimizer
from dqn_runner.agent.precision import check_precision
from dqn_runner.agent.schedules import Fixed, Schedule
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.observation_layout import ObservationLayout
from dqn_runner.core.registry import option, slot
from dqn_runner.core.settings import check_settings, setting, within_budget
from dqn_runner.core.types import EnvSpec
from dqn_runner.envs.mixed_observations import layout_of
from dqn_runner.replay.buffer import ReplayConfig
from dqn_runner.replay.uniform import UniformReplay

_WARMUP_STEPS = 1_000


@option("agent", "dqn")
@dataclass(kw_only=True)
class DQNConfig:
    """The options of the DQN agent. All periods are in env steps."""

    state_dim: Any = None
    """Length of the observation vector, or shape of the image; null takes that of the env. In Python, also
    the Dict space of the observations."""
    action_dim: int | None = setting(None, at_least=1)
    """Number of actions; null takes that of the env."""
    normalize_observations: bool | None = None
    """Normalise observations to zero mean and unit variance; null takes the setting of the env."""
    seed: int = setting(0, at_least=0, below=2**63)
    """All random numbers of a run derive from it."""
    gamma: float = setting(0.99, at_least=0, at_most=1)
    """Discount factor per env step."""
    n_step: int = setting(1, at_least=1)
    """Rewards summed before bootstrapping (Sutton & Barto, chapter 7)."""
    learning_rate: float = setting(1e-3, above=0)
    """Learning rate of the optimizer."""
    learning_rate_schedule: Any = slot(Fixed, Schedule)
    batch_size: int = setting(128, at_least=1)
    """Number of transitions in one update."""
    learning_starts: int | None = within_budget(_WARMUP_STEPS, share=0.1, at_least=0)
    """Env steps with uniformly random actions and without learning at the start of a run; null: 1,000, but at
    most a tenth of trainer.max_steps."""
    train_every: int = setting(4, at_least=1)
    """Env steps between training iterations."""
    gradient_steps: int = setting(1, at_least=1)
    """Updates (gradient steps) in one training iteration."""
    target_update_every: int = setting(500, at_least=1)
    """Env steps between updates of the target network."""
    tau: float = setting(1.0, above=0, at_most=1)
    """Fraction by which a target update moves the target network: 1 copies the online network."""
    max_grad_norm: float | None = setting(10.0, above=0)
    """Gradients with a larger norm are scaled down to it; null disables clipping."""
    compile: bool | str = "auto"
    """Compile the update into a library that all runs with these settings share: `on`, `off`, or `auto`,
    which does so if the run has at least 40,000 updates of a network with at most 500,000 parameters, or
    with the precision bfloat16. Compiled updates differ from others in rounding; a resumed run keeps to what
    it was begun with."""
    device: str = "auto"
    """Where the network is evaluated and learns: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto`, which takes CUDA
    for networks with convolutions and for large batches if it is there. Devices differ in rounding."""
    precision: str = "float32"
    """Arithmetic of the convolutions in updates, `float32` or `bfloat16`. `bfloat16` is faster with large
    images, on a GPU or a processor that has instructions for it (AVX512-BF16, AMX). All other numbers,
    the parameters and values of actions among them, have float32 either way."""
    network: Any = slot(Auto, Network)
    loss: Any = slot(QLearning, Loss)
    exploration: Any = slot(EpsilonGreedy, Exploration)
    optimizer: Any = slot(Adam, Optimizer)
    replay: Any = slot(UniformReplay, ReplayConfig)

    def __post_init__(self) -> None:
        """Validate the settings. YAML and Hydra read `on` and `off` as true and false."""
        check_settings(self)
        if hasattr(self.state_dim, "spaces"):  # a Dict space; gymnasium is not imported to see that
            self.state_dim = layout_of(self.state_dim, "agent.state_dim")
        if isinstance(self.state_dim, ObservationLayout):
            self.state_dim = self.state_dim.to_plain()
        self.compile = {"on": True, "off": False}.get(str(self.compile), self.compile)
        if self.compile not in (True, False, "auto"):
            raise UserError(f"agent.compile must be auto, on or off, got {self.compile!r}")
        check_device_name(self.device)
        check_precision(self.precision)

    @property
    def warmup_steps(self) -> int:
        """`learning_starts` as a number."""
        return _WARMUP_STEPS if self.learning_starts is None else self.learning_starts

    def updates_within(self, steps: int) -> int:
        """Updates of a run of that many env steps."""
        return max(0, steps - self.warmup_steps) // self.train_every * self.gradient_steps

    def spec(self) -> EnvSpec:
        """Shape of observations and number of actions; raises a UserError if one of them is not set."""
        if self.state_dim is None or self.action_dim is None:
            raise UserError("DQNConfig needs state_dim (a length or an image shape) and action_dim")
        given: Any = self.state_dim
        if isinstance(given, Mapping):
            layout = ObservationLayout.from_plain(cast("Mapping[str, Any]", given))
            return EnvSpec(layout.obs_shape, self.action_dim, "uint8", layout.frames, layout=layout)
        shape: tuple[Any, ...] = tuple(given) if isinstance(given, (list, tuple)) else (given,)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in shape):
            hint = "; give its .shape" if hasattr(cast("object", given), "shape") else ""
            raise UserError(
                "agent.state_dim must be a length or an image shape of positive integers, got "
                f"{self.state_dim!r}{hint}"
            )
        return EnvSpec(obs_shape=shape, num_actions=self.action_dim)
