"""Known mistakes in implementations of the DQN family, and properties of agents with its parts.

A number in a test name is that of a pitfall in docs/pitfalls.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dqn_runner import DQNAgent, DQNConfig, UserError
from dqn_runner.agent.exploration import Boltzmann, EpsilonGreedy, Greedy
from dqn_runner.agent.learner import UPDATE_METRICS
from dqn_runner.agent.losses.categorical import Categorical
from dqn_runner.agent.losses.implicit_quantile import ImplicitQuantile
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.agent.losses.quantile import Quantile
from dqn_runner.agent.losses.targets import DoubleTarget, MaxTarget, MunchausenTarget
from dqn_runner.agent.networks.architectures import Auto, Mlp
from dqn_runner.agent.networks.modules.flat_network import FlatNetwork
from dqn_runner.agent.networks.modules.heads import Dueling
from dqn_runner.agent.networks.modules.layers import NoisyLinear
from dqn_runner.agent.schedules import Constant, CosineDecay, Linear
from dqn_runner.checkpointing.format import encode, load_checkpoint, pack
from dqn_runner.core.rng import stream, torch_seeded
from dqn_runner.core.types import Batch, EnvSpec, LossOutput, QFunction, Transition
from dqn_runner.replay.uniform import UniformReplay
from dqn_runner.training.checks import check
from dqn_runner.training.config import TrainingConfig
from tests.support.probes import compose_run
from tests.support.tables import lookup, step

OBS, ACTIONS, BATCH = 4, 3, 16


def transitions(seed: int) -> Transition:
    random = torch.Generator().manual_seed(seed)
    return Transition(
        obs=torch.randn(BATCH, OBS, generator=random),
        action=torch.randint(ACTIONS, (BATCH,), generator=random),
        reward=torch.randn(BATCH, generator=random),
        discount=torch.randint(2, (BATCH,), generator=random) * 0.9,
        next_obs=torch.randn(BATCH, OBS, generator=random),
    )


def batch(seed: int) -> Batch:
    return Batch(transitions(seed), np.arange(BATCH), torch.full((BATCH,), 1 / BATCH))


def agent_with(seed: int = 0, **parts: Any) -> DQNAgent:
    parts = {"network": Mlp(hidden=[8, 8]), "learning_starts": 0, **parts}
    return DQNAgent(DQNConfig(state_dim=OBS, action_dim=ACTIONS, seed=seed, **parts))


def noisy_agent(seed: int = 0, **parts: Any) -> DQNAgent:
    network = Mlp(hidden=[8, 8], noisy=True)
    return agent_with(seed, **{"network": network, "exploration": Greedy(), **parts})


class Calls:
    """Records the arguments of every call of an agent's network."""

    def __init__(self, agent: DQNAgent) -> None:
        self.noise: list[torch.Tensor | None] = []
        self.taus: list[torch.Tensor | None] = []
        self.params: list[str] = []
        self.obs: list[torch.Tensor] = []
        self.agent = agent
        self.original = agent.network.__class__.__call__

    def __call__(
        self,
        network: FlatNetwork,
        params: Any,
        obs: torch.Tensor,
        noise: torch.Tensor | None = None,
        taus: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self.noise.append(None if noise is None else noise.clone())
        self.taus.append(None if taus is None else taus.clone())
        self.params.append("target" if params is self.agent.learner.target_params else "online")
        self.obs.append(obs.clone())
        return self.original(network, params, obs, noise, taus)


@pytest.fixture
def record_calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[DQNAgent], Calls]:
    """A function that records every call of an agent's network from then on."""

    def record(agent: DQNAgent) -> Calls:
        calls = Calls(agent)

        def call(network: FlatNetwork, *given: Any) -> torch.Tensor:
            return calls(network, *given)

        monkeypatch.setattr(FlatNetwork, "__call__", call)
        return calls

    return record


# Pitfall 16: double DQN with distributions


