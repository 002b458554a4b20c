"""Updates equal those of published libraries: the same weights and batches give the same result.

Each library runs its own update on a given batch. The tests compare the loss, the gradient after clipping,
and the weights after several steps of Adam. The target network differs from the online network, and batches
contain terminal states and n-step discounts. The implicit quantile update of tianshou, which cannot be
installed with the versions of constraints.txt, is compared in benchmarks/against_peers.py.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dqn_runner import DQNAgent, DQNConfig
from dqn_runner.agent.learner import UPDATE_METRICS
from dqn_runner.agent.losses.base import Loss
from dqn_runner.agent.losses.categorical import Categorical
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.agent.losses.quantile import Quantile
from dqn_runner.agent.losses.targets import DoubleTarget
from dqn_runner.agent.networks.architectures import Mlp
from dqn_runner.agent.optimizers import Adam
from dqn_runner.agent.update_noise import UpdateNoise
from dqn_runner.core.types import Batch, Transition

pytestmark = pytest.mark.slow  # the libraries take seconds to import

OBS, ACTIONS, BATCH, UPDATES = 4, 3, 32, 5
HIDDEN = [32, 24]
LEARNING_RATE, GAMMA = 0.01, 0.9
MEAN = torch.full((BATCH,), 1 / BATCH)

Update = Callable[[Transition], float]
"""One update of a library; returns the loss."""


def make_agent(
    loss: Loss, max_grad_norm: float | None, optimizer: Adam | None = None, **network: bool
) -> DQNAgent:
    """An agent whose target network differs from its online network."""
    config = DQNConfig(
        state_dim=OBS,
        action_dim=ACTIONS,
        gamma=GAMMA,
        learning_rate=LEARNING_RATE,
        max_grad_norm=max_grad_norm,
        network=Mlp(hidden=HIDDEN, **network),
        loss=loss,
        optimizer=optimizer or Adam(),
    )
    agent = DQNAgent(config)
    other = DQNAgent(DQNConfig(**{**vars(config), "seed": 1}))
    agent.learner.target.copy_(other.learner.online)
    return agent


def transitions(seed: int, scale: float = 3.0) -> Transition:
    """A batch of n-step transitions of one to three steps, a third of them terminal.

    Terminal ones have integer rewards, so that projections fall exactly on atoms. Some returns are outside
    the support.
    """
    random = torch.Generator().manual_seed(seed)
    reward = scale * torch.randn(BATCH, generator=random)
    terminal = torch.randint(3, (BATCH,), generator=random) == 0
    discount = GAMMA ** torch.randint(1, 4, (BATCH,), generator=random)
    return Transition(
        obs=torch.randn(BATCH, OBS, generator=random),
        action=torch.randint(ACTIONS, (BATCH,), generator=random),
        reward=torch.where(terminal, reward.round(), reward),
        discount=torch.where(terminal, 0.0, discount),
        next_obs=torch.randn(BATCH, OBS, generator=random),
    )


def steps_of(batch: Transition) -> torch.Tensor:
    """The number of steps of each transition [batch]; 1 if it is terminal, where it has no effect."""
    return torch.where(batch.discount > 0, (batch.discount.log() / np.log(GAMMA)).round(), 1.0)


Arrange = Callable[[DQNAgent, torch.Tensor], list[torch.Tensor]]
"""The parameters in a flat vector of an agent, as views shaped and ordered like those of a library."""


def in_our_order(agent: DQNAgent, flat: torch.Tensor) -> list[torch.Tensor]:
    """Weights [outputs, inputs] and biases; ours are [inputs, outputs] where there are many outputs."""
    views = agent.network.views(flat)
    for index, (weight, bias) in enumerate(pairwise(list(views))):
        if weight.ndim == 2 and weight.shape[0] != len(bias):
            views[index] = weight.T
    return views


def quantiles_first(agent: DQNAgent, flat: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of sb3-contrib are [quantiles, actions], ours [actions, quantiles]."""
    *hidden, weight, bias = in_our_order(agent, flat)
    outputs = (
        rows.view(ACTIONS, -1, *rows.shape[1:]).transpose(0, 1).flatten(0, 1) for rows in (weight, bias)
    )
    return [*hidden, *outputs]


