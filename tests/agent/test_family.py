"""Mistakes that implementations of the DQN family make, and what agents of its parts must keep.

The numbers are those of the checklist that test_pitfalls.py follows too.
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
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.agent.losses.quantile import ImplicitQuantile, Quantile
from dqn_runner.agent.losses.targets import DoubleTarget, MaxTarget, MunchausenTarget
from dqn_runner.agent.networks.architectures import Auto, Mlp
from dqn_runner.agent.networks.modules.flat_network import FlatNetwork
from dqn_runner.agent.networks.modules.layers import Dueling, NoisyLinear
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
    """The noise and the taus of each call of a network, in order."""

    def __init__(self, agent: DQNAgent) -> None:
        self.noise: list[torch.Tensor | None] = []
        self.taus: list[torch.Tensor | None] = []
        self.params: list[str] = []
        self.obs: list[torch.Tensor] = []
        self.agent = agent
        self.first = agent.network.__class__.__call__

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
        return self.first(network, params, obs, noise, taus)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[DQNAgent], Calls]:
    """Lets one look at every call of an agent's network."""

    def watch(agent: DQNAgent) -> Calls:
        calls = Calls(agent)

        def call(network: FlatNetwork, *given: Any) -> torch.Tensor:
            return calls(network, *given)

        monkeypatch.setattr(FlatNetwork, "__call__", call)
        return calls

    return watch


# 16


@pytest.mark.parametrize("loss", [Categorical(num_atoms=5), Quantile(num_quantiles=5)], ids=["c51", "qr"])
def test_16_distributional_double_takes_the_whole_distribution_of_the_online_choice(loss: Any) -> None:
    """Actions compete by their means; what is learned is the target's distribution of the chosen one."""
    random = torch.Generator().manual_seed(1)
    online, target = (torch.randn(2, ACTIONS, 5, generator=random) for _ in range(2))
    best_online = int(loss.q_values(online[1].flatten()[None]).argmax())
    best_target = int(loss.q_values(target[1].flatten()[None]).argmax())
    assert best_online != best_target

    def learned(bootstrap: Any, target: torch.Tensor) -> LossOutput:
        loss.target = bootstrap
        return loss(lookup(online.flatten(1)), lookup(target.flatten(1)), step(0, 0.1, 0.9))

    only = target[:, [best_online]].repeat(1, ACTIONS, 1)  # whatever is chosen is what the online one chose
    assert_close(learned(DoubleTarget(), target), learned(MaxTarget(), only))
    assert not torch.allclose(learned(DoubleTarget(), target).loss, learned(MaxTarget(), target).loss)


# 17


@pytest.mark.parametrize("reward", [float(r) for r in range(-12, 13, 3)])
def test_17_atoms_that_fall_on_atoms_lose_no_mass(reward: float) -> None:
    part = Categorical()
    p = torch.full((1, 51), 1 / 51)
    for discount in (0.0, 0.5, 1.0):
        td_target = part.project(p, torch.tensor([reward]), torch.tensor([discount]))
        assert td_target.sum().item() == pytest.approx(1.0, abs=1e-5)
        assert (td_target >= 0).all()


@pytest.mark.parametrize("num_atoms", [2, 3, 7, 51, 101, 1001])
@pytest.mark.parametrize(("v_min", "v_max"), [(-10.0, 10.0), (-0.1, 0.3), (0.0, 1e4)])
def test_17b_rounding_neither_adds_mass_nor_leaves_the_support(
    num_atoms: int, v_min: float, v_max: float
) -> None:
    """Rewards at the very ends and just beyond, where floats round to an atom that does not exist."""
    part = Categorical(num_atoms=num_atoms, v_min=v_min, v_max=v_max)
    ends = torch.tensor([v_min, v_max])
    rewards = torch.cat(
        [ends, torch.nextafter(ends, ends - 1), torch.nextafter(ends, ends + 1), part.support()]
    )
    p = torch.softmax(torch.randn(len(rewards), num_atoms, generator=torch.Generator().manual_seed(0)), -1)
    for discount in (0.0, 1.0):
        td_target = part.project(p, rewards, torch.full_like(rewards, discount))
        assert_close(td_target.sum(-1), torch.ones(len(rewards)), rtol=0, atol=1e-5)
        assert (td_target >= 0).all()


def test_17b_a_support_without_width_is_refused() -> None:
    with pytest.raises(UserError, match="v_min below v_max"):
        Categorical(v_min=1.0, v_max=1.0)