@pytest.mark.parametrize("loss", [Categorical(num_atoms=5), Quantile(num_quantiles=5)], ids=["c51", "qr"])
def test_pitfall_16_distributional_double_dqn_learns_the_distribution_of_the_online_choice(loss: Any) -> None:
    """The online network chooses by mean values; the TD target is the target network's distribution."""
    random = torch.Generator().manual_seed(1)
    online, target = (torch.randn(2, ACTIONS, 5, generator=random) for _ in range(2))
    best_online = int(loss.q_values(online[1].flatten()[None]).argmax())
    best_target = int(loss.q_values(target[1].flatten()[None]).argmax())
    assert best_online != best_target

    def output(target_rule: Any, target: torch.Tensor) -> LossOutput:
        loss.target = target_rule
        return loss(lookup(online.flatten(1)), lookup(target.flatten(1)), step(0, 0.1, 0.9))

    chosen = target[:, [best_online]].repeat(1, ACTIONS, 1)  # the distribution of the online choice only
    assert_close(output(DoubleTarget(), target), output(MaxTarget(), chosen))
    assert not torch.allclose(output(DoubleTarget(), target).loss, output(MaxTarget(), target).loss)


# Pitfall 17: projection of the categorical distribution


@pytest.mark.parametrize("reward", [float(r) for r in range(-12, 13, 3)])
def test_pitfall_17_projection_loses_no_mass_when_shifted_atoms_fall_on_atoms(reward: float) -> None:
    part = Categorical()
    p = torch.full((1, 51), 1 / 51)
    for discount in (0.0, 0.5, 1.0):
        td_target = part.project(p, torch.tensor([reward]), torch.tensor([discount]))
        assert td_target.sum().item() == pytest.approx(1.0, abs=1e-5)
        assert (td_target >= 0).all()


@pytest.mark.parametrize("num_atoms", [2, 3, 7, 51, 101, 1001])
@pytest.mark.parametrize(("v_min", "v_max"), [(-10.0, 10.0), (-0.1, 0.3), (0.0, 1e4)])
def test_pitfall_17b_rounding_in_the_projection_keeps_all_mass_within_the_support(
    num_atoms: int, v_min: float, v_max: float
) -> None:
    """At the ends of the support and just beyond, where rounding could give the index of no atom."""
    part = Categorical(num_atoms=num_atoms, v_min=v_min, v_max=v_max)
    ends = torch.tensor([v_min, v_max])
    rewards = torch.cat(
        [
            ends,
            torch.nextafter(ends, ends - 1),
            torch.nextafter(ends, ends + 1),
            part.support(torch.device("cpu")),
        ]
    )
    p = torch.softmax(torch.randn(len(rewards), num_atoms, generator=torch.Generator().manual_seed(0)), -1)
    for discount in (0.0, 1.0):
        td_target = part.project(p, rewards, torch.full_like(rewards, discount))
        assert_close(td_target.sum(-1), torch.ones(len(rewards)), rtol=0, atol=1e-5)
        assert (td_target >= 0).all()


def test_pitfall_17b_a_support_of_zero_width_is_rejected() -> None:
    with pytest.raises(UserError, match="v_min must be below v_max"):
        Categorical(v_min=1.0, v_max=1.0)


@pytest.mark.parametrize("option", ["c51", "rainbow"])
def test_pitfall_17c_the_support_of_the_recipe_covers_the_returns_of_cartpole(option: str) -> None:
    """Rewards are not clipped; the largest discounted return is that of 500 rewards of 1."""
    run = compose_run([f"agent={option}", "env=cartpole"])
    best = sum(run.agent.gamma**t for t in range(500))
    assert run.env.learning_reward(1.0) == 1.0
    assert run.agent.loss.v_min <= 0 < best <= run.agent.loss.v_max


# Pitfall 18: the scale of the quantile loss


