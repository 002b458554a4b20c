"""One update of implicit quantile networks: dqn_runner against tianshou, with equal weights, batch and taus.

    pip install -e . tianshou==2.0.1         # in a separate environment: it conflicts with constraints.txt
    python benchmarks/against_peers.py

tests/end_to_end/test_peers.py compares the other agents. Two differences by design are removed here. tianshou
sums over the taus of the target network and averages over those of the online network; dqn_runner does the
opposite, as in the paper. Both networks therefore get the same number of taus. tianshou's embedding lacks the
paper's cosine of 0, whose weights are therefore 0 here. Exits with 1 if numbers differ by more than rounding.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch

from dqn_runner import DQNAgent, DQNConfig
from dqn_runner.agent.learner import UPDATE_METRICS, HyperParameters
from dqn_runner.agent.losses.implicit_quantile import ImplicitQuantile
from dqn_runner.agent.losses.targets import DoubleTarget
from dqn_runner.agent.networks.architectures import Mlp
from dqn_runner.agent.update_noise import UpdateNoise
from dqn_runner.core.types import Transition

OBS, ACTIONS, BATCH, TAUS, COSINES = 4, 3, 32, 8, 16
FEATURES, HIDDEN = 32, 24
LEARNING_RATE, GAMMA = 0.01, 0.9
TOLERANCE = 1e-4
"""Relative to their loss, and to the largest gradient or weight of a layer."""


class Difference(NamedTuple):
    loss: float
    their_loss: float
    gradient: float
    weights: float


def our_agent(seed: int) -> DQNAgent:
    """IQN with double DQN, as tianshou's always is, and with a target network that differs."""

    def build(seed: int) -> DQNAgent:
        return DQNAgent(
            DQNConfig(
                state_dim=OBS,
                action_dim=ACTIONS,
                seed=seed,
                gamma=GAMMA,
                learning_rate=LEARNING_RATE,
                max_grad_norm=None,
                network=Mlp(hidden=[FEATURES, HIDDEN], cosine_embedding_dim=COSINES + 1),
                loss=ImplicitQuantile(
                    num_tau_samples=TAUS,
                    num_tau_prime_samples=TAUS,
                    num_quantile_samples=TAUS,
                    target=DoubleTarget(),
                ),
            )
        )

    agent = build(seed)
    agent.learner.target.copy_(build(seed + 1000).learner.online)
    for flat in (agent.learner.online, agent.learner.target):
        embedding_of(agent, flat)[0] = 0.0
    return agent


def embedding_of(agent: DQNAgent, flat: torch.Tensor) -> torch.Tensor:
    """The weights [cosines, features] of the embedding."""
    return agent.network.views(flat)[2]


def as_theirs(agent: DQNAgent, flat: torch.Tensor) -> list[torch.Tensor]:
    """Weights [outputs, inputs] and biases in tianshou's order: features, head, embedding."""
    features, features_bias, embedding, embedding_bias, hidden, hidden_bias, out, out_bias = (
        agent.network.views(flat)
    )
    head = [hidden.T, hidden_bias, out, out_bias]
    return [features.T, features_bias, *head, embedding[1:].T, embedding_bias]


def tianshou_iqn(agent: DQNAgent) -> Any:
    """tianshou's algorithm with the weights of `agent`."""
    from tianshou.algorithm import IQN
    from tianshou.algorithm.modelfree.iqn import IQNPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.discrete import ImplicitQuantileNetwork

    space = gymnasium.spaces.Discrete(ACTIONS)
    model = ImplicitQuantileNetwork(
        preprocess_net=Net(state_shape=OBS, hidden_sizes=[FEATURES]),
        action_shape=ACTIONS,
        hidden_sizes=[HIDDEN],
        num_cosines=COSINES,
    )
    policy = IQNPolicy(model=model, action_space=space, online_sample_size=TAUS, target_sample_size=TAUS)
    algorithm = IQN(
        policy=policy, optim=AdamOptimizerFactory(lr=LEARNING_RATE), gamma=GAMMA, target_update_freq=10**9
    )
    algorithm._iter = 1  # otherwise the first update would start with a target update
    learner = agent.learner
    for module, flat in ((model, learner.online), (algorithm.model_old.module, learner.target)):
        with torch.no_grad():
            for param, value in zip(module.parameters(), as_theirs(agent, flat), strict=True):
                param.copy_(value)
    return algorithm


def transitions(seed: int) -> Transition:
    random = torch.Generator().manual_seed(seed)
    return Transition(
        obs=torch.randn(BATCH, OBS, generator=random),
        action=torch.randint(ACTIONS, (BATCH,), generator=random),
        reward=torch.randn(BATCH, generator=random),
        discount=GAMMA * torch.randint(2, (BATCH,), generator=random),
        next_obs=torch.randn(BATCH, OBS, generator=random),
    )


def buffer_of(batch: Transition) -> Any:
    """tianshou's replay buffer, with episodes of one step that are terminated or truncated."""
    from tianshou.data import Batch, ReplayBuffer

    buffer = ReplayBuffer(size=BATCH)
    for obs, action, reward, discount, next_obs in zip(*(column.numpy() for column in batch), strict=True):
        terminated = bool(discount == 0)
        buffer.add(
            Batch(
                obs=obs,
                act=action,
                rew=reward,
                terminated=terminated,
                truncated=not terminated,
                obs_next=next_obs,
                info={},
            )
        )
    return buffer


def update_both(seed: int) -> Difference:
    from tianshou.algorithm.algorithm_base import policy_within_training_step

    agent, batch = our_agent(seed), transitions(seed)
    algorithm = tianshou_iqn(agent)
    taus: list[torch.Tensor] = []
    for module in (algorithm.policy.model, algorithm.model_old.module):
        module.embed_model.register_forward_pre_hook(lambda _, inputs: taus.append(inputs[0].detach()))
    torch.manual_seed(seed)
    with policy_within_training_step(algorithm.policy):
        stats = algorithm.update(buffer=buffer_of(batch), sample_size=0)
    policy_taus, target_taus, online_taus = taus
    noise = UpdateNoise(torch.zeros(3, 0), torch.cat([online_taus, target_taus, policy_taus], -1))
    weight = torch.full((BATCH,), 1 / BATCH)
    _, metrics = agent._update(agent.learner, batch, weight, HyperParameters(LEARNING_RATE, None), noise)
    theirs = list(algorithm.policy.model.parameters())
    return Difference(
        loss=metrics[UPDATE_METRICS.index("loss")].item(),
        their_loss=stats.loss,
        gradient=largest(as_theirs(agent, agent.learner.grad), [param.grad for param in theirs]),
        weights=largest(as_theirs(agent, agent.learner.online), [param.detach() for param in theirs]),
    )


def largest(ours: list[torch.Tensor], theirs: list[Any]) -> float:
    """The largest difference relative to the largest number of a layer."""
    pairs = zip(ours, theirs, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--repeats", type=int, default=5, help="number of comparisons, each with other weights and batches"
    )
    arguments = parser.parse_args()
    print("| loss | tianshou's | gradients differ by | weights differ by |\n|---|---|---|---|")
    differences = [update_both(seed) for seed in range(arguments.repeats)]
    for each in differences:
        print(f"| {each.loss:.6f} | {each.their_loss:.6f} | {each.gradient:.1e} | {each.weights:.1e} |")
    relative = [(abs(d.loss / d.their_loss - 1), d.gradient, d.weights) for d in differences]
    if np.max(relative) > TOLERANCE:
        sys.exit("dqn_runner and tianshou differ")


if __name__ == "__main__":
    main()