@pytest.mark.parametrize("option", ["c51", "rainbow"])
def test_17c_the_recipe_covers_cartpole_without_clipping(option: str) -> None:
    """Its best discounted return is that of 500 rewards of 1."""
    run = compose_run([f"agent={option}", "env=cartpole"])
    best = sum(run.agent.gamma**t for t in range(500))
    assert run.env.learning_reward(1.0) == 1.0
    assert run.agent.loss.v_min <= 0 < best <= run.agent.loss.v_max


# 18


def test_18_more_quantiles_do_not_make_longer_steps_of_each() -> None:
    """Summed over predicted quantiles, averaged over targets: one quantile's gradient is of its own error."""
    for n in (1, 10, 100):
        online = torch.zeros(1, ACTIONS * n, requires_grad=True)
        target = torch.zeros(1, ACTIONS * n)
        transition = step(0, 5.0, 0.9)._replace(next_obs=torch.zeros(1, 1))
        Quantile(num_quantiles=n)(lookup(online), lookup(target), transition).loss.sum().backward()
        assert online.grad is not None
        taus = (torch.arange(n) + 0.5) / n  # their middles
        assert_close(online.grad[0, :n], -taus)


# 19


def test_19_every_pass_has_noise_of_its_own(watched: Callable[[DQNAgent], Calls]) -> None:
    """online(s), target(s') and online(s') of one update are independent, and so are two updates."""
    agent = noisy_agent(loss=QLearning(target=DoubleTarget()))
    calls = watched(agent)
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
    "bootstrap", [MaxTarget(), DoubleTarget(), MunchausenTarget()], ids=["max", "double", "munchausen"]
)
@pytest.mark.parametrize("loss", [Categorical, Quantile, ImplicitQuantile])
def test_19_so_does_every_pass_of_other_losses(
    loss: Any, bootstrap: Any, watched: Callable[[DQNAgent], Calls]
) -> None:
    cosine_embedding_dim = 8 if loss is ImplicitQuantile else 0
    agent = noisy_agent(
        loss=loss(target=bootstrap),
        network=Mlp(hidden=[8], noisy=True, cosine_embedding_dim=cosine_embedding_dim),
    )
    calls = watched(agent)
    agent.learn(batch(0), 0)
    drawn = torch.stack([noise for noise in calls.noise if noise is not None])
    assert len(drawn) == len(calls.noise) >= 2
    assert len(drawn.unique(dim=0)) == len(drawn)
    if cosine_embedding_dim:
        columns = torch.cat([taus for taus in calls.taus if taus is not None], 1)
        assert columns.unique().numel() == columns.numel()


def test_19_acting_draws_noise_anew(watched: Callable[[DQNAgent], Calls]) -> None:
    """From the collector's generator, once a step, for all environments."""
    agent, rng, obs = noisy_agent(), stream(0, "test"), np.ones((2, OBS), np.float32)
    calls = watched(agent)
    actions = np.stack([agent.act(obs, 0, rng) for _ in range(50)])
    assert (actions[:, 0] == actions[:, 1]).all()
    drawn = torch.stack([noise for noise in calls.noise if noise is not None])
    assert len(drawn.unique(dim=0)) == 50
    assert abs(drawn.mean().item()) < 0.1
    assert drawn.std().item() == pytest.approx(1.0, abs=0.1)


def test_19_noise_explores() -> None:
    agent, rng = noisy_agent(network=Mlp(hidden=[8], noisy=True, noisy_std=3.0)), stream(0, "test")
    actions = [int(agent.act(np.ones((1, OBS), np.float32), 0, rng)[0]) for _ in range(100)]
    assert set(actions) == set(range(ACTIONS))


def test_19_evaluation_is_without_noise(watched: Callable[[DQNAgent], Calls]) -> None:
    """Whatever was called before, and as if its deviations were zero."""
    agent, obs = noisy_agent(), np.random.default_rng(0).normal(size=(5, OBS)).astype(np.float32)
    values = agent.q_values(obs)
    agent.act(obs, 0, stream(0, "test"))
    calls = watched(agent)
    assert np.array_equal(agent.q_values(obs), values)
    assert agent.greedy(obs).tolist() == values.argmax(-1).tolist()
    assert calls.noise == [None, None]


@pytest.mark.parametrize("std", [0.5, 0.1])
def test_19_deviations_start_at_sigma_over_the_root_of_the_inputs(std: float) -> None:
    layer = NoisyLinear(64, 10, std)
    assert_close(layer.weight_std.detach(), torch.full((64, 10), std / 8))
    assert_close(layer.bias_std.detach(), torch.full((10,), std / 8))
    for mean in (layer.weight, layer.bias):
        assert 1 / 16 < mean.abs().max() <= 1 / 8
    assert Auto().noisy_std == 0.5


def test_19_noise_is_factorised() -> None:
    """Weight noise is f(inputs) f(outputs) with f(x) = sign(x) sqrt(|x|), and bias noise f(outputs)."""
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


