"""Agents of the family in the training loop of stable-baselines3, from the papers and apart from dqn_runner.

stable-baselines3 has DQN, and sb3-contrib QR-DQN. The others differ from DQN in the TD target, the loss or
the network; noisy layers are those of torchrl. The settings are those of dqn_runner and all else is other
code, which tells an agent that scores worse than DQN from one with a fault.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from sb3_contrib import QRDQN
from sb3_networks import make_network
from stable_baselines3 import DQN
from torch import nn
from torch.distributions import Categorical
from torch.nn import functional
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import reset_noise

Target = Callable[[DQN, Any], torch.Tensor]
"""A function from a model and a batch of its replay buffer to TD targets [batch, 1]."""


def max_target(model: DQN, data: Any) -> torch.Tensor:
    """The best value of the target network (Mnih et al. 2015, Algorithm 1)."""
    value = model.q_net_target(data.next_observations).max(1, keepdim=True).values
    return data.rewards + (1 - data.dones) * model.gamma * value


def double_target(model: DQN, data: Any) -> torch.Tensor:
    """The online network's best action, with the target network's value (van Hasselt et al. 2016, eq. 4)."""
    action = model.q_net(data.next_observations).argmax(1, keepdim=True)
    value = model.q_net_target(data.next_observations).gather(1, action)
    return data.rewards + (1 - data.dones) * model.gamma * value


def munchausen_target(alpha: float, temperature: float, floor: float) -> Target:
    """The next state's soft value, and the action's log-probability (Vieillard et al. 2020, eq. 2)."""

    def target(model: DQN, data: Any) -> torch.Tensor:
        q, next_q = model.q_net_target(data.observations), model.q_net_target(data.next_observations)
        policy, next_policy = Categorical(logits=q / temperature), Categorical(logits=next_q / temperature)
        soft_value = (next_policy.probs * next_q).sum(1) + temperature * next_policy.entropy()
        log_probability = temperature * policy.log_prob(data.actions.squeeze(1))
        reward = data.rewards.squeeze(1) + alpha * log_probability.clamp(floor, 0)
        return (reward + (1 - data.dones.squeeze(1)) * model.gamma * soft_value).unsqueeze(1)

    return target


TARGETS: dict[str, Callable[[dict[str, Any]], Target]] = {
    "MaxTarget": lambda _: max_target,
    "DoubleTarget": lambda _: double_target,
    "MunchausenTarget": lambda part: munchausen_target(part["alpha"], part["temperature"], part["floor"]),
}
"""Functions from the options of a target of dqn_runner to the target."""


class FamilyDQN(DQN):
    """DQN with another TD target, loss or network, and with noise in the layers that have it."""

    target: Target
    noisy = False

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """The updates of a rollout."""
        self.policy.set_training_mode(True)
        for _ in range(gradient_steps):
            self.policy.optimizer.zero_grad()
            self.loss(self.replay_buffer.sample(batch_size)).backward()
            nn.utils.clip_grad_norm_(self.q_net.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()
            if self.noisy:
                self.q_net.apply(reset_noise)
                self.q_net_target.apply(reset_noise)

    def loss(self, data: Any) -> torch.Tensor:
        """The mean Huber loss of a batch."""
        with torch.no_grad():
            target = self.target(self, data)  # an attribute of the instance: not bound
        return functional.smooth_l1_loss(self.q_net(data.observations).gather(1, data.actions), target)

    def predict(self, observation: Any, *args: Any, deterministic: bool = False, **kwargs: Any) -> Any:
        """Actions; each of training has new noise."""
        if self.noisy and not deterministic:
            self.q_net.apply(reset_noise)
        return super().predict(observation, *args, deterministic=deterministic, **kwargs)


class IQN(FamilyDQN):
    """Implicit quantile networks (Dabney et al. 2018b)."""

    samples: tuple[int, int]
    """Taus of the online and of the target network (N and N')."""

    def loss(self, data: Any) -> torch.Tensor:
        """Quantile Huber loss, summed over taus and averaged over those of the target (eq. 3)."""
        (n, n_target), batch = self.samples, len(data.rewards)
        taus, target_taus = torch.rand(batch, n), torch.rand(batch, n_target)
        quantiles = self.q_net.q_net.quantiles(data.observations, taus)
        quantiles = quantiles.gather(2, data.actions.unsqueeze(1).expand(-1, n, 1))  # [batch, N, 1]
        with torch.no_grad():
            best = self.q_net_target(data.next_observations).argmax(1).view(-1, 1, 1)
            following = self.q_net_target.q_net.quantiles(data.next_observations, target_taus)
            following = following.gather(2, best.expand(-1, n_target, 1)).squeeze(2)  # [batch, N']
            target = data.rewards + (1 - data.dones) * self.gamma * following
        error = target.unsqueeze(1) - quantiles  # [batch, N, N']
        huber = torch.where(error.abs() <= 1, 0.5 * error**2, error.abs() - 0.5)
        weight = (taus.unsqueeze(2) - (error.detach() < 0).float()).abs()
        return (weight * huber).mean(2).sum(1).mean()


def make_agent(agent: dict[str, Any], settings: dict[str, Any]) -> DQN | QRDQN:
    """The agent that the configuration `agent` of dqn_runner describes; `settings` are those of any DQN.

    Raises a ValueError if its loss is missing here, or is here for other targets or networks only.
    """
    loss, network = agent["loss"], agent["network"]
    name, target = class_name(loss), class_name(loss.get("target", {}))
    if target == "MaxTarget" and not (network["noisy"] or network["dueling"]):
        if name == "QLearning":
            return DQN("MlpPolicy", policy_kwargs={"net_arch": network["hidden"]}, **settings)
        if name == "Quantile":
            return quantile_regression(loss, network, agent["optimizer"]["eps"], settings)
        if name == "ImplicitQuantile":
            model = IQN("MlpPolicy", **settings)
            model.samples = (loss["num_tau_samples"], loss["num_tau_prime_samples"])
            return with_network(model, network, taus=loss["num_quantile_samples"])
    elif name == "QLearning" and target in TARGETS:
        model = FamilyDQN("MlpPolicy", **settings)
        model.target, model.noisy = TARGETS[target](loss["target"]), network["noisy"]
        return with_network(model, network, taus=0)
    raise ValueError(f"{name} with {target}, noisy={network['noisy']} and dueling={network['dueling']}")


def class_name(part: dict[str, Any]) -> str:
    """The name of the class that a part of a configuration is of; empty if it does not say so."""
    return part.get("_target_", "").rpartition(".")[2]


def with_network(model: FamilyDQN, options: dict[str, Any], taus: int) -> FamilyDQN:
    """The model with a new network that has `options`, and a new optimizer of its parameters."""
    (inputs,), actions = model.observation_space.shape, int(model.action_space.n)
    for part in (model.q_net, model.q_net_target):
        part.q_net = make_network(options, inputs, actions, taus)
    model.q_net_target.load_state_dict(model.q_net.state_dict())
    model.policy.optimizer = torch.optim.Adam(model.q_net.parameters(), model.learning_rate)
    return model


def quantile_regression(
    loss: dict[str, Any], network: dict[str, Any], eps: float, settings: dict[str, Any]
) -> QRDQN:
    """QR-DQN of sb3-contrib, with the epsilon of Adam that the others have."""
    policy = {"net_arch": network["hidden"], "n_quantiles": loss["num_quantiles"]}
    optimizer = {"optimizer_class": torch.optim.Adam, "optimizer_kwargs": {"eps": eps}}
    return QRDQN("MlpPolicy", policy_kwargs={**policy, **optimizer}, **settings)


def learning(model: DQN | QRDQN) -> AbstractContextManager[Any]:
    """Within it, noisy layers have noise; elsewhere they have their mean weights."""
    noisy = isinstance(model, FamilyDQN) and model.noisy
    return set_exploration_type(ExplorationType.RANDOM) if noisy else nullcontext()