def advantage_first(agent: DQNAgent, flat: torch.Tensor) -> list[torch.Tensor]:
    """Those of the advantages, of the shared layer and of the state value, by their names in torchrl."""
    params = in_our_order(agent, flat)
    return [*params[6:], *params[:6]]


def copy_into(params: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for param, value in zip(params, values, strict=True):
            param.copy_(value)


def compare(
    agent: DQNAgent,
    update: Update,
    online: Sequence[nn.Parameter],
    arrange: Arrange = in_our_order,
) -> list[float]:
    """Make several updates with both and compare them; returns our gradient norms before clipping."""
    norms: list[float] = []
    for count in range(UPDATES):
        batch = transitions(count)
        _, info = agent.learn(Batch(batch, np.arange(BATCH), MEAN), 0)
        loss = update(batch)
        assert info[UPDATE_METRICS.index("loss")].item() == pytest.approx(loss, rel=1e-4)
        for ours, theirs in zip(arrange(agent, agent.learner.grad), online, strict=True):
            assert_close(ours, theirs.grad, rtol=1e-3, atol=1e-6)
        for ours, theirs in zip(arrange(agent, agent.learner.online), online, strict=True):
            assert_close(ours, theirs.detach(), rtol=1e-3, atol=1e-5)
        norms.append(info[UPDATE_METRICS.index("grad_norm")].item())
    return norms


# stable-baselines3 and sb3-contrib


class Spaces(gymnasium.Env[Any, Any]):
    """An environment that only defines its spaces."""

    observation_space = gymnasium.spaces.Box(-10, 10, (OBS,), np.float32)
    action_space = gymnasium.spaces.Discrete(ACTIONS)


def sb3_update(model: Any) -> Update:
    """The model's own `train`, with its replay buffer replaced by the given batch."""
    from stable_baselines3.common.logger import configure
    from stable_baselines3.common.type_aliases import ReplayBufferSamples

    model.set_logger(configure(None, []))

    def update(batch: Transition) -> float:
        columns = ReplayBufferSamples(
            observations=batch.obs,
            actions=batch.action.unsqueeze(1),
            next_observations=batch.next_obs,
            dones=(batch.discount == 0).float().unsqueeze(1),
            rewards=batch.reward.unsqueeze(1),
            discounts=(GAMMA ** steps_of(batch)).unsqueeze(1),
        )
        model.replay_buffer.sample = lambda *_, **__: columns
        model.train(gradient_steps=1, batch_size=BATCH)
        return model.logger.name_to_value["train/loss"]

    return update


@pytest.mark.parametrize("max_grad_norm", [10.0, 0.1])
def test_dqn_updates_equal_those_of_stable_baselines3(max_grad_norm: float) -> None:
    from stable_baselines3 import DQN

    model = DQN(
        "MlpPolicy",
        Spaces(),
        learning_rate=LEARNING_RATE,
        buffer_size=BATCH,
        gamma=GAMMA,
        max_grad_norm=max_grad_norm,
        policy_kwargs={"net_arch": HIDDEN},
        device="cpu",
    )
    agent = make_agent(QLearning(), max_grad_norm)
    online = list(model.q_net.parameters())
    copy_into(online, in_our_order(agent, agent.learner.online))
    copy_into(list(model.q_net_target.parameters()), in_our_order(agent, agent.learner.target))
    norms = compare(agent, sb3_update(model), online)
    assert (max_grad_norm < min(norms)) == (max_grad_norm == 0.1)


@pytest.mark.parametrize("max_grad_norm", [None, 0.1])
def test_qr_dqn_updates_equal_those_of_sb3_contrib(max_grad_norm: float | None) -> None:
    """Both sum over predicted quantiles, average over target quantiles, and use the midpoints of the taus.

    sb3-contrib always sets the eps of Adam to that of the paper, 0.01 / batch size; here it is set.
    """
    from sb3_contrib import QRDQN

    model = QRDQN(
        "MlpPolicy",
        Spaces(),
        learning_rate=LEARNING_RATE,
        buffer_size=BATCH,
        batch_size=BATCH,
        gamma=GAMMA,
        max_grad_norm=max_grad_norm,
        policy_kwargs={"net_arch": HIDDEN, "n_quantiles": 11},
        device="cpu",
    )
    agent = make_agent(Quantile(num_quantiles=11), max_grad_norm, Adam(eps=0.01 / BATCH))
    online = list(model.quantile_net.parameters())
    target = list(model.quantile_net_target.parameters())
    copy_into(online, quantiles_first(agent, agent.learner.online))
    copy_into(target, quantiles_first(agent, agent.learner.target))
    norms = compare(agent, sb3_update(model), online, quantiles_first)
    assert min(norms) > 0.1


# torchrl


@pytest.fixture(scope="module")
def _torchrl() -> None:
    """Import torchrl and restore the start method of multiprocessing, which it changes."""
    before = multiprocessing.get_start_method(allow_none=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the start method, if one is already set
        import torchrl.objectives  # noqa: F401
    multiprocessing.set_start_method(before, force=True)


def plain_mlp(outputs_per_action: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([OBS, *HIDDEN]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], ACTIONS * outputs_per_action))


def torchrl_params(params: Any) -> list[Any]:
    """The parameters of the layers, sorted by the names of the layers."""
    flat = params.flatten_keys(".")
    layers = sorted({name.rpartition(".")[0] for name in flat.keys()})  # noqa: SIM118
    kinds = ("weight", "bias", "weight_mu", "bias_mu", "weight_sigma", "bias_sigma")
    return [flat[name] for layer in layers for kind in kinds if (name := f"{layer}.{kind}") in flat.keys()]  # noqa: SIM118


def torchrl_update(
    objective: Any, online: list[nn.Parameter], agent: DQNAgent, arrange: Arrange = in_our_order
) -> Update:
    """One step of torch's Adam on the loss of a LossModule, which gets the weights of the agent."""
    from tensordict import TensorDict
    from torchrl.objectives import HardUpdate

    HardUpdate(objective, value_network_update_interval=UPDATES + 1)  # otherwise the loss module warns
    optimizer = torch.optim.Adam(online, lr=LEARNING_RATE)
    copy_into(online, arrange(agent, agent.learner.online))
    target = [t.data for t in torchrl_params(objective.target_value_network_params)]
    copy_into(target, arrange(agent, agent.learner.target))

    def update(batch: Transition) -> float:
        terminated = (batch.discount == 0).unsqueeze(1)
        data = TensorDict(
            {
                "observation": batch.obs,
                "action": batch.action,
                "steps_to_next_obs": steps_of(batch).unsqueeze(1),
                "next": {
                    "observation": batch.next_obs,
                    "reward": batch.reward.unsqueeze(1),
                    "terminated": terminated,
                    "done": terminated,
                },
            },
            [BATCH],
        )
        optimizer.zero_grad()
        loss = objective(data)["loss"]
        loss.backward()
        optimizer.step()
        return loss.item()

    return update


def torchrl_double_dqn(network: nn.Module) -> Any:
    """The loss module of double DQN with a target network."""
    from torchrl.modules import QValueActor
    from torchrl.objectives import DQNLoss

    actor = QValueActor(network, in_keys=["observation"], action_space="categorical")
    objective = DQNLoss(
        actor, loss_function="smooth_l1", double_dqn=True, delay_value=True, action_space="categorical"
    )
    objective.make_value_estimator(gamma=GAMMA)
    return objective


@pytest.mark.usefixtures("_torchrl")
def test_double_dqn_updates_equal_those_of_torchrl() -> None:
    objective = torchrl_double_dqn(plain_mlp(1))
    agent = make_agent(QLearning(target=DoubleTarget()), None)
    online = torchrl_params(objective.value_network_params)
    compare(agent, torchrl_update(objective, online, agent), online)


@pytest.mark.usefixtures("_torchrl")
def test_updates_of_dueling_networks_equal_those_of_torchrl() -> None:
    from torchrl.modules.models.models import DuelingMlpDQNet

    features, last = HIDDEN
    network = DuelingMlpDQNet(
        ACTIONS,
        mlp_kwargs_feature={
            "in_features": OBS,
            "num_cells": [],
            "out_features": features,
            "activation_class": nn.ReLU,
        },
        mlp_kwargs_output={
            "in_features": features,
            "num_cells": [last],
            "depth": None,
            "activation_class": nn.ReLU,
        },
    )
    objective = torchrl_double_dqn(network)
    agent = make_agent(QLearning(target=DoubleTarget()), None, dueling=True)
    online = torchrl_params(objective.value_network_params)
    compare(agent, torchrl_update(objective, online, agent, advantage_first), online, advantage_first)


@pytest.mark.usefixtures("_torchrl")
def test_updates_of_noisy_networks_equal_those_of_torchrl(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same noise in each call: torchrl keeps it until it is drawn again."""
    from torchrl.modules import NoisyLinear

    def layer(inputs: int, outputs: int) -> nn.Module:
        return NoisyLinear(inputs, outputs, use_exploration_type=False)

    features, last = HIDDEN
    network = nn.Sequential(
        nn.Linear(OBS, features), nn.ReLU(), layer(features, last), nn.ReLU(), layer(last, ACTIONS)
    )
    agent = make_agent(QLearning(target=DoubleTarget()), None, noisy=True)
    noise = torch.randn(agent.network.noise_size, generator=torch.Generator().manual_seed(0))
    first = 0
    for noisy in (network[2], network[4]):
        count = noisy.in_features + noisy.out_features
        scaled = noise[first : first + count].sign() * noise[first : first + count].abs().sqrt()
        rows, columns = scaled[: noisy.in_features], scaled[noisy.in_features :]
        noisy.weight_epsilon.copy_(columns.outer(rows))
        noisy.bias_epsilon.copy_(columns)
        first += count
    monkeypatch.setattr(
        "dqn_runner.agent.agent.draw_noise",
        lambda needed, *_: UpdateNoise(noise.repeat(needed.calls, 1), torch.zeros(BATCH, 0)),
    )
    objective = torchrl_double_dqn(network)
    online = torchrl_params(objective.value_network_params)
    compare(agent, torchrl_update(objective, online, agent), online)


@pytest.mark.usefixtures("_torchrl")
def test_c51_updates_equal_those_of_torchrl() -> None:
    """With double DQN, which torchrl always uses, terminal states, and returns outside the support."""
    from torchrl.modules import DistributionalQValueActor
    from torchrl.objectives import DistributionalDQNLoss

    loss = Categorical(num_atoms=9, v_min=-4.0, v_max=4.0, target=DoubleTarget())
    # [batch, atoms, actions]; the actor takes the logarithm of the softmax
    network = nn.Sequential(plain_mlp(9), nn.Unflatten(-1, (ACTIONS, 9)), Transposed())
    actor = DistributionalQValueActor(
        network,
        in_keys=["observation"],
        support=loss.support(torch.device("cpu")),
        action_space="categorical",
    )
    objective = DistributionalDQNLoss(actor, gamma=GAMMA, delay_value=True)
    agent = make_agent(loss, None)
    online = torchrl_params(objective.value_network_params)
    compare(agent, torchrl_update(objective, online, agent), online)


class Transposed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(-1, -2)