def test_19_layers_share_no_noise() -> None:
    """Each takes its own part of the vector, all of it, the same part in each call."""
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


def test_19_deviations_learn() -> None:
    agent = noisy_agent()
    network = agent.network
    before = agent.learner.online.clone()
    for count in range(3):
        agent.learn(batch(count), count)
    names = [name for _, name, _ in network._places]  # pyright: ignore[reportPrivateUsage]
    moved = [
        (a != b).any()
        for a, b in zip(network.views(before), network.views(agent.learner.online), strict=True)
    ]
    assert all(moved), names
    assert any(name == "weight_std" for name in names)


# 20


@pytest.mark.parametrize("width", [1, 5])
def test_20_the_mean_advantage_is_over_actions(width: int) -> None:
    """Atom by atom."""
    with torch_seeded(0):
        value, advantage = torch.nn.Linear(4, width), torch.nn.Linear(4, ACTIONS * width)
        x = torch.randn(6, 4)
    found = Dueling(value, advantage, ACTIONS)(x)
    for row in range(6):
        v, a = value(x[row]).tolist(), advantage(x[row]).tolist()
        for atom in range(width):
            mean = sum(a[i * width + atom] for i in range(ACTIONS)) / ACTIONS
            for i in range(ACTIONS):
                expected = v[atom] + a[i * width + atom] - mean
                assert found[row, i * width + atom].item() == pytest.approx(expected, abs=1e-6)


def test_20_with_quantiles_at_fractions_too() -> None:
    """The mean over actions of an implicit network's quantiles is its value stream's."""
    network = Mlp(hidden=[8], dueling=True, cosine_embedding_dim=4).build(EnvSpec((OBS,), ACTIONS), 5)
    x, taus = transitions(0).obs[:6], torch.rand(6, 7, generator=torch.Generator().manual_seed(0))
    outputs = network(x, taus).view(6, ACTIONS, 7)
    head: Any = network.head
    head.advantage = torch.nn.Linear(OBS, ACTIONS)
    assert_close(network(x, taus).view(6, ACTIONS, 7).mean(1), outputs.mean(1))


# IQN's taus


def test_acting_takes_the_middles_of_equal_fractions(watched: Callable[[DQNAgent], Calls]) -> None:
    """As many as learning draws for an action's value (K): acting is then a function of the observation."""
    loss = ImplicitQuantile(num_tau_samples=3, num_tau_prime_samples=4, num_quantile_samples=5)
    agent = agent_with(loss=loss, network=Mlp(hidden=[8, 8], cosine_embedding_dim=6))
    obs = np.random.default_rng(0).normal(size=(2, OBS)).astype(np.float32)
    params = agent.network.views(agent.learner.online)
    middles = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).expand(2, -1)
    outputs = agent.network(params, torch.from_numpy(obs), None, middles)
    assert_close(torch.from_numpy(agent.q_values(obs)), outputs.view(2, ACTIONS, 5).mean(-1))
    calls = watched(agent)
    agent.learn(batch(0), 0)
    assert [x.shape for x in calls.taus if x is not None] == [(BATCH, 3), (BATCH, 4), (BATCH, 5)]
    drawn = torch.cat([x for x in calls.taus if x is not None], 1)
    assert 0 <= drawn.min() < 0.05
    assert 0.95 < drawn.max() < 1


def test_quantiles_are_features_times_embedded_fractions() -> None:
    """Dabney et al. 2018b, eq. 4: relu(sum over i < n of cos(pi i tau) w_i + b)."""
    with torch_seeded(0):
        network: Any = Mlp(hidden=[6, 5], cosine_embedding_dim=4).build(EnvSpec((OBS,), ACTIONS), 3)
    x, taus = transitions(0).obs[:2], torch.tensor([[0.2, 0.9], [0.0, 0.5]])
    found = network(x, taus).view(2, ACTIONS, 2)
    for row in range(2):
        for place in range(2):
            cosine_embedding_dim = [np.cos(np.pi * i * taus[row, place].item()) for i in range(4)]
            embedded = torch.relu(
                network.embedding(torch.tensor([cosine_embedding_dim], dtype=torch.float32))
            )
            expected = network.head(network.features(x[row : row + 1]) * embedded)
            assert_close(found[row, :, place], expected[0])


# What is learned goes on exactly


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
    """Everything that shows in five rounds."""
    seen: list[Any] = []
    for count in range(start, start + 5):
        obs = 3 + 2 * np.random.default_rng(count).normal(size=(2, OBS)).astype(np.float32)
        seen.append(agent.act(obs, count, rng).tolist())
        priority, info = agent.learn(batch(count), count)
        seen += [priority.tolist(), info.tolist(), agent.q_values(obs).tolist()]
    agent.sync_target(1)
    return [*seen, agent.learner.online.tolist(), agent.learner.target.tolist()]


