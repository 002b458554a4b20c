"""The DQN agent: values states, chooses actions, learns from batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dqn_runner.exploration import EpsilonGreedy, Greedy
from dqn_runner.lazy import torch
from dqn_runner.learner import Draws, Hyper, LearnerState, make_update, needs_of, sync_target
from dqn_runner.losses import QLearning
from dqn_runner.networks import Auto
from dqn_runner.normalizer import Normalizer
from dqn_runner.optimizers import Adam
from dqn_runner.registry import option, slot
from dqn_runner.replay import UniformReplay
from dqn_runner.rng import seed_for, stream, torch_seeded
from dqn_runner.schedules import Fixed
from dqn_runner.types import Array, Batch, EnvSpec, FloatArray, IntArray, State, Transition, UserError


@option("agent", "dqn")
@dataclass(kw_only=True)
class DQNConfig:
    """The algorithm: what it learns from, how, and how often. All periods are in env steps."""

    state_dim: Any = None
    """Length of the observation vector, or the shape of the image; null takes the env's."""
    action_dim: int | None = None
    """Number of actions; null takes the env's."""
    normalize_observations: bool | None = None
    """Bring observations to zero mean and unit variance; null takes the env's setting."""
    seed: int = 0
    """Everything random in a run derives from it."""
    gamma: float = 0.99
    """Discount per env step."""
    n_step: int = 1
    """Rewards summed before bootstrapping (Sutton & Barto, chapter 7)."""
    learning_rate: float = 1e-3
    """Step size of the optimizer."""
    learning_rate_schedule: Any = slot(Fixed)
    batch_size: int = 128
    """Transitions in one update."""
    learning_starts: int = 1_000
    """Env steps with uniformly random actions and no learning, at the start."""
    train_every: int = 4
    """Env steps from one round of learning to the next."""
    gradient_steps: int = 1
    """Updates in one round of learning."""
    target_update_every: int = 500
    """Env steps from one target update to the next."""
    tau: float = 1.0
    """How far the target moves: 1 copies the online network, less is a soft update."""
    max_grad_norm: float | None = 10.0
    """Longer gradients are scaled down to this norm; null never."""
    network: Any = slot(Auto)
    loss: Any = slot(QLearning)
    exploration: Any = slot(EpsilonGreedy)
    optimizer: Any = slot(Adam)
    replay: Any = slot(UniformReplay)

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        for name in ("n_step", "batch_size", "train_every", "gradient_steps", "target_update_every"):
            self._check(name, 1, math.inf)
        for name in ("learning_rate", "learning_starts", "max_grad_norm"):
            self._check(name, 0, math.inf)
        for name in ("gamma", "tau"):
            self._check(name, 0, 1)

    def _check(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is not None and not low <= value <= high:
            bounds = f"at least {low}" if high == math.inf else f"between {low} and {high}"
            raise UserError(f"agent.{name} must be {bounds}, got {value}")

    def spec(self) -> EnvSpec:
        """Shapes of observations and actions."""
        if self.state_dim is None or self.action_dim is None:
            raise UserError("DQNConfig needs state_dim (a length or an image shape) and action_dim")
        shape = (self.state_dim,) if isinstance(self.state_dim, int) else tuple(self.state_dim)
        return EnvSpec(obs_shape=shape, num_actions=self.action_dim)


class DQNAgent:
    """Values states and learns; knows no environment, replay or logger."""

    def __init__(self, config: DQNConfig) -> None:
        """Networks are initialised from `config.seed` alone."""
        from dqn_runner.flat_network import FlatNetwork

        self.config = config
        self.spec = config.spec()
        with torch_seeded(seed_for(config.seed, "init")):
            module = config.network.build(self.spec, config.loss.width)
        self.network = FlatNetwork(module)
        self._check_outputs()
        params = self.network.initial
        self.learner = LearnerState(params, config.optimizer.init(params), self.network.views)
        self._update = make_update(self.network, config.loss, config.optimizer)
        self._needs = needs_of(
            self.network, self.learner.target_params, config.loss, _blank_transition(self.spec)
        )
        self._check_parts()
        self._rng = stream(config.seed, "learner")
        self._normalizer = Normalizer(self.spec.obs_shape) if config.normalize_observations else None
        self._forward = self._numpy_forward() or self._torch_forward()

    def q_values(self, obs: Array, noise: FloatArray | None = None) -> FloatArray:
        """Action values [n, actions] of observations [n, *obs_shape], under `noise` [network.noise_size]."""
        if self._normalizer is not None:
            obs = self._normalizer(obs)
        outputs = self._forward(obs, noise)
        if self.config.loss.width == 1:
            return outputs
        with torch.inference_mode():
            return self.config.loss.q_values(torch.from_numpy(outputs)).numpy()

    def greedy(self, obs: Array) -> IntArray:
        """The best actions [n], without noise."""
        return self.q_values(obs).argmax(-1)

    def act(self, obs: Array, step: int, rng: np.random.Generator) -> IntArray:
        """Training actions [n] at env step `step`: uniformly random until learning starts."""
        shape = (len(obs), self.spec.num_actions)
        if self._normalizer is not None:
            self._normalizer.observe(obs)
        if step < self.config.learning_starts:
            return rng.integers(shape[1], size=shape[0])
        noise_size = self.network.noise_size
        noise = rng.standard_normal(noise_size, np.float32) if noise_size else None
        return self.config.exploration(lambda: self.q_values(obs, noise), shape, step, rng)

    def learn(self, batch: Batch, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One gradient step, at env step `step`; returns priorities [batch] and statistics [learner.INFO]."""
        config, transition = self.config, batch.transition
        if self._normalizer is not None:
            transition = transition._replace(
                obs=torch.from_numpy(self._normalizer(transition.obs.numpy())),
                next_obs=torch.from_numpy(self._normalizer(transition.next_obs.numpy())),
            )
        hyper = Hyper(config.learning_rate * config.learning_rate_schedule(step), config.max_grad_norm)
        return self._update(self.learner, transition, batch.weight, hyper, self._draw(len(batch.indices)))

    def sync_target(self, times: int) -> None:
        """Move the target network towards the online network as many times as its period has passed."""
        sync_target(self.learner, 1 - (1 - self.config.tau) ** times)

    def epsilon(self, step: int) -> float:
        """Probability of a uniformly random training action at env step `step`."""
        return 1.0 if step < self.config.learning_starts else self.config.exploration.epsilon(step)

    def num_bytes(self) -> int:
        """Memory that the learner's state takes."""
        state = self.learner
        return sum(tensor.nbytes for tensor in (state.online, state.target, *state.moments.values()))

    def num_parameters(self) -> int:
        """How many weights the network has."""
        return self.learner.online.numel()

    def is_finite(self) -> bool:
        """Whether every weight is a number."""
        return bool(torch.isfinite(self.learner.online).all())

    def state_dict(self) -> State:
        """Weights, target, optimizer moments and update count; the learner's generator; what was observed."""
        observed = None if self._normalizer is None else self._normalizer.state_dict()
        generator = self._rng.bit_generator.state
        return {"learner": self.learner.state_dict(), "rng": generator, "observed": observed}

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`."""
        observed = state["observed"]
        if (observed is None) != (self._normalizer is None):
            raise UserError(
                f"the checkpoint is of a run {'without' if observed is None else 'with'} normalised "
                f"observations; set agent.normalize_observations={str(observed is not None).lower()}"
            )
        self.learner.load_state_dict(state["learner"])
        self._rng.bit_generator.state = state["rng"]
        if self._normalizer is not None:
            self._normalizer.load_state_dict(observed)

    def _draw(self, batch_size: int) -> Draws | None:
        """The random numbers of one update, if it takes any."""
        calls, fractions = self._needs
        if not self.network.noise_size and not fractions:
            return None
        noise = self._rng.standard_normal((calls, self.network.noise_size), np.float32)
        uniform = self._rng.random((batch_size, fractions), np.float32)
        return Draws(torch.from_numpy(noise), torch.from_numpy(uniform))

    def _check_outputs(self) -> None:
        """Run the network once, so that one that does not fit is known now and not in the first update."""
        wanted = self.spec.num_actions * self.config.loss.width
        obs = torch.zeros(1, *self.spec.obs_shape)
        with torch.no_grad():
            try:
                shape = tuple(self.network(self.network.views(self.network.initial), obs).shape)
            except RuntimeError as error:
                raise UserError(
                    f"agent.network cannot take observations of shape {self.spec.obs_shape}: {error}"
                ) from error
        if shape != (1, wanted):
            raise UserError(
                f"agent.network gives outputs of shape {shape} for one observation; it must give "
                f"(1, {wanted}): {self.config.loss.width} for each of {self.spec.num_actions} actions"
            )

    def _check_parts(self) -> None:
        """Refuse parts that leave each other without what they are there for."""
        config = self.config
        if isinstance(config.exploration, Greedy) and not self.network.noise_size:
            raise UserError(
                "agent/exploration=greedy needs a network that explores by its own noise; set "
                "agent.network.noisy=true or another agent/exploration"
            )
        if self.network.takes_fractions and not self._needs.fractions:
            raise UserError(
                f"agent.network.cosines embeds fractions, which {type(config.loss).__name__} does not draw; "
                "set agent.network.cosines=0 or agent/loss=implicit_quantile"
            )

    def _numpy_forward(self) -> Forward | None:
        forward = self.network.numpy_forward(self.learner.online)
        return None if forward is None else lambda obs, _: forward(obs)

    def _torch_forward(self) -> Forward:
        params = self.network.views(self.learner.online)

        def forward(obs: Array, noise: FloatArray | None) -> FloatArray:
            with torch.inference_mode():
                given = None if noise is None else torch.from_numpy(noise)
                return self.network(params, torch.from_numpy(obs), given).numpy()

        return forward


Forward = Callable[[Array, FloatArray | None], FloatArray]
"""Observations and noise to outputs [n, actions * width]."""


def _blank_transition(spec: EnvSpec) -> Transition:
    """A batch of one, for what depends on shapes alone."""
    obs, number = torch.zeros(1, *spec.obs_shape), torch.zeros(1)
    return Transition(obs, torch.zeros(1, dtype=torch.int64), number, number, obs)