def test_pitfall_18_the_gradient_of_a_quantile_does_not_depend_on_the_number_of_quantiles() -> None:
    """The loss is summed over predicted quantiles and averaged over the samples of the TD target."""
    for n in (1, 10, 100):
        online = torch.zeros(1, ACTIONS * n, requires_grad=True)
        target = torch.zeros(1, ACTIONS * n)
        transition = step(0, 5.0, 0.9)._replace(next_obs=torch.zeros(1, 1))
        Quantile(num_quantiles=n)(lookup(online), lookup(target), transition).loss.sum().backward()
        assert online.grad is not None
        taus = (torch.arange(n) + 0.5) / n
        assert_close(online.grad[0, :n], -taus)


# Pitfall 19: noise of noisy layers


def test_pitfall_19_every_pass_of_an_update_has_its_own_noise(
    record_calls: Callable[[DQNAgent], Calls],
) -> None:
    """The noise of online(s), target(s') and online(s') is independent, also in two updates."""
    agent = noisy_agent(loss=QLearning(target=DoubleTarget()))
    calls = record_calls(agent)
    agent.learn(batch(0), 0)
    agent.learn(batch(1), 1)
    assert calls.params == ["online", "target", "online"] * 2
    drawn = torch.stack([noise for noise in calls.noise if noise is not None])
    assert drawn.shape == (6, agent.network.noise_size)
    for row in range(6):
        others = [other for other in range(6) if other != row]
        assert not (drawn[row] == drawn[others]).any()
    correlation = torch.corrcoef(drawn).fill_diagonal_(0)
    assert correlation.abs().max() < 0.7


@pytest.mark.parametrize(
    "target_rule", [MaxTarget(), DoubleTarget(), MunchausenTarget()], ids=["max", "double", "munchausen"]
)
@pytest.mark.parametrize("loss", [Categorical, Quantile, ImplicitQuantile])
def test_pitfall_19_every_pass_of_distributional_losses_has_its_own_noise_and_taus(
    loss: Any, target_rule: Any, record_calls: Callable[[DQNAgent], Calls]
) -> None:
    cosine_embedding_dim = 8 if loss is ImplicitQuantile else 0
    agent = noisy_agent(
        loss=loss(target=target_rule),
        network=Mlp(hidden=[8], noisy=True, cosine_embedding_dim=cosine_embedding_dim),
    )
    calls = record_calls(agent)
    agent.learn(batch(0), 0)
    drawn = torch.stack([noise for noise in calls.noise if noise is not None])
    assert len(drawn) == len(calls.noise) >= 2
    assert len(drawn.unique(dim=0)) == len(drawn)
    if cosine_embedding_dim:
        columns = torch.cat([taus for taus in calls.taus if taus is not None], 1)
        assert columns.unique().numel() == columns.numel()


def test_pitfall_19_acting_draws_new_noise_in_every_step(
    record_calls: Callable[[DQNAgent], Calls],
) -> None:
    """From the collector's generator, and the same for all environments."""
    agent, rng, obs = noisy_agent(), stream(0, "test"), np.ones((2, OBS), np.float32)
    calls = record_calls(agent)
    actions = np.stack([agent.act(obs, 0, rng) for _ in range(50)])
    assert (actions[:, 0] == actions[:, 1]).all()
    drawn = torch.stack([noise for noise in calls.noise if noise is not None])
    assert len(drawn.unique(dim=0)) == 50
    assert abs(drawn.mean().item()) < 0.1
    assert drawn.std().item() == pytest.approx(1.0, abs=0.1)


def test_pitfall_19_noise_makes_greedy_training_actions_explore() -> None:
    agent, rng = noisy_agent(network=Mlp(hidden=[8], noisy=True, noisy_std=3.0)), stream(0, "test")
    actions = [int(agent.act(np.ones((1, OBS), np.float32), 0, rng)[0]) for _ in range(100)]
    assert set(actions) == set(range(ACTIONS))


