from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dqn_runner import DQNAgent, DQNConfig, UserError
from dqn_runner.learner import INFO, Hyper, LearnerState, make_update, sync_target
from dqn_runner.losses import QLearning, TDError
from dqn_runner.modules import FlatNetwork
from dqn_runner.networks import MinatarCnn, Mlp, Network
from dqn_runner.optimizers import Adam, Optimizer, RMSprop
from dqn_runner.rng import torch_seeded
from dqn_runner.types import Batch, EnvSpec, Transition

OBS, ACTIONS, BATCH = 4, 3, 16
LEARNING_RATE = 0.01
VECTOR = EnvSpec((OBS,), ACTIONS)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def transitions(seed: int, obs_shape: tuple[int, ...] = (OBS,), scale: float = 1.0) -> Transition:
    random = generator(seed)
    return Transition(
        obs=torch.randn(BATCH, *obs_shape, generator=random),
        action=torch.randint(ACTIONS, (BATCH,), generator=random),
        reward=torch.randn(BATCH, generator=random) * scale,
        discount=torch.randint(2, (BATCH,), generator=random) * 0.9,
        next_obs=torch.randn(BATCH, *obs_shape, generator=random),
    )


def weights(seed: int) -> torch.Tensor:
    return torch.rand(BATCH, generator=generator(1000 + seed))


# Against an ordinary implementation


def ordinary_network(flat: torch.Tensor, sizes: list[int]) -> nn.Sequential:
    """An MLP of torch's own layers with the weights of `flat`, where they lie transposed."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        with torch.no_grad():
            layer.weight.copy_(flat[: inputs * outputs].view(inputs, outputs).T)
            layer.bias.copy_(flat[inputs * outputs :][:outputs])
        flat = flat[(inputs + 1) * outputs :]
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def flatten(network: nn.Sequential) -> torch.Tensor:
    """The inverse of `ordinary_network`."""
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    return torch.cat([x.reshape(-1) for layer in linear for x in (layer.weight.T, layer.bias)]).detach()


def ordinary_update(
    online: nn.Sequential,
    target: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    loss: QLearning,
    max_grad_norm: float | None,
) -> tuple[float, float]:
    """The DQN update as tutorials write it; returns the loss and the gradient's norm."""
    obs, action, reward, discount, next_obs = batch.transition
    with torch.no_grad():
        values = target(next_obs)
        best = (online if loss.double else target)(next_obs).argmax(1)
        goal = reward + discount * values[torch.arange(BATCH), best]
    q = online(obs)[torch.arange(BATCH), action]
    if loss.error is TDError.huber:
        errors = nn.functional.smooth_l1_loss(q, goal, reduction="none")
    else:
        errors = nn.functional.mse_loss(q, goal, reduction="none")
    total = (batch.weight * errors).mean()
    optimizer.zero_grad()
    total.backward()
    limit = float("inf") if max_grad_norm is None else max_grad_norm
    norm = nn.utils.clip_grad_norm_(online.parameters(), limit)
    optimizer.step()
    return total.item(), norm.item()


@pytest.mark.parametrize("max_grad_norm", [None, 0.5, 1e9])
@pytest.mark.parametrize("error", list(TDError))
@pytest.mark.parametrize("double", [False, True])
def test_agent_learns_as_an_ordinary_implementation_does(
    double: bool, error: TDError, max_grad_norm: float | None
) -> None:
    loss = QLearning(double=double, error=error)
    agent = DQNAgent(
        DQNConfig(
            state_dim=OBS,
            action_dim=ACTIONS,
            learning_rate=LEARNING_RATE,
            max_grad_norm=max_grad_norm,
            network=Mlp(hidden=[32, 16]),
            loss=loss,
        )
    )
    sizes = [OBS, 32, 16, ACTIONS]
    online = ordinary_network(agent.learner.online, sizes)
    target = ordinary_network(agent.learner.target, sizes)
    optimizer = torch.optim.Adam(online.parameters(), lr=LEARNING_RATE)
    for count in range(10):
        batch = Batch(transitions(count, scale=3.0), np.arange(BATCH), weights(count))
        _, info = agent.learn(batch)
        expected = ordinary_update(online, target, optimizer, batch, loss, max_grad_norm)
        found = dict(zip(INFO, info.tolist(), strict=True))
        assert (found["loss"], found["grad_norm"]) == pytest.approx(expected, rel=1e-4)
        if count == 4:
            agent.sync_target()
            target.load_state_dict(online.state_dict())
    assert_close(agent.learner.online, flatten(online), rtol=1e-4, atol=1e-5)
    assert_close(agent.learner.target, flatten(target), rtol=1e-4, atol=1e-5)
    assert agent.learner.updates == 10
    assert not agent.learner.online.requires_grad


