"""Updates against an ordinary implementation, runs side by side, the target network, state and options."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dqn_runner import DQNAgent, DQNConfig, UserError
from dqn_runner.agent.learner import UPDATE_METRICS, HyperParameters, LearnerState, make_update, sync_target
from dqn_runner.agent.losses.base import Loss
from dqn_runner.agent.losses.categorical import Categorical
from dqn_runner.agent.losses.implicit_quantile import ImplicitQuantile
from dqn_runner.agent.losses.q_learning import QLearning, TDError
from dqn_runner.agent.losses.quantile import Quantile
from dqn_runner.agent.losses.targets import DoubleTarget, MaxTarget, MunchausenTarget
from dqn_runner.agent.networks.architectures import ImpalaCnn, MinatarCnn, Mlp
from dqn_runner.agent.networks.base import Network
from dqn_runner.agent.networks.modules.flat_network import FlatNetwork
from dqn_runner.agent.optimizers import Adam, Optimizer, RMSprop
from dqn_runner.agent.update_noise import NoiseRequirements, UpdateNoise, count_noise, draw_noise
from dqn_runner.core.rng import stream, torch_seeded
from dqn_runner.core.types import Batch, EnvSpec, Transition

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
    """Importance weights divided by the batch size, as in a Batch."""
    return torch.rand(BATCH, generator=generator(1000 + seed)) / BATCH


MEAN = torch.full((BATCH,), 1 / BATCH)
"""Equal weights of all samples of a batch."""


# Comparison with an ordinary implementation


def stored(weight: torch.Tensor) -> torch.Tensor:
    """A layer's weights [outputs, inputs] as in the flat vector: transposed in wide layers."""
    return weight if len(weight) < 16 else weight.T