def test_pitfall_19_evaluation_uses_no_noise(record_calls: Callable[[DQNAgent], Calls]) -> None:
    """Also after a training action, which uses noise."""
    agent, obs = noisy_agent(), np.random.default_rng(0).normal(size=(5, OBS)).astype(np.float32)
    values = agent.q_values(obs)
    agent.act(obs, 0, stream(0, "test"))
    calls = record_calls(agent)
    assert np.array_equal(agent.q_values(obs), values)
    assert agent.greedy(obs).tolist() == values.argmax(-1).tolist()
    assert calls.noise == [None, None]


@pytest.mark.parametrize("std", [0.5, 0.1])
def test_pitfall_19_initial_deviations_are_sigma_over_the_root_of_the_number_of_inputs(std: float) -> None:
    layer = NoisyLinear(64, 10, std)
    assert_close(layer.weight_std.detach(), torch.full((64, 10), std / 8))
    assert_close(layer.bias_std.detach(), torch.full((10,), std / 8))
    for mean in (layer.weight, layer.bias):
        assert 1 / 16 < mean.abs().max() <= 1 / 8
    assert Auto().noisy_std == 0.5


def test_pitfall_19_the_noise_of_weights_is_factorised() -> None:
    """With f(x) = sign(x) sqrt(|x|), weights have noise f(inputs) f(outputs) and biases f(outputs)."""
    layer = NoisyLinear(3, 2, 0.5)
    layer.noise = torch.tensor([1.0, -4.0, 0.25, 9.0, -1.0])
    rows, columns = [1.0, -2.0, 0.5], [3.0, -1.0]
    x = torch.tensor([[0.3, -0.2, 0.7]])
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    deviation = 0.5 / 3**0.5
    expected = [
        bias[o]
        + deviation * columns[o]
        + sum(x[0, i].item() * (weight[i][o] + deviation * rows[i] * columns[o]) for i in range(3))
        for o in range(2)
    ]
    assert_close(layer(x).detach(), torch.tensor([expected]))


def test_pitfall_19_noisy_layers_of_a_network_share_no_noise() -> None:
    """Each layer uses its own part of the noise vector, and the parts cover all of it."""
    with torch_seeded(0):
        network = FlatNetwork(Mlp(hidden=[8, 8], noisy=True, dueling=True).build(EnvSpec((OBS,), ACTIONS), 1))
    assert network.noise_size == 2 * (8 + 8) + (8 + 1) + (8 + ACTIONS)
    params, obs = network.views(network.initial), torch.ones(5, OBS)
    zero = network(params, obs, torch.zeros(network.noise_size))
    assert_close(zero, network(params, obs))
    for place in range(network.noise_size):
        noise = torch.zeros(network.noise_size)
        noise[place : place + 2] = 4.0
        network(params, obs, noise)
        parts = torch.cat([layer.noise for layer in network._noisy])  # pyright: ignore
        assert torch.equal(parts, noise)


def test_pitfall_19_the_deviations_of_noisy_layers_are_learned() -> None:
    agent = noisy_agent()
    network = agent.network
    before = agent.learner.online.clone()
    for count in range(3):
        agent.learn(batch(count), count)
    names = [name for _, name, _ in network._assignments]  # pyright: ignore[reportPrivateUsage]
    changed = [
        (a != b).any()
        for a, b in zip(network.views(before), network.views(agent.learner.online), strict=True)
    ]
    assert all(changed), names
    assert any(name == "weight_std" for name in names)


# Pitfall 20: the dueling head


@pytest.mark.parametrize("outputs_per_action", [1, 5])
def test_pitfall_20_a_dueling_head_subtracts_the_mean_advantage_over_actions(
    outputs_per_action: int,
) -> None:
    """Separately for each atom."""
    with torch_seeded(0):
        value, advantage = (
            torch.nn.Linear(4, outputs_per_action),
            torch.nn.Linear(4, ACTIONS * outputs_per_action),
        )
        x = torch.randn(6, 4)
    found = Dueling(value, advantage, ACTIONS)(x)
    for row in range(6):
        v, a = value(x[row]).tolist(), advantage(x[row]).tolist()
        for atom in range(outputs_per_action):
            mean = sum(a[i * outputs_per_action + atom] for i in range(ACTIONS)) / ACTIONS
            for i in range(ACTIONS):
                expected = v[atom] + a[i * outputs_per_action + atom] - mean
                assert found[row, i * outputs_per_action + atom].item() == pytest.approx(expected, abs=1e-6)