def test_importance_weights_scale_the_loss_of_each_sample_once() -> None:
    """A weight of zero takes a sample out of the gradient; the mean is still over the whole batch."""
    weight = torch.zeros(BATCH)
    weight[3] = 2.0
    network, state = one_run(Mlp(hidden=[8]), Adam(), 0)
    transition = transitions(0)
    gradients: list[torch.Tensor] = []
    update = make_update(network, QLearning(), Recorder(gradients))
    update(state, transition, weight, hyper(1.0))
    alone = Transition(*(column[3:4] for column in transition))
    update(state, alone, torch.ones(1), hyper(1.0))
    assert_close(gradients[0], gradients[1] * 2.0 / BATCH)


def test_priorities_are_the_absolute_td_errors_without_their_weights() -> None:
    network, state = one_run(Mlp(hidden=[8]), Adam(), 0)
    transition = transitions(0)
    q = network(state.online, transition.obs).squeeze(-1)[torch.arange(BATCH), transition.action]
    best = network(state.target, transition.next_obs).squeeze(-1).amax(-1)
    expected = (transition.reward + transition.discount * best - q).abs().detach()
    priority, info = make_update(network, QLearning(), Adam())(state, transition, weights(0), hyper(0.1))
    assert_close(priority, expected)
    assert info[INFO.index("q_mean")].item() == pytest.approx(q.mean().item(), abs=1e-6)
    assert not priority.requires_grad
    assert not info.requires_grad


# Clipping


class Recorder:
    """An optimizer that keeps the gradients and moves nothing."""

    def __init__(self, gradients: list[torch.Tensor]) -> None:
        self.gradients = gradients

    def init(self, params: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}

    def step(self, params: torch.Tensor, grad: torch.Tensor, *others: Any) -> None:
        self.gradients.append(grad.clone())


@pytest.mark.parametrize("limit", [0.01, 0.1, 1e6, float("inf")])
def test_a_gradient_is_scaled_down_to_the_limit_and_never_up(limit: float) -> None:
    gradients: list[torch.Tensor] = []
    network, state = one_run(Mlp(hidden=[8]), Adam(), 0)
    update = make_update(network, QLearning(), Recorder(gradients))
    _, free = update(state, transitions(0), torch.ones(BATCH), hyper(1.0))
    _, clipped = update(state, transitions(0), torch.ones(BATCH), hyper(1.0, limit))
    norm = gradients[0].norm()
    assert norm > 0.2
    assert gradients[1].norm().item() == pytest.approx(min(limit, norm.item()), rel=1e-4)
    assert_close(gradients[1] / gradients[1].norm(), gradients[0] / norm)
    column = INFO.index("grad_norm")  # the log tells the length before clipping
    assert free[column].item() == clipped[column].item() == pytest.approx(norm.item(), rel=1e-6)


# Many runs at once


def hyper(learning_rate: float, max_grad_norm: float = float("inf")) -> Hyper:
    return Hyper(torch.tensor([learning_rate]), torch.tensor([max_grad_norm]))


def one_run(part: Network, optimizer: Optimizer, seed: int, spec: EnvSpec = VECTOR) -> Any:
    """A network, and the state of a run whose online and target network differ."""
    with torch_seeded(seed):
        network = FlatNetwork(part.build(spec, 1), ACTIONS, 1)
        target = network.initial + 0.1 * torch.randn_like(network.initial)
    return network, LearnerState(network.initial, target, optimizer.init(network.initial))