def ordinary_network(flat: torch.Tensor, sizes: list[int]) -> nn.Sequential:
    """An MLP of `torch.nn.Linear` layers with the weights of `flat`."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        with torch.no_grad():
            place = stored(layer.weight)
            place.copy_(flat[: inputs * outputs].view(place.shape))
            layer.bias.copy_(flat[inputs * outputs :][:outputs])
        flat = flat[(inputs + 1) * outputs :]
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def flatten(network: nn.Sequential) -> torch.Tensor:
    """The inverse of `ordinary_network`."""
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    return torch.cat([x.reshape(-1) for layer in linear for x in (stored(layer.weight), layer.bias)]).detach()


def ordinary_update(
    online: nn.Sequential,
    target: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    loss: QLearning,
    max_grad_norm: float | None,
) -> tuple[float, float]:
    """The DQN update as in tutorials; returns the loss and the norm of the gradient."""
    obs, action, reward, discount, next_obs = batch.transition.columns()
    with torch.no_grad():
        values = target(next_obs)
        best = (online if isinstance(loss.target, DoubleTarget) else target)(next_obs).argmax(1)
        td_target = reward + discount * values[torch.arange(BATCH), best]
    q = online(obs)[torch.arange(BATCH), action]
    if loss.error is TDError.huber:
        errors = nn.functional.smooth_l1_loss(q, td_target, reduction="none")
    else:
        errors = nn.functional.mse_loss(q, td_target, reduction="none")
    importance = batch.weight * BATCH
    total = (importance * errors).mean()
    optimizer.zero_grad()
    total.backward()
    limit = float("inf") if max_grad_norm is None else max_grad_norm
    norm = nn.utils.clip_grad_norm_(online.parameters(), limit)
    optimizer.step()
    return total.item(), norm.item()


@pytest.mark.parametrize("max_grad_norm", [None, 0.5, 1e9])
@pytest.mark.parametrize("error", list(TDError))
@pytest.mark.parametrize("double", [False, True])
def test_agent_learns_the_same_as_an_ordinary_implementation(
    double: bool, error: TDError, max_grad_norm: float | None
) -> None:
    loss = QLearning(target=DoubleTarget() if double else MaxTarget(), error=error)
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
        _, metrics = agent.learn(batch, 0)
        expected = ordinary_update(online, target, optimizer, batch, loss, max_grad_norm)
        found = dict(zip(UPDATE_METRICS, metrics.tolist(), strict=True))
        assert (found["loss"], found["grad_norm"]) == pytest.approx(expected, rel=1e-4)
        if count == 4:
            agent.sync_target(1)
            target.load_state_dict(online.state_dict())
    assert_close(agent.learner.online, flatten(online), rtol=1e-4, atol=1e-5)
    assert_close(agent.learner.target, flatten(target), rtol=1e-4, atol=1e-5)
    assert agent.learner.updates == 10
    assert not agent.learner.online.requires_grad


def test_importance_weights_scale_the_loss_of_each_sample_once() -> None:
    """The loss is the weighted sum of the per-sample losses; a sample with weight 0 has no gradient."""
    weight = torch.zeros(BATCH)
    weight[3] = 2.0 / BATCH
    network, state = one_run(Mlp(hidden=[8]), Adam(), 0)
    transition = transitions(0)
    gradients: list[torch.Tensor] = []
    update = make_update(network, QLearning(), Recorder(gradients))
    _, metrics = update(state, transition, weight, HyperParameters(1.0, None))
    single = Transition(*(column[3:4] for column in transition.columns()))
    _, metrics_single = update(state, single, torch.ones(1), HyperParameters(1.0, None))
    assert_close(gradients[0], gradients[1] * 2.0 / BATCH)
    column = UPDATE_METRICS.index("loss")
    assert metrics[column].item() == pytest.approx(metrics_single[column].item() * 2.0 / BATCH)


def test_each_update_starts_from_a_gradient_of_zero() -> None:
    """The state keeps its gradient tensors, also those of parameters that a loss does not reach."""
    network, state = one_run(Mlp(hidden=[8]), Adam(), 0)
    gradients: list[torch.Tensor] = []
    update = make_update(network, QLearning(), Recorder(gradients))
    for _ in range(2):
        update(state, transitions(0), MEAN, HyperParameters(1.0, None))
    assert gradients[0].any()
    assert torch.equal(gradients[0], gradients[1])
    update(state, transitions(0), torch.zeros(BATCH), HyperParameters(1.0, None))
    assert not gradients[2].any()


def test_priorities_are_the_absolute_td_errors_without_importance_weights() -> None:
    network, state = one_run(Mlp(hidden=[8]), Adam(), 0)
    transition = transitions(0)
    q = network(state.online_params, transition.obs)[torch.arange(BATCH), transition.action]
    best = network(state.target_params, transition.next_obs).amax(-1)
    expected = (transition.reward + transition.discount * best - q).abs().detach()
    update = make_update(network, QLearning(), Adam())
    priority, metrics = update(state, transition, weights(0), HyperParameters(0.1, None))
    assert_close(priority, expected)
    assert metrics[UPDATE_METRICS.index("q_mean")].item() == pytest.approx(q.mean().item(), abs=1e-6)
    assert not priority.requires_grad
    assert not metrics.requires_grad


# Gradient clipping


class Recorder:
    """An optimizer that records the gradients and changes no parameter."""

    def __init__(self, gradients: list[torch.Tensor]) -> None:
        self.gradients = gradients

    def init(self, params: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}

    def step(self, params: torch.Tensor, grad: torch.Tensor, *others: Any) -> None:
        self.gradients.append(grad.clone())


@pytest.mark.parametrize("limit", [0.01, 0.1, 1e6, float("inf"), None])
def test_only_gradients_above_the_maximum_norm_are_scaled_to_it(limit: float | None) -> None:
    gradients: list[torch.Tensor] = []
    network, state = one_run(Mlp(hidden=[8]), Adam(), 0)
    update = make_update(network, QLearning(), Recorder(gradients))
    _, free = update(state, transitions(0), MEAN, HyperParameters(1.0, None))
    _, clipped = update(state, transitions(0), MEAN, HyperParameters(1.0, limit))
    norm = gradients[0].norm()
    assert norm > 0.2
    if limit is None or limit > norm:
        assert torch.equal(gradients[1], gradients[0])
    else:
        assert gradients[1].norm().item() == pytest.approx(limit, rel=1e-4)
        assert_close(gradients[1] / gradients[1].norm(), gradients[0] / norm)
    column = UPDATE_METRICS.index("grad_norm")  # the norm before clipping
    assert free[column].item() == clipped[column].item() == pytest.approx(norm.item(), rel=1e-6)


# Several runs side by side


def one_run(
    part: Network, optimizer: Optimizer, seed: int, spec: EnvSpec = VECTOR, outputs_per_action: int = 1
) -> tuple[FlatNetwork, LearnerState]:
    """A network, and the state of a run whose online and target network differ."""
    with torch_seeded(seed):
        network = FlatNetwork(part.build(spec, outputs_per_action))
        noise = 0.1 * torch.randn_like(network.initial)
    state = LearnerState(network.initial, optimizer.init(network.initial), network.views)
    state.target.add_(noise)
    return network, state


class Runs(NamedTuple):
    """Runs that learn side by side, and the same runs alone."""

    network: FlatNetwork
    alone: list[LearnerState]
    together: LearnerState


def several_runs(
    part: Network, optimizer: Optimizer, spec: EnvSpec, count: int, outputs_per_action: int = 1
) -> Runs:
    network, _ = one_run(part, optimizer, 0, spec, outputs_per_action)
    alone = [one_run(part, optimizer, seed, spec, outputs_per_action)[1] for seed in range(count)]
    online = torch.stack([state.online for state in alone])
    together = LearnerState(online, optimizer.init(online), network.views)
    together.target.copy_(torch.stack([state.target for state in alone]))
    return Runs(network, alone, together)


def assert_same_run(together: LearnerState, r: int, alone: LearnerState) -> None:
    """Assert that run `r` of `together` equals the run that learned alone."""
    assert_close(together.grad[r], alone.grad, rtol=1e-5, atol=1e-6)
    assert_close(together.online[r], alone.online, rtol=1e-5, atol=1e-6)
    for name, moment in alone.moments.items():
        assert_close(together.moments[name][r], moment, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout contract:UserWarning")
@pytest.mark.parametrize(
    ("part", "obs_shape"),
    [(Mlp(hidden=[32, 16]), (OBS,)), (MinatarCnn(channels=4, hidden=16), (10, 10, 2))],
    ids=["mlp", "cnn"],
)
@pytest.mark.parametrize("loss", [QLearning(), QLearning(target=DoubleTarget(), error=TDError.squared)])
@pytest.mark.parametrize("optimizer", [Adam(eps=1e-3), RMSprop()], ids=["adam", "rmsprop"])
@pytest.mark.parametrize("clipped", [False, True])
def test_runs_side_by_side_learn_the_same_as_each_run_alone(
    part: Network, obs_shape: tuple[int, ...], loss: QLearning, optimizer: Optimizer, clipped: bool
) -> None:
    """Each run has its own batch, learning rate and gradient norm."""
    rates, scales = [0.01, 0.001, 0.0], [1.0, 20.0, 0.1]
    norm = UPDATE_METRICS.index("grad_norm")
    limit = 1.0 if clipped else None
    norms: list[float] = []
    spec = EnvSpec(obs_shape, ACTIONS)
    network, states, together = several_runs(part, optimizer, spec, len(rates))
    update = make_update(network, loss, optimizer)
    target = together.target.clone()
    many = HyperParameters(torch.tensor(rates).unsqueeze(-1), limit)
    for count in range(3):
        batches = [transitions(10 * r + count, obs_shape) for r in range(len(rates))]
        weight = [scales[r] * weights(10 * r + count) for r in range(len(rates))]
        joined = Transition(
            *(torch.stack(columns) for columns in zip(*(b.columns() for b in batches), strict=True))
        )
        priority, metrics = update(together, joined, torch.stack(weight), many)
        assert priority.shape == (len(rates), BATCH)
        assert metrics.shape == (len(rates), len(UPDATE_METRICS))
        for r, state in enumerate(states):
            alone = update(state, batches[r], weight[r], HyperParameters(rates[r], limit))
            norms.append(alone[1][norm].item())
            assert_close(priority[r], alone[0], rtol=1e-5, atol=1e-6)
            assert_close(metrics[r], alone[1], rtol=1e-5, atol=1e-6)
            assert_same_run(together, r, state)
    assert min(norms) < 1.0 < max(norms)  # only some of the gradients are clipped
    assert together.updates == 3
    assert torch.equal(together.target, target)
    assert torch.equal(together.online[2], one_run(part, optimizer, 2, spec)[1].online)  # its rate is zero
    assert not torch.equal(together.online[1], one_run(part, optimizer, 1, spec)[1].online)


TARGET_RULES = {"max": MaxTarget(), "double": DoubleTarget(), "munchausen": MunchausenTarget()}
LOSSES = {
    "q_learning": lambda target_rule: QLearning(target=target_rule),
    "categorical": lambda target_rule: Categorical(num_atoms=5, target=target_rule),
    "quantile": lambda target_rule: Quantile(num_quantiles=4, target=target_rule),
    "implicit": lambda target_rule: ImplicitQuantile(
        num_tau_samples=3, num_tau_prime_samples=4, num_quantile_samples=5, target=target_rule
    ),
}
SMALL = {
    "mlp": ((OBS,), lambda **layers: Mlp(hidden=[8, 8], **layers)),
    "cnn": ((6, 6, 2), lambda **layers: MinatarCnn(channels=3, hidden=8, **layers)),
    "impala": ((7, 7, 2), lambda **layers: ImpalaCnn(width=0.25, hidden=8, spectral_norm=True, **layers)),
}
HEADS = {"plain": {}, "dueling": {"dueling": True}, "noisy": {"noisy": True}}
ALL = {"dueling": True, "noisy": True, "layer_norm": True}
FAMILY = [
    *(("mlp", head, loss, "max") for head in HEADS for loss in LOSSES),
    *(("mlp", "all", loss, target_rule) for loss in LOSSES for target_rule in ("double", "munchausen")),
    *((network, "all", loss, "max") for network in ("cnn", "impala") for loss in ("categorical", "implicit")),
]
"""(network, head, loss, target rule): every pair of parts that could affect each other."""


@pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout contract:UserWarning")
@pytest.mark.parametrize(("network", "head", "loss", "target_rule"), FAMILY)
def test_runs_side_by_side_learn_the_same_as_alone_with_every_loss_and_network(
    network: str, head: str, loss: str, target_rule: str
) -> None:
    """Each run has its own random numbers."""
    part_of_loss = LOSSES[loss](TARGET_RULES[target_rule])
    obs_shape, make = SMALL[network]
    part = make(**HEADS.get(head, ALL), cosine_embedding_dim=6 if loss == "implicit" else 0)
    optimizer, rate, runs = Adam(eps=1e-3), 0.01, range(3)
    flat, states, together = several_runs(
        part, optimizer, EnvSpec(obs_shape, ACTIONS), len(runs), part_of_loss.outputs_per_action
    )
    update = make_update(flat, part_of_loss, optimizer)
    for count in range(2):
        batches = [transitions(10 * r + count, obs_shape) for r in runs]
        noise = [noise_for(flat, states[r], part_of_loss, 10 * r + count, batches[r]) for r in runs]
        joined = Transition(
            *(torch.stack(columns) for columns in zip(*(b.columns() for b in batches), strict=True))
        )
        joined_noise = UpdateNoise(*(torch.stack(columns) for columns in zip(*noise, strict=True)))
        many = HyperParameters(torch.full((len(runs), 1), rate), 1.0)
        joined_weights = torch.stack([weights(r) for r in runs])
        priority, metrics = update(together, joined, joined_weights, many, joined_noise)
        for r, state in enumerate(states):
            alone = update(state, batches[r], weights(r), HyperParameters(rate, 1.0), noise[r])
            assert_close(priority[r], alone[0], rtol=1e-4, atol=1e-5)
            assert_close(metrics[r], alone[1], rtol=1e-4, atol=1e-5)
            assert_close(together.grad[r], state.grad, rtol=1e-4, atol=1e-5)
            assert_close(together.online[r], state.online, rtol=1e-4, atol=1e-5)
            assert state.grad.any()


def noise_for(
    network: FlatNetwork, state: LearnerState, loss: Loss, seed: int, transition: Transition
) -> UpdateNoise:
    """Random numbers for one update as tensors, which may be empty, so that runs can be stacked."""
    requirements, random = count_noise(network, state.target_params, loss, transition), generator(500 + seed)
    return UpdateNoise(
        torch.randn(requirements.calls, network.noise_size, generator=random),
        torch.rand(BATCH, requirements.taus, generator=random),
    )


@pytest.mark.parametrize(
    ("loss", "target_rule", "requirements"),
    [
        ("q_learning", "max", (2, 0)),  # online(s), target(s')
        ("categorical", "double", (3, 0)),  # also online(s')
        ("quantile", "munchausen", (3, 0)),  # also target(s)
        ("implicit", "max", (3, 3 + 4 + 5)),  # target(s') for the TD target, and again for the greedy action
        ("implicit", "double", (3, 3 + 4 + 5)),
        ("implicit", "munchausen", (4, 3 + 4 + 5 + 5)),
    ],
)
def test_the_network_calls_and_taus_of_a_loss_are_counted(
    loss: str, target_rule: str, requirements: tuple[int, int]
) -> None:
    part = LOSSES[loss](TARGET_RULES[target_rule])
    network, state = one_run(
        Mlp(cosine_embedding_dim=6 if loss == "implicit" else 0),
        Adam(),
        0,
        outputs_per_action=part.outputs_per_action,
    )
    assert count_noise(network, state.target_params, part, transitions(0)) == requirements


def test_noise_is_drawn_for_every_call_and_sample() -> None:
    noise = draw_noise(NoiseRequirements(calls=3, taus=5), 7, 16, stream(0, "test"))
    assert noise is not None
    assert (noise.layers.shape, noise.taus.shape) == ((3, 7), (16, 5))
    assert draw_noise(NoiseRequirements(calls=2, taus=0), 0, 16, stream(0, "test")) is None


# The target network


def state_of(online: list[float], target: list[float]) -> LearnerState:
    state = LearnerState(torch.tensor(online), {}, lambda flat: [flat])
    state.target.copy_(torch.tensor(target))
    return state


def test_the_target_network_starts_as_a_copy_of_the_online_network() -> None:
    state = LearnerState(torch.tensor([1.0, 2.0]), {}, lambda flat: [flat])
    state.online.add_(1)
    assert state.target.tolist() == [1.0, 2.0]


def test_a_hard_target_update_copies_the_online_network() -> None:
    state = state_of([1.0, 2.0], [5.0, 5.0])
    sync_target(state, tau=1.0)
    assert state.target.tolist() == [1.0, 2.0]
    state.online.add_(1)
    assert state.target.tolist() == [1.0, 2.0]


def test_a_soft_target_update_reduces_the_difference_by_the_fraction_tau() -> None:
    state = state_of([1.0, 3.0], [5.0, 3.0])
    sync_target(state, tau=0.25)
    assert_close(state.target, torch.tensor([4.0, 3.0]))
    sync_target(state, tau=0.25)
    assert_close(state.target, torch.tensor([3.25, 3.0]))
    sync_target(state, tau=0.0)
    assert_close(state.target, torch.tensor([3.25, 3.0]))


@pytest.mark.parametrize("tau", [1.0, 0.1])
def test_the_target_network_changes_only_in_target_updates(tau: float) -> None:
    agent = DQNAgent(DQNConfig(state_dim=OBS, action_dim=ACTIONS, tau=tau))
    initial = agent.learner.target.clone()
    agent.learn(Batch(transitions(0), np.arange(BATCH), MEAN), 0)
    assert torch.equal(agent.learner.target, initial)
    agent.sync_target(1)
    assert_close(agent.learner.target, initial + tau * (agent.learner.online - initial))


@pytest.mark.parametrize("tau", [1.0, 0.1])
@pytest.mark.parametrize("times", [0, 1, 2, 16])
def test_several_target_updates_at_once_equal_the_same_updates_one_by_one(tau: float, times: int) -> None:
    config = DQNConfig(state_dim=OBS, action_dim=ACTIONS, tau=tau)
    at_once, one_by_one = DQNAgent(config), DQNAgent(config)
    for agent in (at_once, one_by_one):
        agent.learner.target.add_(1.0)
    at_once.sync_target(times)
    for _ in range(times):
        one_by_one.sync_target(1)
    assert_close(at_once.learner.target, one_by_one.learner.target)
    left = at_once.learner.target - at_once.learner.online
    assert_close(left, torch.full_like(left, (1 - tau) ** times), rtol=0, atol=1e-6)


# State


def trained(updates: int, seed: int = 0) -> DQNAgent:
    agent = DQNAgent(DQNConfig(state_dim=OBS, action_dim=ACTIONS, seed=seed, network=Mlp(hidden=[8])))
    for count in range(updates):
        learn(agent, count)
    return agent


def learn(agent: DQNAgent, count: int) -> None:
    agent.learn(Batch(transitions(count), np.arange(BATCH), weights(count)), 0)


def test_an_agent_restored_from_its_state_learns_identically() -> None:
    agent, other = trained(5), trained(2, seed=1)
    other.load_state_dict(agent.state_dict())
    for count in range(5, 10):
        learn(agent, count)
        learn(other, count)
    assert_close(other.state_dict()["learner"], agent.state_dict()["learner"], rtol=0, atol=0)


def test_acting_uses_the_weights_of_a_loaded_state() -> None:
    """Acting holds views of the weights, so loading must write into the same memory."""
    agent, other = trained(5), trained(0, seed=1)
    obs = np.ones((2, OBS), np.float32)
    assert not np.array_equal(other.q_values(obs), agent.q_values(obs))
    other.load_state_dict(agent.state_dict())
    assert np.array_equal(other.q_values(obs), agent.q_values(obs))


def test_a_state_of_another_network_is_rejected() -> None:
    other = DQNAgent(DQNConfig(state_dim=OBS, action_dim=ACTIONS, network=Mlp(hidden=[9])))
    before = other.learner.online.clone()
    message = r"another network: parameter 0 is 0\.weight \(8, 4\) there, and 0\.weight \(9, 4\) here"
    with pytest.raises(UserError, match=message):
        other.load_state_dict(trained(1).state_dict())
    assert torch.equal(other.learner.online, before)


# Options


@pytest.mark.parametrize(
    ("setting", "value", "bounds"),
    [
        ("learning_starts", -1, "at least 0"),
        ("max_grad_norm", 0.0, "above 0"),
        ("learning_rate", 0.0, "above 0"),
        ("n_step", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("train_every", 0, "at least 1"),
        ("gradient_steps", 0, "at least 1"),
        ("target_update_every", 0, "at least 1"),
        ("gamma", 1.01, "between 0 and 1"),
        ("tau", 0.0, "above 0 and at most 1"),
    ],
)
def test_agent_options_outside_their_bounds_are_rejected(setting: str, value: float, bounds: str) -> None:
    with pytest.raises(UserError, match=rf"^agent\.{setting} must be {bounds}, got {value}$"):
        DQNConfig(state_dim=OBS, action_dim=ACTIONS, **{setting: value})


def test_agent_options_at_their_bounds_are_accepted() -> None:
    DQNConfig(learning_starts=0, max_grad_norm=None, gamma=1.0)
    DQNConfig(gamma=0.0, tau=1.0)