def test_pitfall_20_a_dueling_head_of_implicit_quantiles_subtracts_the_mean_over_actions() -> None:
    """The mean of the quantiles over actions depends only on the value stream."""
    network = Mlp(hidden=[8], dueling=True, cosine_embedding_dim=4).build(EnvSpec((OBS,), ACTIONS), 5)
    x, taus = transitions(0).obs[:6], torch.rand(6, 7, generator=torch.Generator().manual_seed(0))
    outputs = network(x, taus).view(6, ACTIONS, 7)
    head: Any = network.head
    head.advantage = torch.nn.Linear(OBS, ACTIONS)
    assert_close(network(x, taus).view(6, ACTIONS, 7).mean(1), outputs.mean(1))


# IQN's taus


def test_acting_with_iqn_uses_the_midpoints_of_equal_fractions(
    record_calls: Callable[[DQNAgent], Calls],
) -> None:
    """As many as learning draws for an action value (K), so that acting is deterministic."""
    loss = ImplicitQuantile(num_tau_samples=3, num_tau_prime_samples=4, num_quantile_samples=5)
    agent = agent_with(loss=loss, network=Mlp(hidden=[8, 8], cosine_embedding_dim=6))
    obs = np.random.default_rng(0).normal(size=(2, OBS)).astype(np.float32)
    params = agent.network.views(agent.learner.online)
    midpoints = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).expand(2, -1)
    outputs = agent.network(params, torch.from_numpy(obs), None, midpoints)
    assert_close(torch.from_numpy(agent.q_values(obs)), outputs.view(2, ACTIONS, 5).mean(-1))
    calls = record_calls(agent)
    agent.learn(batch(0), 0)
    assert [x.shape for x in calls.taus if x is not None] == [(BATCH, 3), (BATCH, 4), (BATCH, 5)]
    drawn = torch.cat([x for x in calls.taus if x is not None], 1)
    assert 0 <= drawn.min() < 0.05
    assert 0.95 < drawn.max() < 1


def test_implicit_quantiles_are_the_head_of_features_times_embedded_taus() -> None:
    """Dabney et al. 2018b, eq. 4: relu(sum over i < n of cos(pi i tau) w_i + b)."""
    with torch_seeded(0):
        network: Any = Mlp(hidden=[6, 5], cosine_embedding_dim=4).build(EnvSpec((OBS,), ACTIONS), 3)
    x, taus = transitions(0).obs[:2], torch.tensor([[0.2, 0.9], [0.0, 0.5]])
    found = network(x, taus).view(2, ACTIONS, 2)
    for row in range(2):
        for place in range(2):
            cosines = [np.cos(np.pi * i * taus[row, place].item()) for i in range(4)]
            embedded = torch.relu(network.embedding(torch.tensor([cosines], dtype=torch.float32)))
            expected = network.head(network.features(x[row : row + 1]) * embedded)
            assert_close(found[row, :, place], expected[0])


# Exact resume


FAMILY: dict[str, Callable[[], dict[str, Any]]] = {
    "noisy": lambda: {"network": Mlp(hidden=[8, 8], noisy=True), "exploration": Greedy()},
    "implicit": lambda: {"network": Mlp(hidden=[8], cosine_embedding_dim=4), "loss": ImplicitQuantile()},
    "noisy implicit dueling": lambda: {
        "network": Mlp(hidden=[8], noisy=True, dueling=True, cosine_embedding_dim=4, layer_norm=True),
        "loss": ImplicitQuantile(target=MunchausenTarget()),
    },
    "normalised": lambda: {"normalize_observations": True},
    "normalised categorical": lambda: {
        "normalize_observations": True,
        "loss": Categorical(target=DoubleTarget()),
        "exploration": Boltzmann(schedule=Constant(value=0.5)),
        "learning_rate_schedule": CosineDecay(steps=10),
    },
}


