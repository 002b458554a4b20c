"""The DQN agent: computes action values, chooses actions, and learns from batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dqn_runner.agent.config import DQNConfig
from dqn_runner.agent.device import DEVICE_TYPES, choose_device, describe, unrepeatable_as_user_errors
from dqn_runner.agent.device_updates import eager_update, move
from dqn_runner.agent.exploration import check_allowed, masked_values, random_actions
from dqn_runner.agent.learner import HyperParameters, LearnerState, Update, make_update, sync_target
from dqn_runner.agent.network_building import build_flat_network
from dqn_runner.agent.network_check import check_compatibility, check_network, zero_transition
from dqn_runner.agent.observation_normalizer import make_normalizer
from dqn_runner.agent.own_parts import (
    building_parts,
    check_actions,
    checked_moments,
    is_ours,
    load_states_of_parts,
    states_of_parts,
)
from dqn_runner.agent.precision import check_hardware, network_of_updates
from dqn_runner.agent.update_noise import count_noise, draw_noise
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.log import log
from dqn_runner.core.rng import stream
from dqn_runner.core.state import State
from dqn_runner.core.types import Array, Batch, BoolArray, FloatArray, Forward, IntArray, Transition


class DQNAgent:
    """A DQN agent. It does not depend on the environment, the replay or the loggers."""

    def __init__(self, config: DQNConfig) -> None:
        """Build the parts of `config`; initial parameters depend only on them and on `config.seed`.

        Raises a UserError if the network does not fit the observations, the loss or the exploration.
        """
        if not isinstance(config, DQNConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
            hint = "; use DQNConfig(**settings)" if isinstance(config, Mapping) else ""
            raise UserError(f"DQNAgent takes a DQNConfig, not a {type(config).__name__}{hint}")
        self.config = config
        self.spec = config.spec()
        self.network = build_flat_network(config, self.spec)
        size = config.batch_size * self.network.initial.numel()
        name = "cpu" if config.compile is True and config.device == "auto" else config.device
        self.device = choose_device(name, self.network.has_convolutions, size)
        """Where the learner's tensors are; observations, batches and results are on the CPU."""
        self.network.to(self.device)
        with unrepeatable_as_user_errors(self.device):
            check_network(self.network, self.spec, config.loss.outputs_per_action, self.device)
        params = self.network.initial
        learning = network_of_updates(self.network, config.precision)
        with building_parts(config.seed):  # own ones may draw in their first call
            moments = checked_moments(config.optimizer, config.optimizer.init(params))
            self.learner = LearnerState(params, moments, self.network.views)
            example = move(zero_transition(self.spec), self.device)
            self._noise_requirements = count_noise(learning, self.learner.target_params, config.loss, example)
        update = make_update(learning, config.loss, config.optimizer)
        self._update: Update = update if self.device.type == "cpu" else eager_update(update, self.device)
        self._compiled: bool | None = None
        """Whether the run was begun with compiled updates; None until `choose_update` decided it."""
        self._previous_device = self.device.type
        """That of the session before, in a resumed run."""
        check_compatibility(config, self.network, self._noise_requirements.taus)
        states_of_parts(config)  # rejects what a checkpoint could not hold
        self._has_own_exploration = not is_ours(config.exploration)
        self._rng = stream(config.seed, "learner")
        self._normalizer = make_normalizer(self.spec) if config.normalize_observations else None
        self._forward = self._torch_forward()
        self._forward_one = self._numpy_forward() or self._forward
        """The same for a single observation."""

    def q_values(self, obs: Array, noise: FloatArray | None = None) -> FloatArray:
        """Action values [n, actions] of observations [n, *obs_shape].

        With `noise` [network.noise_size] noisy layers use it; without, they use their mean weights.
        """
        if self._normalizer is not None:
            obs = self._normalizer(obs)
        forward = self._forward_one if len(obs) == 1 else self._forward
        outputs = forward(obs, noise)
        if self.config.loss.outputs_per_action == 1:
            return outputs
        with torch.inference_mode():
            return self.config.loss.q_values(torch.from_numpy(outputs)).numpy()

    def greedy(self, obs: Array, mask: BoolArray | None = None) -> IntArray:
        """Actions [n] with the largest values, without noise, of those that `mask` [n, actions] allows."""
        return masked_values(self.q_values(obs), mask).argmax(-1)

    def act(self, obs: Array, step: int, rng: np.random.Generator, mask: BoolArray | None = None) -> IntArray:
        """Training actions [n] at env step `step`, of those that `mask` [n, actions] allows.

        They are uniformly random before `learning_starts`.
        """
        self.observe(obs)
        if step < self.config.warmup_steps:
            return random_actions((len(obs), self.spec.num_actions), rng, mask)
        return self.explore(obs, step, rng, mask)

    def observe(self, obs: Array) -> None:
        """Include observations [n, *obs_shape] in the statistics by which they are normalised."""
        if self._normalizer is not None:
            self._normalizer.update(obs)

    def explore(
        self, obs: Array, step: int, rng: np.random.Generator, mask: BoolArray | None = None
    ) -> IntArray:
        """Actions [n] that the exploration chooses at env step `step`; the agent does not change.

        Raises UserError for a choice that is not an action, or that `mask` [n, actions] does not allow.
        """
        shape = (len(obs), self.spec.num_actions)
        noise_size = self.network.noise_size
        noise = rng.standard_normal(noise_size, np.float32) if noise_size else None
        exploration = self.config.exploration
        if mask is None:
            actions = exploration(lambda: self.q_values(obs, noise), shape, step, rng)
        else:
            actions = exploration(
                lambda: masked_values(self.q_values(obs, noise), mask), shape, step, rng, mask=mask
            )
        if self._has_own_exploration:
            check_actions(exploration, actions, shape)
        if mask is not None:
            check_allowed(exploration, actions, mask)
        return actions

    def learn(self, batch: Batch, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one gradient step, at env step `step`.

        Returns the new priorities [batch] and statistics [len(learner.UPDATE_METRICS)].
        """
        config = self.config
        hyper = HyperParameters(
            config.learning_rate * config.learning_rate_schedule(step), config.max_grad_norm
        )
        transition, weight = self._normalized(batch.transition), batch.weight
        noise = draw_noise(self._noise_requirements, self.network.noise_size, len(batch.indices), self._rng)
        return self._update(self.learner, transition, weight, hyper, noise)

    def choose_update(self, obs_dtype: str, max_steps: int | None, has_action_mask: bool = False) -> None:
        """Decide whether updates are compiled, as `config.compile` says; a resumed run keeps to its decision.

        `obs_dtype` is that of the observations in replay, `max_steps` the budget of the whole run, None if it
        has none; `has_action_mask` is whether transitions have action masks. To be called before the first
        update of a process.
        """
        check_hardware(self.config.precision, self.device)
        if self._previous_device != self.device.type:
            message = "this run was on the device %s, and is on %s now; from here on it differs in rounding"
            log.warning(message, self._previous_device, self.device)
        if self.device.type != "cpu":
            if self.config.compile is True:
                where = f"compile=on compiles for the CPU, not for device={self.device}"
                raise UserError(f"{where}; set compile=off or device=cpu")
            # A run that comes back to a CPU is compiled again, unless compile=off has changed it for good.
            self._compiled = bool(self._compiled) and self.config.compile is not False
            log.info("the network is on the device %s", describe(self.device))
        from dqn_runner.agent.compiled.choice import choose_update
        from dqn_runner.agent.compiled.program import update_program

        program = update_program(
            self.config, obs_dtype, has_action_mask, self._noise_requirements, torch.get_num_threads()
        )
        if self.device.type != "cpu":
            from dqn_runner.agent.compiled.cuda_graph import graphed_update

            self._update = graphed_update(program, self.network, self.learner) or self._update
            return
        setting, parameters = self.config.compile, self.num_parameters()
        updates = None if max_steps is None else self.config.updates_within(max_steps)
        compiled = choose_update(program, setting, parameters, updates, self._compiled)
        self._compiled = compiled is not None
        if compiled is not None:
            self._update = compiled

    def sync_target(self, times: int) -> None:
        """Apply `times` target updates at once, each by the fraction `config.tau`."""
        sync_target(self.learner, 1 - (1 - self.config.tau) ** times)

    def epsilon(self, step: int) -> float:
        """Probability of a uniformly random training action at env step `step`."""
        return 1.0 if step < self.config.warmup_steps else self.config.exploration.epsilon(step)

    def normalization(self) -> tuple[Array, Array] | None:
        """Mean and deviation [*obs_shape] by which observations are normalised; None if they are not.

        Of observations with several entries, those [*frames, elements] of the vectors.
        """
        return None if self._normalizer is None else (self._normalizer.mean, self._normalizer.deviation)

    def num_bytes(self) -> int:
        """Size of the learner's state in bytes."""
        state = self.learner
        return sum(tensor.nbytes for tensor in (state.online, state.target, *state.moments.values()))

    def num_parameters(self) -> int:
        """Number of parameters of the network."""
        return self.learner.online.numel()

    def is_finite(self) -> bool:
        """Whether all parameters are finite numbers."""
        return bool(torch.isfinite(self.learner.online).all())

    def state_dict(self) -> State:
        """Learner state, names of its parameters, random generator, statistics of observations, own parts."""
        buffers, parts = self.network.buffers(), states_of_parts(self.config)
        return {
            "parameters": [*self.network.parameters],
            "learner": self.learner.state_dict(),
            "rng": self._rng.bit_generator.state,
            "normalizer": None if self._normalizer is None else self._normalizer.state_dict(),
            "compiled": self._compiled,
            "device": self.device.type,
            **({"buffers": buffers} if buffers else {}),
            **({"parts": parts} if parts else {}),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore the agent.

        Raises a UserError if the state is of another network or optimizer, or if only one of the two agents
        normalises observations.
        """
        normalizer = state["normalizer"]
        if (normalizer is None) != (self._normalizer is None):
            raise UserError(
                f"the checkpoint is of a run {'without' if normalizer is None else 'with'} normalised "
                f"observations; set agent.normalize_observations={str(normalizer is not None).lower()}"
            )
        if state["compiled"] is not None and type(state["compiled"]) is not bool:
            raise ValueError("state.agent.compiled is not true or false")
        if state["device"] not in DEVICE_TYPES:
            raise ValueError(f"state.agent.device is not one of {', '.join(DEVICE_TYPES)}")
        self._compiled = state["compiled"]
        self._previous_device = state["device"]
        self.network.check_parameters(state["parameters"])
        self.learner.load_state_dict(state["learner"])
        self.network.load_buffers(state.get("buffers", {}))
        load_states_of_parts(self.config, state.get("parts", {}))
        self._rng.bit_generator.state = state["rng"]
        if self._normalizer is not None:
            self._normalizer.load_state_dict(normalizer)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle settings and state, so that an agent can be sent to another process or copied."""
        return _restored, (self.config, self.state_dict())

    def _normalized(self, transition: Transition) -> Transition:
        """The transition with normalised observations, if the agent normalises them."""
        if self._normalizer is None:
            return transition
        return transition._replace(
            obs=torch.from_numpy(self._normalizer(transition.obs.numpy())),
            next_obs=torch.from_numpy(self._normalizer(transition.next_obs.numpy())),
        )

    def _numpy_forward(self) -> Forward | None:
        """The network in numpy, for single observations; None on a GPU, and for a layer not known there."""
        if self.device.type != "cpu":
            return None
        return self.network.numpy_forward(self.learner.online, self.spec.obs_shape)

    def _torch_forward(self) -> Forward:
        params, device = self.network.views(self.learner.online), self.device

        def forward(obs: Array, noise: FloatArray | None) -> FloatArray:
            with torch.inference_mode():
                noise_tensor = None if noise is None else torch.from_numpy(noise).to(device)
                return self.network(params, torch.from_numpy(obs).to(device), noise_tensor).cpu().numpy()

        return forward


def _restored(config: DQNConfig, state: State) -> DQNAgent:
    agent = DQNAgent(config)
    agent.load_state_dict(state)
    return agent