@pytest.mark.parametrize(
    ("part", "obs_shape"),
    [(Mlp(hidden=[32, 16]), (OBS,)), (MinatarCnn(channels=4, hidden=16), (10, 10, 2))],
    ids=["mlp", "cnn"],
)
@pytest.mark.parametrize("loss", [QLearning(), QLearning(double=True, error=TDError.squared)])
@pytest.mark.parametrize("optimizer", [Adam(), RMSprop()], ids=["adam", "rmsprop"])
def test_a_run_learns_beside_others_as_it_does_alone(
    part: Network, obs_shape: tuple[int, ...], loss: QLearning, optimizer: Optimizer
) -> None:
    rates, limits = [0.01, 0.001, 0.0], [float("inf"), 0.1, 10.0]
    runs = range(len(rates))
    spec = EnvSpec(obs_shape, ACTIONS)
    network, _ = one_run(part, optimizer, 0, spec)
    update = make_update(network, loss, optimizer)
    states = [one_run(part, optimizer, seed, spec)[1] for seed in runs]
    online = torch.stack([state.online for state in states])
    target = torch.stack([state.target for state in states])
    together = LearnerState(online, target, optimizer.init(online))
    many = Hyper(torch.tensor(rates).unsqueeze(-1), torch.tensor(limits).unsqueeze(-1))
    for count in range(3):
        batches = [transitions(10 * r + count, obs_shape) for r in runs]
        weight = [weights(10 * r + count) for r in runs]
        joined = Transition(*(torch.stack(columns) for columns in zip(*batches, strict=True)))
        priority, info = update(together, joined, torch.stack(weight), many)
        assert priority.shape == (len(runs), BATCH)
        assert info.shape == (len(runs), len(INFO))
        for r, state in enumerate(states):
            alone = update(state, batches[r], weight[r], hyper(rates[r], limits[r]))
            assert_close(priority[r], alone[0], rtol=1e-5, atol=1e-6)
            assert_close(info[r], alone[1], rtol=1e-5, atol=1e-6)
            assert_close(together.online[r], state.online, rtol=1e-5, atol=1e-6)
            for name, moment in state.moments.items():
                assert_close(together.moments[name][r], moment, rtol=1e-5, atol=1e-7)
    assert torch.equal(together.target, target)
    assert torch.equal(together.online[2], one_run(part, optimizer, 2, spec)[1].online)  # its rate is zero
    assert not torch.equal(together.online[1], one_run(part, optimizer, 1, spec)[1].online)


# The target network


def state_of(online: list[float], target: list[float]) -> LearnerState:
    return LearnerState(torch.tensor(online), torch.tensor(target), {})


def test_a_hard_update_copies_the_online_network() -> None:
    state = state_of([1.0, 2.0], [5.0, 5.0])
    sync_target(state, tau=1.0)
    assert state.target.tolist() == [1.0, 2.0]
    state.online.add_(1)
    assert state.target.tolist() == [1.0, 2.0]


def test_soft_updates_close_the_distance_by_tau() -> None:
    state = state_of([1.0, 3.0], [5.0, 3.0])
    sync_target(state, tau=0.25)
    assert_close(state.target, torch.tensor([4.0, 3.0]))
    sync_target(state, tau=0.25)
    assert_close(state.target, torch.tensor([3.25, 3.0]))
    sync_target(state, tau=0.0)
    assert_close(state.target, torch.tensor([3.25, 3.0]))


@pytest.mark.parametrize("tau", [1.0, 0.1])
def test_the_target_moves_only_when_told(tau: float) -> None:
    agent = DQNAgent(DQNConfig(state_dim=OBS, action_dim=ACTIONS, tau=tau))
    initial = agent.learner.target.clone()
    agent.learn(Batch(transitions(0), np.arange(BATCH), torch.ones(BATCH)))
    assert torch.equal(agent.learner.target, initial)
    agent.sync_target()
    assert_close(agent.learner.target, initial + tau * (agent.learner.online - initial))


# State


def trained(updates: int, seed: int = 0) -> DQNAgent:
    agent = DQNAgent(DQNConfig(state_dim=OBS, action_dim=ACTIONS, seed=seed, network=Mlp(hidden=[8])))
    for count in range(updates):
        learn(agent, count)
    return agent


def learn(agent: DQNAgent, count: int) -> None:
    agent.learn(Batch(transitions(count), np.arange(BATCH), weights(count)))


def test_learning_goes_on_exactly_from_a_state() -> None:
    agent, other = trained(5), trained(2, seed=1)
    other.load_state_dict(agent.state_dict())
    for count in range(5, 10):
        learn(agent, count)
        learn(other, count)
    assert_close(other.state_dict(), agent.state_dict(), rtol=0, atol=0)


def test_acting_follows_a_loaded_state() -> None:
    """Actions come from views of the weights, so loading must write into the same memory."""
    agent, other = trained(5), trained(0, seed=1)
    obs = np.ones((2, OBS), np.float32)
    assert not np.array_equal(other.q_values(obs), agent.q_values(obs))
    other.load_state_dict(agent.state_dict())
    assert np.array_equal(other.q_values(obs), agent.q_values(obs))


def test_a_state_of_another_network_is_refused() -> None:
    other = DQNAgent(DQNConfig(state_dim=OBS, action_dim=ACTIONS, network=Mlp(hidden=[9])))
    before = other.learner.online.clone()
    message = r"holds another network or optimizer: it has online \(67,\).* this run has online \(75,\)"
    with pytest.raises(UserError, match=message):
        other.load_state_dict(trained(1).state_dict())
    assert torch.equal(other.learner.online, before)