def act_and_learn(agent: DQNAgent, start: int, rng: np.random.Generator) -> list[Any]:
    """Five actions and updates; returns all results."""
    results: list[Any] = []
    for count in range(start, start + 5):
        obs = 3 + 2 * np.random.default_rng(count).normal(size=(2, OBS)).astype(np.float32)
        results.append(agent.act(obs, count, rng).tolist())
        priority, metrics = agent.learn(batch(count), count)
        results += [priority.tolist(), metrics.tolist(), agent.q_values(obs).tolist()]
    agent.sync_target(1)
    return [*results, agent.learner.online.tolist(), agent.learner.target.tolist()]


@pytest.mark.parametrize("through_file", [False, True])
@pytest.mark.parametrize("name", FAMILY)
def test_an_agent_restored_from_its_state_acts_and_learns_identically(
    name: str, through_file: bool, tmp_path: Path
) -> None:
    """With the same noise, taus, normalisation of observations and weights."""
    agent, rng = agent_with(**FAMILY[name]()), stream(0, "test")
    act_and_learn(agent, 0, rng)
    state = {"agent": agent.state_dict(), "rng": rng.bit_generator.state}
    if through_file:
        file = tmp_path / "checkpoint_0.pt"
        file.write_bytes(
            encode({"step": 0, "names": [], "source": {}, "state": pack(state, lambda _, __: {})})
        )
        state = load_checkpoint(file)["state"]
    other, other_rng = agent_with(seed=1, **FAMILY[name]()), stream(1, "test")
    act_and_learn(other, 3, other_rng)
    other.load_state_dict(state["agent"])
    other_rng.bit_generator.state = state["rng"]
    assert act_and_learn(other, 5, other_rng) == act_and_learn(agent, 5, rng)


@pytest.mark.parametrize("normalised", [False, True])
def test_a_state_is_rejected_if_only_one_agent_normalises_observations(normalised: bool) -> None:
    agent = agent_with(normalize_observations=normalised)
    other = agent_with(normalize_observations=not normalised)
    before = agent.learner.online.clone()
    agent.learner.online.add_(1)
    message = (
        rf"run {'without' if not normalised else 'with'} normalised.*observations={str(normalised).lower()}$"
    )
    with pytest.raises(UserError, match=message):
        other.load_state_dict(agent.state_dict())
    assert torch.equal(other.learner.online, before)


# The inputs of learning


def test_acting_and_learning_use_normalised_observations(
    record_calls: Callable[[DQNAgent], Calls],
) -> None:
    """With the statistics at the time of use; the observations of the replay are not changed."""
    agent = agent_with(normalize_observations=True)
    plain = agent_with()
    data = (5 + 3 * np.random.default_rng(0).normal(size=(64, OBS))).astype(np.float32)
    for row in data:
        agent.act(row[None], 0, stream(0, "test"))
    mean, std = data.mean(0, dtype=np.float64), data.std(0, dtype=np.float64)
    assert_close(
        agent.q_values(data), plain.q_values(((data - mean) / std).astype(np.float32)), atol=1e-4, rtol=0
    )
    raw = transitions(0)
    calls = record_calls(agent)
    agent.learn(Batch(raw, np.arange(BATCH), torch.full((BATCH,), 1 / BATCH)), 0)
    for found, column in zip(calls.obs, (raw.obs, raw.next_obs), strict=True):
        expected = ((column.numpy() - mean) / std).clip(-10, 10)
        assert_close(found, torch.from_numpy(expected).float(), atol=1e-4, rtol=0)
    assert torch.equal(raw.obs, transitions(0).obs)


def test_evaluation_does_not_change_the_statistics_of_observations() -> None:
    agent = agent_with(normalize_observations=True)
    agent.act(np.ones((1, OBS), np.float32), 0, stream(0, "test"))
    before = str(agent.state_dict()["normalizer"])
    agent.greedy(np.full((1, OBS), 7.0, np.float32))
    assert str(agent.state_dict()["normalizer"]) == before


