"""Actions that a mask does not allow are never chosen and in no target, with any loss and target rule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dqn_runner import DQNAgent, DQNConfig, UserError
from dqn_runner.agent.compiled.program import flat_update, update_program
from dqn_runner.agent.exploration import Boltzmann, EpsilonGreedy, Greedy, random_actions
from dqn_runner.agent.learner import HyperParameters, LearnerState, make_update
from dqn_runner.agent.losses.categorical import Categorical
from dqn_runner.agent.losses.implicit_quantile import ImplicitQuantile
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.agent.losses.quantile import Quantile
from dqn_runner.agent.losses.targets import DoubleTarget, MaxTarget, MunchausenTarget
from dqn_runner.agent.networks.architectures import Mlp
from dqn_runner.agent.schedules import Constant
from dqn_runner.agent.update_noise import draw_noise
from dqn_runner.core.rng import stream
from dqn_runner.core.types import Batch, LossOutput, Transition
from dqn_runner.training.checks import check
from dqn_runner.training.config import TrainingConfig
from tests.support.tables import step

TARGETS: dict[str, Any] = {
    "max": MaxTarget(),
    "double": DoubleTarget(),
    "munchausen": MunchausenTarget(alpha=0.9, temperature=0.5, floor=-1.0),
}
LOSSES: dict[str, Any] = {
    "q_learning": lambda rule: QLearning(target=rule),
    "categorical": lambda rule: Categorical(num_atoms=5, v_min=-2, v_max=2, target=rule),
    "quantile": lambda rule: Quantile(num_quantiles=3, target=rule),
    "implicit": lambda rule: ImplicitQuantile(
        num_tau_samples=3, num_tau_prime_samples=2, num_quantile_samples=4, target=rule
    ),
}


@dataclass
class Table:
    """A network that looks up outputs [states, actions, n]; given taus, [..., 2] are lines through them."""

    outputs: torch.Tensor

    def __call__(self, obs: torch.Tensor, taus: torch.Tensor | None = None) -> torch.Tensor:
        rows = self.outputs[obs[:, 0].long()]
        if taus is None:
            return rows.flatten(1)
        return (rows[..., :1] + rows[..., 1:] * taus.unsqueeze(1)).flatten(1)

    def sample_taus(self, count: int) -> torch.Tensor:
        return ((torch.arange(count) + 0.5) / count).expand(1, -1)


def width(name: str) -> int:
    return {"q_learning": 1, "categorical": 5, "quantile": 3, "implicit": 2}[name]


def masks(*allowed: list[int]) -> dict[str, torch.Tensor]:
    """The masks of the two states of a transition."""
    return dict(zip(("mask", "next_mask"), (torch.tensor([row]).bool() for row in allowed), strict=True))


# Numbers by hand: three actions; the transition takes action 0 in state 0, and leads to state 1.

ONLINE = torch.tensor([[[0.0], [0.0], [0.0]], [[2.0], [9.0], [1.0]]])
TARGET = torch.tensor([[[1.0], [0.0], [-3.0]], [[2.0], [1.0], [4.0]]])


@pytest.mark.parametrize(
    ("rule", "next_mask", "td_target"),
    [
        ("max", [1, 1, 1], 0.5 + 0.9 * 4),
        ("max", [1, 1, 0], 0.5 + 0.9 * 2),
        ("max", [0, 1, 0], 0.5 + 0.9 * 1),
        ("double", [1, 1, 1], 0.5 + 0.9 * 1),
        ("double", [1, 0, 1], 0.5 + 0.9 * 2),
        ("double", [0, 0, 1], 0.5 + 0.9 * 4),
    ],
)
def test_targets_of_q_learning_are_numbers_by_hand(rule: str, next_mask: list[int], td_target: float) -> None:
    transition = step(0, 0.5, 0.9)._replace(**masks([1, 1, 1], next_mask))
    found = QLearning(target=TARGETS[rule])(Table(ONLINE), Table(TARGET), transition)
    assert found.priority.item() == pytest.approx(td_target)


@pytest.mark.parametrize(
    ("mask", "next_mask", "td_target"),
    [
        ([1, 0, 0], [0, 1, 0], 0.5 + 0.9 * 1),  # no choice: no bonus, no entropy
        ([1, 0, 0], [1, 0, 0], 0.5 + 0.9 * 2),
        ([1, 1, 0], [1, 0, 0], 0.5 - 0.9 * 0.5 * math.log(1 + math.exp(-2)) + 0.9 * 2),
        ([1, 0, 0], [1, 1, 0], 0.5 + 0.9 * 0.5 * math.log(math.exp(4) + math.exp(2))),  # log-sum of the two
        ([0, 0, 1], [1, 0, 0], 0.5 - 0.9 * 1.0 + 0.9 * 2),  # the action taken is not allowed: at the floor
    ],
)
def test_targets_of_munchausen_are_numbers_by_hand(
    mask: list[int], next_mask: list[int], td_target: float
) -> None:
    transition = step(0, 0.5, 0.9)._replace(**masks(mask, next_mask))
    found = QLearning(target=TARGETS["munchausen"])(Table(ONLINE), Table(TARGET), transition)
    assert found.priority.item() == pytest.approx(td_target, rel=1e-5)


def test_the_target_of_c51_is_the_distribution_of_an_allowed_action() -> None:
    """Atoms -2 to 2: action 0 has all its mass at 1, the forbidden action 1 at 2."""
    target = torch.full((2, 2, 5), -100.0)
    target[1, 0, 3] = target[1, 1, 4] = 100.0
    online = torch.zeros(2, 2, 5)
    online[0, 0, 3] = math.log(2)  # probabilities 1/6, and 2/6 for the atom 1
    loss = LOSSES["categorical"](MaxTarget())
    for next_mask, expected in (([1, 0], math.log(3)), ([1, 1], math.log(6))):
        transition = step(0, 0.0, 1.0)._replace(**masks([1, 1], next_mask))
        assert loss(Table(online), Table(target), transition).loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["quantile", "implicit"])
def test_the_target_of_quantiles_is_the_distribution_of_an_allowed_action(name: str) -> None:
    """Action 0 returns 1 to 3, with mean 2; the forbidden action 1 returns 10 to 30."""
    rows = [[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]] if name == "quantile" else [[1.0, 2.0], [10.0, 20.0]]
    target = torch.tensor([rows, rows])
    loss = LOSSES[name](MaxTarget())
    for next_mask, mean in (([1, 0], 2.0), ([1, 1], 20.0)):
        transition = step(0, 0.5, 0.9)._replace(**masks([1, 1], next_mask))
        found = loss(Table(torch.zeros_like(target)), Table(target), transition)
        assert found.priority.item() == pytest.approx(0.5 + 0.9 * mean)


# Oracles


def test_munchausen_equals_loops_over_the_allowed_actions() -> None:
    random = torch.Generator().manual_seed(0)
    part = TARGETS["munchausen"]
    tau = part.temperature
    for _ in range(100):
        online, target = (torch.randn(2, 4, 1, generator=random) for _ in range(2))
        mask, next_mask = (torch.rand(1, 4, generator=random) < 0.5 for _ in range(2))
        action = int(torch.randint(4, (1,), generator=random))
        mask[0, action] = next_mask[0, int(torch.randint(4, (1,), generator=random))] = True
        q, next_q = target[0, :, 0].tolist(), target[1, :, 0].tolist()
        total = sum(math.exp(q[a] / tau) for a in range(4) if mask[0, a])
        log_policy = q[action] / tau - math.log(total)
        weights = {a: math.exp(next_q[a] / tau) for a in range(4) if next_mask[0, a]}
        value = 0.0
        for a, weight in weights.items():
            p = weight / sum(weights.values())
            value += p * (next_q[a] - tau * math.log(p))
        td_target = 0.5 + part.alpha * max(part.floor, tau * log_policy) + 0.9 * value
        transition = step(action, 0.5, 0.9)._replace(mask=mask, next_mask=next_mask)
        found = QLearning(target=part)(Table(online), Table(target), transition)
        assert found.priority.item() == pytest.approx(abs(td_target - online[0, action, 0].item()), abs=1e-5)


@pytest.mark.parametrize("rule", TARGETS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_masked_action_is_the_same_as_one_that_does_not_exist(name: str, rule: str) -> None:
    """The losses equal those of tables without the rows of these actions."""
    random, loss = torch.Generator().manual_seed(1), LOSSES[name](TARGETS[rule])
    for count in (1, 2, 3):
        online, target = (torch.randn(2, 4, width(name), generator=random) for _ in range(2))
        allowed = [torch.randperm(4, generator=random)[:count].sort().values for _ in range(2)]
        masked = [torch.zeros(1, 4, dtype=torch.bool).index_fill(1, each, True) for each in allowed]
        place = int(torch.randint(count, (1,), generator=random))
        reward, discount = 0.3, 0.8
        small = [
            Table(torch.stack([table[state][allowed[state]] for state in (0, 1)]))
            for table in (online, target)
        ]
        found = loss(
            Table(online),
            Table(target),
            step(int(allowed[0][place]), reward, discount)._replace(mask=masked[0], next_mask=masked[1]),
        )
        assert_close(found, loss(*small, step(place, reward, discount)))


@pytest.mark.parametrize("rule", TARGETS)
@pytest.mark.parametrize("name", LOSSES)
def test_masks_that_allow_everything_change_no_bit(name: str, rule: str) -> None:
    random, loss = torch.Generator().manual_seed(2), LOSSES[name](TARGETS[rule])
    online, target = (Table(torch.randn(2, 4, width(name), generator=random)) for _ in range(2))
    plain = step(2, 0.3, 0.8)
    masked = plain._replace(**masks([1] * 4, [1] * 4))
    found: LossOutput = loss(online, target, masked)
    assert all(torch.equal(one, two) for one, two in zip(found, loss(online, target, plain), strict=True))


# Acting


def agent_with(**parts: Any) -> DQNAgent:
    parts = {"network": Mlp(hidden=[8]), "learning_starts": 0, **parts}
    return DQNAgent(DQNConfig(state_dim=3, action_dim=6, **parts))


ACTING: dict[str, Any] = {
    "epsilon greedy": {"exploration": EpsilonGreedy(schedule=Constant(value=0.5))},
    "random": {"exploration": EpsilonGreedy(schedule=Constant(value=1.0))},
    "greedy": {"exploration": EpsilonGreedy(schedule=Constant(value=0.0))},
    "warm-up": {"learning_starts": 1000},
    "boltzmann": {"exploration": Boltzmann(schedule=Constant(value=1.0))},
    "cold boltzmann": {"exploration": Boltzmann(schedule=Constant(value=0.0))},
    "noisy": {"exploration": Greedy(), "network": Mlp(hidden=[8], noisy=True, noisy_std=3.0)},
    "c51": {"loss": Categorical(num_atoms=5), "network": Mlp(hidden=[8], dueling=True)},
    "iqn": {"loss": ImplicitQuantile(), "network": Mlp(hidden=[8], cosine_embedding_dim=4)},
    "normalised": {"normalize_observations": True},
}


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("name", ACTING)
def test_only_allowed_actions_are_chosen(name: str, n: int) -> None:
    agent, rng = agent_with(**ACTING[name]), np.random.default_rng(0)
    for _ in range(60):
        obs = rng.normal(size=(n, 3)).astype(np.float32)
        mask = rng.random((n, 6)) < 0.3
        mask[np.arange(n), rng.integers(6, size=n)] = True
        for actions in (agent.act(obs, 0, rng, mask), agent.greedy(obs, mask)):
            assert actions.shape == (n,)
            assert actions.dtype == np.int64
            assert mask[np.arange(n), actions].all()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", ACTING)
def test_masks_that_allow_everything_draw_the_same_actions_as_none(name: str, n: int) -> None:
    agent, obs = agent_with(**ACTING[name]), np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    one, two = stream(0, "test"), stream(0, "test")
    for _ in range(40):
        expected = agent.act(obs, 0, one)
        assert agent.act(obs, 0, two, np.ones((n, 6), bool)).tolist() == expected.tolist()
    assert one.bit_generator.state == two.bit_generator.state


def test_random_actions_are_uniform_among_the_allowed_ones() -> None:
    mask = np.array([[1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0]], bool)
    drawn = np.stack([random_actions((2, 6), rng, mask) for rng in [stream(0, "test")] for _ in range(6000)])
    assert (np.bincount(drawn[:, 0], minlength=6) / 6000).tolist() == pytest.approx(
        [1 / 3, 0, 1 / 3, 0, 0, 1 / 3], abs=0.03
    )
    assert set(drawn[:, 1].tolist()) == {3}


def test_the_best_allowed_action_is_chosen_even_if_its_value_is_minus_infinity() -> None:
    agent = agent_with()
    values = np.array([[3, -np.inf, 2, 1, -np.inf, 0]], np.float32)
    agent.q_values = lambda *_: values
    for allowed, best in (([2, 3], 2), ([1, 5], 5), ([4], 4), ([1, 4], 1)):
        mask = np.zeros((1, 6), bool)
        mask[0, allowed] = True
        assert agent.greedy(np.zeros((1, 3), np.float32), mask).tolist() == [best]


class Unmasked(Greedy):
    """An exploration of a user, from before there were masks."""

    def __call__(self, q_values: Any, shape: Any, step: int, rng: Any) -> Any:  # pyright: ignore
        return np.zeros(shape[0], np.int64)


class Careless(Greedy):
    """An exploration of a user that does not heed the mask."""

    def __call__(self, q_values: Any, shape: Any, step: int, rng: Any, mask: Any = None) -> Any:
        return np.zeros(shape[0], np.int64)


def test_an_exploration_of_the_user_must_take_and_heed_the_mask() -> None:
    noisy = Mlp(hidden=[8], noisy=True)
    agent = agent_with(exploration=Careless(), network=noisy)
    with pytest.raises(UserError, match=r"^agent\.exploration=Careless chose an action that the action mask"):
        agent.act(np.zeros((1, 3), np.float32), 0, stream(0, "test"), np.array([[0, 1, 1, 1, 1, 1]], bool))
    config = agent_with(exploration=Unmasked(), network=noisy).config
    spec = config.spec()
    check(config, spec, TrainingConfig(), spec)
    masked = type(spec)(spec.obs_shape, spec.num_actions, has_action_mask=True)
    with pytest.raises(UserError, match=r"^env\.action_mask needs an exploration .* `mask` to Unmasked$"):
        check(config, spec, TrainingConfig(), masked)


# The update


def batch(seed: int, n: int = 16) -> Batch:
    random = torch.Generator().manual_seed(seed)
    mask, next_mask = (torch.rand(n, 6, generator=random) < 0.4 for _ in range(2))
    action = torch.randint(6, (n,), generator=random)
    mask[torch.arange(n), action] = True
    next_mask[torch.arange(n), torch.randint(6, (n,), generator=random)] = True
    obs, next_obs = (torch.randn(n, 3, generator=random) for _ in range(2))
    discount = torch.randint(2, (n,), generator=random) * 0.9
    reward = torch.randn(n, generator=random)
    transition = Transition(obs, action, reward, discount, next_obs, mask, next_mask)
    return Batch(transition, np.arange(n), torch.full((n,), 1 / n))


@pytest.mark.parametrize(
    ("name", "rule"),
    [("q_learning", "max"), ("categorical", "double"), ("quantile", "munchausen"), ("implicit", "double")],
)
def test_the_update_for_the_compiler_agrees_with_that_of_the_learner(name: str, rule: str) -> None:
    """As a function of the flat list of tensors with which the library is called, and as its graph."""
    network = Mlp(hidden=[8], noisy=True, cosine_embedding_dim=4 if name == "implicit" else 0)
    agent = agent_with(loss=LOSSES[name](TARGETS[rule]), network=network, batch_size=16)
    config, state = agent.config, agent.learner
    requirements = agent._noise_requirements  # pyright: ignore[reportPrivateUsage]
    program = update_program(config, "float32", True, requirements, 1)
    graph, inputs = program.trace(agent.network, state)
    drawn, rng = batch(3), np.random.default_rng(0)
    noise = draw_noise(requirements, agent.network.noise_size, 16, rng)
    assert noise is not None
    scalars = torch.tensor(config.optimizer.scalars(1, 1e-3))
    given = [state.online, state.target, *state.moments.values(), scalars]
    given = [*given, *drawn.transition.columns(), drawn.weight, *noise]
    assert [(x.shape, x.dtype) for x in inputs] == [(x.shape, x.dtype) for x in given]
    results: list[Any] = []
    for function in (graph, flat_update(program, agent.network, state)):
        copies = [each.detach().clone() for each in given]
        results.append((*function(*copies), copies[0]))
    hyper = HyperParameters(1e-3, config.max_grad_norm)
    expected = agent._update(state, drawn.transition, drawn.weight, hyper, noise)  # pyright: ignore
    for result in results:
        assert_close(result, (*expected, state.online), rtol=1e-4, atol=1e-5)


def test_the_compiled_library_of_an_update_depends_on_whether_there_are_masks() -> None:
    agent = agent_with(batch_size=16)
    requirements = agent._noise_requirements  # pyright: ignore[reportPrivateUsage]
    keys = {update_program(agent.config, "float32", has, requirements, 1).key("g++") for has in (True, False)}
    assert len(keys) == 2


@pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout contract:UserWarning")
def test_an_update_of_several_runs_equals_those_of_each_alone() -> None:
    agent = agent_with(loss=QLearning(target=TARGETS["munchausen"]))
    network, optimizer = agent.network, agent.config.optimizer
    update = make_update(network, agent.config.loss, optimizer)
    params = torch.stack([network.initial, network.initial * 0.5])
    together = LearnerState(params, optimizer.init(params), network.views)
    batches = [batch(seed) for seed in (1, 2)]
    columns = zip(*(each.transition.columns() for each in batches), strict=True)
    joined = Transition(*(torch.stack(column) for column in columns))
    weight = torch.stack([each.weight for each in batches])
    rates = HyperParameters(torch.full((2, 1), 1e-3), None)
    priority, _ = update(together, joined, weight, rates)
    for run, each in enumerate(batches):
        alone_params = network.initial * (1.0, 0.5)[run]
        alone = LearnerState(alone_params, optimizer.init(alone_params), network.views)
        found, _ = update(alone, each.transition, each.weight, HyperParameters(1e-3, None))
        assert_close(priority[run], found, rtol=1e-5, atol=1e-6)
        assert_close(together.online[run], alone.online, rtol=1e-5, atol=1e-6)
