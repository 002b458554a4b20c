"""The DQN agent: values states, chooses actions, learns from batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dqn_runner.agent.config import DQNConfig
from dqn_runner.agent.exploration import Greedy
from dqn_runner.agent.learner import HyperParameters, LearnerState, make_update, sync_target
from dqn_runner.agent.observation_normalizer import ObservationNormalizer
from dqn_runner.agent.update_noise import UpdateNoise, count_noise
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.rng import seed_for, stream, torch_seeded
from dqn_runner.core.state import State
from dqn_runner.core.types import Array, Batch, EnvSpec, FloatArray, IntArray, Transition


class DQNAgent:
    """Values states and learns; knows no environment, replay or logger."""

    def __init__(self, config: DQNConfig) -> None:
        """Networks are initialised from `config.seed` alone."""
        from dqn_runner.agent.networks.modules.flat_network import FlatNetwork

        self.config = config
        self.spec = config.spec()
        with torch_seeded(seed_for(config.seed, "init")):
            module = config.network.build(self.spec, config.loss.outputs_per_action)
        self.network = FlatNetwork(module)
        self._check_outputs()
        params = self.network.initial
        self.learner = LearnerState(params, config.optimizer.init(params), self.network.views)
        self._update = make_update(self.network, config.loss, config.optimizer)
        self._needs = count_noise(
            self.network, self.learner.target_params, config.loss, _blank_transition(self.spec)
        )
        self._check_parts()
        self._rng = stream(config.seed, "learner")
        self._normalizer = (
            ObservationNormalizer(self.spec.obs_shape) if config.normalize_observations else None
        )
        self._forward = self._numpy_forward() or self._torch_forward()

    def q_values(self, obs: Array, noise: FloatArray | None = None) -> FloatArray:
        """Action values [n, actions] of observations [n, *obs_shape], under `noise` [network.noise_size]."""
        if self._normalizer is not None:
            obs = self._normalizer(obs)
        outputs = self._forward(obs, noise)
        if self.config.loss.outputs_per_action == 1:
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
            self._normalizer.update(obs)
        if step < self.config.learning_starts:
            return rng.integers(shape[1], size=shape[0])
        noise_size = self.network.noise_size
        noise = rng.standard_normal(noise_size, np.float32) if noise_size else None
        return self.config.exploration(lambda: self.q_values(obs, noise), shape, step, rng)

    def learn(self, batch: Batch, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One gradient step, at env step `step`; returns priorities [batch] and statistics [learner.UPDATE_METRICS]."""
        config, transition = self.config, batch.transition
        if self._normalizer is not None:
            transition = transition._replace(
                obs=torch.from_numpy(self._normalizer(transition.obs.numpy())),
                next_obs=torch.from_numpy(self._normalizer(transition.next_obs.numpy())),
            )
        hyper = HyperParameters(
            config.learning_rate * config.learning_rate_schedule(step), config.max_grad_norm
        )
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

    def _draw(self, batch_size: int) -> UpdateNoise | None:
        """The random numbers of one update, if it takes any."""
        calls, taus = self._needs
        if not self.network.noise_size and not taus:
            return None
        noise = self._rng.standard_normal((calls, self.network.noise_size), np.float32)
        uniform = self._rng.random((batch_size, taus), np.float32)
        return UpdateNoise(torch.from_numpy(noise), torch.from_numpy(uniform))

    def _check_outputs(self) -> None:
        """Run the network once, so that one that does not fit is known now and not in the first update."""
        wanted = self.spec.num_actions * self.config.loss.outputs_per_action
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
                f"(1, {wanted}): {self.config.loss.outputs_per_action} for each of {self.spec.num_actions} actions"
            )

    def _check_parts(self) -> None:
        """Refuse parts that leave each other without what they are there for."""
        config = self.config
        if isinstance(config.exploration, Greedy) and not self.network.noise_size:
            raise UserError(
                "agent/exploration=greedy needs a network that explores by its own noise; set "
                "agent.network.noisy=true or another agent/exploration"
            )
        if self.network.takes_taus and not self._needs.taus:
            raise UserError(
                f"agent.network.cosine_embedding_dim embeds taus, which {type(config.loss).__name__} does not draw; "
                "set agent.network.cosine_embedding_dim=0 or agent/loss=implicit_quantile"
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
"""Observations and noise to outputs [n, actions * outputs_per_action]."""


def _blank_transition(spec: EnvSpec) -> Transition:
    """A batch of one, for what depends on shapes alone."""
    obs, number = torch.zeros(1, *spec.obs_shape), torch.zeros(1)
    return Transition(obs, torch.zeros(1, dtype=torch.int64), number, number, obs)