def test_the_learning_rate_follows_its_schedule() -> None:
    """Adam's first step has the length of the learning rate in every coordinate with a gradient."""

    def first_step(at: int) -> float:
        agent = agent_with(learning_rate=0.01, learning_rate_schedule=CosineDecay(final=0.5, steps=100))
        before = agent.learner.online.clone()
        agent.learn(batch(0), at)
        return (agent.learner.online - before).abs().max().item()

    assert [first_step(at) for at in (0, 50, 100)] == pytest.approx([0.01, 0.0075, 0.005], rel=1e-2)


# Incompatible parts


class CustomTauLoss(QLearning):
    """A user's own loss that uses taus."""

    def __call__(self, online: QFunction, target: QFunction, transition: Transition) -> LossOutput:
        online(transition.obs, online.sample_taus(1))
        return super().__call__(online, target, transition)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"exploration": Greedy()},
            r"^agent/exploration=greedy needs a network .*agent\.network\.noisy=true",
        ),
        (
            {"loss": ImplicitQuantile()},
            r"^agent\.loss needs quantiles at taus.*agent\.network\.cosine_embedding_dim=64",
        ),
        (
            {"network": Mlp(cosine_embedding_dim=64), "loss": Quantile()},
            r"^agent\.network\.cosine_embedding_dim embeds taus, which Quantile does not use; .*_dim=0",
        ),
        ({"network": Mlp(cosine_embedding_dim=64)}, r"which QLearning does not use"),
        (
            {"network": Mlp(cosine_embedding_dim=64), "loss": Categorical()},
            r"which Categorical does not use",
        ),
    ],
)
def test_incompatible_parts_are_rejected(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        agent_with(**parts)
    assert "\n" not in str(error.value)


def test_noisy_networks_with_epsilon_greedy_and_custom_losses_with_taus_are_accepted() -> None:
    noisy_agent(exploration=EpsilonGreedy())
    agent_with(network=Mlp(cosine_embedding_dim=4), loss=CustomTauLoss())


def problems(spec: EnvSpec, **parts: Any) -> str:
    config = DQNConfig(
        state_dim=spec.obs_shape,
        action_dim=spec.num_actions,
        learning_starts=10,
        replay=UniformReplay(capacity=500),
        exploration=EpsilonGreedy(schedule=Linear(steps=10)),
        **parts,
    )
    try:
        check(config, config.spec(), TrainingConfig(max_steps=100), spec)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("dtype", ["uint8", "bool"])
def test_normalising_byte_and_bool_observations_is_rejected(dtype: str) -> None:
    spec = EnvSpec((10, 10, 4), ACTIONS, dtype)
    assert f"are {dtype}, which networks scale to [0, 1]" in problems(spec, normalize_observations=True)
    assert problems(spec) == problems(EnvSpec((4,), ACTIONS), normalize_observations=True) == ""


def test_a_learning_rate_schedule_longer_than_the_run_is_rejected() -> None:
    spec = EnvSpec((4,), ACTIONS)
    message = problems(spec, learning_rate_schedule=CosineDecay(steps=101))
    assert message.startswith(
        "agent.learning_rate_schedule takes 101 env steps, longer than trainer.max_steps=100"
    )
    assert problems(spec, learning_rate_schedule=CosineDecay(steps=100)) == ""


def test_q_mean_is_the_mean_value_of_the_actions_taken_for_every_loss() -> None:
    for loss in (QLearning(), Categorical(), Quantile(num_quantiles=7)):
        agent = agent_with(loss=loss)
        drawn = batch(0)
        values = agent.q_values(drawn.transition.obs.numpy())
        expected = values[np.arange(BATCH), drawn.transition.action.numpy()].mean()
        _, metrics = agent.learn(drawn, 0)
        assert metrics[UPDATE_METRICS.index("q_mean")].item() == pytest.approx(expected, abs=1e-5)