@pytest.mark.parametrize("through_file", [False, True])
@pytest.mark.parametrize("name", FAMILY)
def test_learning_goes_on_exactly(name: str, through_file: bool, tmp_path: Path) -> None:
    """The same noise, taus, scale of observations and weights, as if nothing had happened."""
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
def test_a_state_of_other_observations_is_refused(normalised: bool) -> None:
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


# What the learning sees


def test_normalised_observations_reach_acting_and_learning(watched: Callable[[DQNAgent], Calls]) -> None:
    """With the numbers of the moment of use; the memory keeps them as they are."""
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
    calls = watched(agent)
    agent.learn(Batch(raw, np.arange(BATCH), torch.full((BATCH,), 1 / BATCH)), 0)
    for found, column in zip(calls.obs, (raw.obs, raw.next_obs), strict=True):
        expected = ((column.numpy() - mean) / std).clip(-10, 10)
        assert_close(found, torch.from_numpy(expected).float(), atol=1e-4, rtol=0)
    assert torch.equal(raw.obs, transitions(0).obs)


def test_evaluation_does_not_count_as_seen() -> None:
    agent = agent_with(normalize_observations=True)
    agent.act(np.ones((1, OBS), np.float32), 0, stream(0, "test"))
    before = str(agent.state_dict()["observed"])
    agent.greedy(np.full((1, OBS), 7.0, np.float32))
    assert str(agent.state_dict()["observed"]) == before


def test_the_learning_rate_follows_its_schedule() -> None:
    """Adam's first step is as long as the rate, in every coordinate that has a gradient."""

    def first_step(at: int) -> float:
        agent = agent_with(learning_rate=0.01, learning_rate_schedule=CosineDecay(final=0.5, steps=100))
        before = agent.learner.online.clone()
        agent.learn(batch(0), at)
        return (agent.learner.online - before).abs().max().item()

    assert [first_step(at) for at in (0, 50, 100)] == pytest.approx([0.01, 0.0075, 0.005], rel=1e-2)


# What cannot work is refused


class Custom(QLearning):
    """A loss of a user's own, that asks for taus."""

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
            r"^agent\.loss asks for quantiles .*agent\.network\.cosine_embedding_dim=64",
        ),
        (
            {"network": Mlp(cosine_embedding_dim=64), "loss": Quantile()},
            r"^agent\.network\.cosine_embedding_dim embeds taus, which Quantile does not draw; .*cosine_embedding_dim=0",
        ),
        ({"network": Mlp(cosine_embedding_dim=64)}, r"which QLearning does not draw"),
        (
            {"network": Mlp(cosine_embedding_dim=64), "loss": Categorical()},
            r"which Categorical does not draw",
        ),
    ],
)
def test_parts_that_leave_each_other_without_use_are_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        agent_with(**parts)
    assert "\n" not in str(error.value)


def test_parts_that_help_each_other_are_not() -> None:
    noisy_agent(exploration=EpsilonGreedy())
    agent_with(network=Mlp(cosine_embedding_dim=4), loss=Custom())


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
def test_bytes_are_not_normalised_twice(dtype: str) -> None:
    spec = EnvSpec((10, 10, 4), ACTIONS, dtype)
    assert f"are {dtype}, which networks bring to between 0 and 1" in problems(
        spec, normalize_observations=True
    )
    assert problems(spec) == problems(EnvSpec((4,), ACTIONS), normalize_observations=True) == ""


def test_a_learning_rate_that_would_not_reach_its_end_is_refused() -> None:
    spec = EnvSpec((4,), ACTIONS)
    message = problems(spec, learning_rate_schedule=CosineDecay(steps=101))
    assert message.startswith(
        "agent.learning_rate_schedule takes 101 env steps, longer than trainer.max_steps=100"
    )
    assert problems(spec, learning_rate_schedule=CosineDecay(steps=100)) == ""


def test_the_statistics_are_those_of_the_value_for_every_loss() -> None:
    """`q_mean` is the mean value of the actions taken, whatever the outputs mean."""
    for loss in (QLearning(), Categorical(), Quantile(num_quantiles=7)):
        agent = agent_with(loss=loss)
        drawn = batch(0)
        values = agent.q_values(drawn.transition.obs.numpy())
        expected = values[np.arange(BATCH), drawn.transition.action.numpy()].mean()
        _, info = agent.learn(drawn, 0)
        assert info[UPDATE_METRICS.index("q_mean")].item() == pytest.approx(expected, abs=1e-5)
