"""Distributional losses against loops that follow the papers' equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dqn_runner.agent.losses.categorical import Categorical
from dqn_runner.agent.losses.implicit_quantile import ImplicitQuantile
from dqn_runner.agent.losses.quantile import Quantile, quantile_huber
from dqn_runner.agent.losses.targets import DoubleTarget, MaxTarget, MunchausenTarget
from dqn_runner.core.types import LossOutput, Transition
from tests.support.tables import lookup, random_transitions, step

STATES, ACTIONS = 6, 3
TARGET_RULES = {"max": MaxTarget(), "double": DoubleTarget(), "munchausen": MunchausenTarget(temperature=0.5)}
EACH_TARGET_RULE = pytest.mark.parametrize("target_rule", TARGET_RULES.values(), ids=TARGET_RULES)


# Reference implementations


def projected(p: list[float], reward: float, discount: float, part: Categorical) -> list[float]:
    """Bellemare et al. 2017, Algorithm 1, corrected for the case l == u."""
    spacing = (part.v_max - part.v_min) / (part.num_atoms - 1)
    mass = [0.0] * part.num_atoms
    for j in range(part.num_atoms):
        shifted = reward + discount * (part.v_min + j * spacing)
        place = (min(max(shifted, part.v_min), part.v_max) - part.v_min) / spacing
        low, high = math.floor(place), math.ceil(place)
        high = min(high, part.num_atoms - 1)
        low = min(low, high)
        if low == high:
            mass[low] += p[j]
        else:
            mass[low] += p[j] * (high - place)
            mass[high] += p[j] * (place - low)
    return mass


def looped_quantile_huber(
    quantiles: list[float], taus: list[float], td_target: list[float], kappa: float
) -> float:
    """Dabney et al. 2018b, eq. 3: summed over the predicted quantiles, averaged over the samples."""
    total = 0.0
    for quantile, tau in zip(quantiles, taus, strict=True):
        for sample in td_target:
            u = sample - quantile
            huber = 0.5 * u * u if abs(u) <= kappa else kappa * (abs(u) - 0.5 * kappa)
            total += abs(tau - (1.0 if u < 0 else 0.0)) * huber / kappa / len(td_target)
    return total


class ExpectedBackup(NamedTuple):
    """The reward with what the target rule adds to it, and the weight of each next action."""

    reward: float
    policy: list[float]


def expected_backup(
    target_rule: Any,
    online_next: list[float],
    target_next: list[float],
    target_now: list[float],
    row: Transition,
) -> ExpectedBackup:
    """The backup of a target rule for one sample, from action values."""
    action, reward, discount = int(row.action), row.reward.item(), row.discount.item()
    if not isinstance(target_rule, MunchausenTarget):
        values = online_next if isinstance(target_rule, DoubleTarget) else target_next
        return ExpectedBackup(reward, [float(i == values.index(max(values))) for i in range(ACTIONS)])
    tau = target_rule.temperature

    def softmax(values: list[float]) -> list[float]:
        weights = [math.exp(value / tau) for value in values]
        return [weight / sum(weights) for weight in weights]

    policy = softmax(target_next)
    bonus = max(target_rule.floor, tau * math.log(softmax(target_now)[action]))
    entropy = -tau * sum(p * math.log(p) for p in policy)
    return ExpectedBackup(reward + target_rule.alpha * bonus + discount * entropy, policy)


def rows(transition: Transition) -> list[Transition]:
    return [Transition(*(column[i : i + 1] for column in transition.columns())) for i in range(STATES)]


def mixed(outputs: torch.Tensor, policy: list[float]) -> list[float]:
    """Outputs [actions, n], averaged over a policy."""
    return [sum(p * x for p, x in zip(policy, column, strict=True)) for column in outputs.T.tolist()]


def tables(outputs_per_action: int) -> tuple[torch.Tensor, torch.Tensor, Transition]:
    """Outputs [states, actions * outputs_per_action] of the online and target network, and transitions."""
    generator = torch.Generator().manual_seed(outputs_per_action)
    online, target = (
        torch.randn(STATES, ACTIONS * outputs_per_action, generator=generator) for _ in range(2)
    )
    transition = random_transitions(STATES, ACTIONS, generator)
    return online, target, transition


# C51

SMALL = Categorical(num_atoms=5, v_min=-2.0, v_max=2.0)


@pytest.mark.parametrize(
    ("reward", "discount", "expected"),
    [
        (0.0, 1.0, [0.1, 0.2, 0.4, 0.2, 0.1]),  # every atom falls on itself: l == u
        (1.0, 1.0, [0.0, 0.1, 0.2, 0.4, 0.3]),  # on the next atom; the last one gets the mass beyond it
        (-1.0, 1.0, [0.3, 0.4, 0.2, 0.1, 0.0]),
        (0.5, 1.0, [0.05, 0.15, 0.3, 0.3, 0.2]),  # half way between two atoms
        (1.0, 0.0, [0.0, 0.0, 0.0, 1.0, 0.0]),  # the episode ends, with a return on an atom
        (-0.25, 0.0, [0.0, 0.25, 0.75, 0.0, 0.0]),  # ... between two atoms
        (2.0, 0.0, [0.0, 0.0, 0.0, 0.0, 1.0]),  # ... on the last atom
        (-2.0, 0.0, [1.0, 0.0, 0.0, 0.0, 0.0]),
        (100.0, 0.9, [0.0, 0.0, 0.0, 0.0, 1.0]),  # beyond the support
        (-100.0, 0.9, [1.0, 0.0, 0.0, 0.0, 0.0]),
        (0.0, 0.5, [0.0, 0.1 + 0.1, 0.1 + 0.4 + 0.1, 0.1 + 0.1, 0.0]),
    ],
)
def test_projection_equals_numbers_by_hand(reward: float, discount: float, expected: list[float]) -> None:
    p = torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.1]])
    found = SMALL.project(p, torch.tensor([reward]), torch.tensor([discount]))
    assert_close(found, torch.tensor([expected]))


SUPPORTS = [
    SMALL,
    Categorical(),
    Categorical(num_atoms=2, v_min=0.0, v_max=1.0),
    Categorical(num_atoms=7, v_max=0.1),
]


@given(
    part=st.sampled_from(SUPPORTS),
    seed=st.integers(0, 2**16),
    peak=st.floats(0.1, 20.0),
    reward=st.one_of(st.floats(-30, 30, width=32), st.integers(-12, 12).map(float)),
    discount=st.sampled_from([0.0, 0.5, 0.99, 0.99**3, 1.0]),
)
def test_projection_equals_that_of_loops(
    part: Categorical, seed: int, peak: float, reward: float, discount: float
) -> None:
    """It is a distribution, and its mean is unchanged if no atom leaves the support."""
    logits = peak * torch.randn(1, part.num_atoms, generator=torch.Generator().manual_seed(seed))
    p = torch.softmax(logits, -1)
    found = part.project(p, torch.tensor([reward]), torch.tensor([discount]))
    expected = projected(p[0].tolist(), reward, discount, part)
    assert_close(found, torch.tensor([expected]), rtol=0, atol=2e-5)
    assert found.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert (found >= 0).all()
    shifted = reward + discount * part.support(torch.device("cpu"))
    if part.v_min <= shifted.min() and shifted.max() <= part.v_max:
        scale = part.v_max - part.v_min
        assert (found @ part.support(torch.device("cpu"))).item() == pytest.approx(
            (p @ shifted).item(), abs=1e-5 * scale
        )


def test_the_loss_of_undefined_values_is_undefined() -> None:
    """So that the run reports divergence instead of an index out of bounds."""
    p = torch.full((1, 5), 0.2)
    assert SMALL.project(p, torch.tensor([math.nan]), torch.ones(1)).isnan().any()
    broken = lookup(torch.full((2, 10), math.nan))
    for target_rule in TARGET_RULES.values():
        part = Categorical(num_atoms=5, target=target_rule)
        assert part(broken, broken, step(0, 1.0, 0.9)).loss.isnan().all()


@EACH_TARGET_RULE
def test_categorical_loss_equals_that_of_loops(target_rule: Any) -> None:
    part = Categorical(num_atoms=5, v_min=-2.0, v_max=2.0, target=target_rule)
    online, target, transition = tables(5)
    output = part(lookup(online), lookup(target), transition)
    p_online, p_target = (torch.softmax(x.view(STATES, ACTIONS, 5), -1) for x in (online, target))
    q_online, q_target = (p @ torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]) for p in (p_online, p_target))
    assert_close(part.q_values(online), q_online)
    for i, row in enumerate(rows(transition)):
        state, next_state, action = int(row.obs), int(row.next_obs), int(row.action)
        values = (q_online[next_state], q_target[next_state], q_target[state])
        reward, policy = expected_backup(target_rule, *(x.tolist() for x in values), row)
        td_target = projected(mixed(p_target[next_state], policy), reward, row.discount.item(), part)
        p = p_online[state, action].tolist()
        loss = -sum(g * math.log(x) for g, x in zip(td_target, p, strict=True))
        entropy = -sum(g * math.log(g) for g in td_target if g > 0)
        assert output.loss[i].item() == pytest.approx(loss, abs=1e-5)
        assert output.priority[i].item() == pytest.approx(loss - entropy, abs=1e-5)
        assert output.q[i].item() == pytest.approx(q_online[state, action].item(), abs=1e-5)


def test_the_gradient_of_cross_entropy_is_the_difference_of_the_distributions() -> None:
    online, target, transition = tables(5)
    online.requires_grad_()
    SMALL(lookup(online), lookup(target), transition).loss.sum().backward()
    assert online.grad is not None
    for row in rows(transition):
        state, next_state, action = int(row.obs), int(row.next_obs), int(row.action)
        p_target = torch.softmax(target[next_state].view(ACTIONS, 5), -1)
        best = int((p_target @ SMALL.support(torch.device("cpu"))).argmax())
        td_target = projected(p_target[best].tolist(), row.reward.item(), row.discount.item(), SMALL)
        p = torch.softmax(online[state].view(ACTIONS, 5), -1)[action].detach()
        assert_close(
            online.grad[state].view(ACTIONS, 5)[action], p - torch.tensor(td_target), rtol=1e-4, atol=1e-5
        )


# Quantiles


@given(
    seed=st.integers(0, 2**16),
    n=st.integers(1, 5),
    m=st.integers(1, 5),
    kappa=st.sampled_from([0.1, 1.0, 2.5]),
)
def test_quantile_huber_loss_equals_that_of_loops(seed: int, n: int, m: int, kappa: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    quantiles = (2 * torch.randn(2, n, generator=generator)).requires_grad_()
    td_target = 2 * torch.randn(2, m, generator=generator)
    taus = torch.rand(2, n, generator=generator)
    found = quantile_huber(quantiles, taus, td_target, kappa)
    for row in range(2):
        columns = (quantiles[row].tolist(), taus[row].tolist(), td_target[row].tolist())
        assert found[row].item() == pytest.approx(looped_quantile_huber(*columns, kappa), rel=1e-4, abs=1e-5)
    u = td_target.unsqueeze(-2) - quantiles.unsqueeze(-1)
    slope = (taus.unsqueeze(-1) - (u < 0).float()).abs()
    by_autograd = slope * torch.nn.functional.huber_loss(u, torch.zeros_like(u), "none", kappa) / kappa
    (expected,) = torch.autograd.grad(by_autograd.mean(-1).sum(), quantiles)
    (gradient,) = torch.autograd.grad(found.sum(), quantiles)
    assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_quantile_huber_loss_equals_numbers_by_hand() -> None:
    """A sample below the quantile has the weight 1 - tau, a sample above it the weight tau."""
    zero = torch.zeros(1, 1)
    for tau, td_target, kappa, loss in [
        (0.25, 0.5, 1.0, 0.25 * 0.125),
        (0.25, -0.5, 1.0, 0.75 * 0.125),
        (0.25, 3.0, 1.0, 0.25 * 2.5),
        (0.25, 3.0, 2.0, 0.25 * (3.0 - 1.0)),
        (0.9, -3.0, 2.0, 0.1 * 2.0),
    ]:
        found = quantile_huber(zero, torch.tensor([[tau]]), torch.tensor([[td_target]]), kappa)
        assert_close(found, torch.tensor([loss]))


def test_gradient_descent_converges_to_the_quantiles_of_the_samples() -> None:
    """With a small kappa the loss is that of quantile regression."""
    td_target = torch.linspace(0.0, 1.0, 1001).square().unsqueeze(0)
    taus = torch.tensor([[0.1, 0.5, 0.8]])
    quantiles = torch.full((1, 3), 0.3, requires_grad=True)
    for _ in range(400):
        (gradient,) = torch.autograd.grad(quantile_huber(quantiles, taus, td_target, 1e-3).sum(), quantiles)
        with torch.no_grad():
            quantiles -= 0.05 * gradient
    assert_close(quantiles.detach(), taus.square(), rtol=0, atol=5e-3)


@EACH_TARGET_RULE
@pytest.mark.parametrize("kappa", [1.0, 0.5])
def test_quantile_loss_equals_that_of_loops(target_rule: Any, kappa: float) -> None:
    part = Quantile(num_quantiles=4, kappa=kappa, target=target_rule)
    online, target, transition = tables(4)
    output = part(lookup(online), lookup(target), transition)
    q_online, q_target = (x.view(STATES, ACTIONS, 4).mean(-1) for x in (online, target))
    assert_close(part.q_values(online), q_online)
    for i, row in enumerate(rows(transition)):
        state, next_state, action = int(row.obs), int(row.next_obs), int(row.action)
        values = (q_online[next_state], q_target[next_state], q_target[state])
        reward, policy = expected_backup(target_rule, *(x.tolist() for x in values), row)
        samples = mixed(target[next_state].view(ACTIONS, 4), policy)
        td_target = [reward + row.discount.item() * x for x in samples]
        quantiles = online[state].view(ACTIONS, 4)[action].tolist()
        loss = looped_quantile_huber(quantiles, [0.125, 0.375, 0.625, 0.875], td_target, kappa)
        assert output.loss[i].item() == pytest.approx(loss, abs=1e-5)
        difference = abs(sum(td_target) / 4 - sum(quantiles) / 4)
        assert output.priority[i].item() == pytest.approx(difference, abs=1e-5)
        assert output.q[i].item() == pytest.approx(sum(quantiles) / 4, abs=1e-5)


class Lines:
    """A network whose quantile at tau is table * (1 + tau); it records the taus that it draws and gets."""

    def __init__(self, table: torch.Tensor, seed: int) -> None:
        self.table = table
        self.generator = torch.Generator().manual_seed(seed)
        self.drawn: list[torch.Tensor] = []
        self.received: list[torch.Tensor] = []

    def sample_taus(self, count: int) -> torch.Tensor:
        self.drawn.append(torch.rand(STATES, count, generator=self.generator))
        return self.drawn[-1]

    def __call__(self, obs: torch.Tensor, taus: torch.Tensor | None = None) -> torch.Tensor:
        assert taus is not None
        self.received.append(taus)
        values = self.table[obs[:, 0].long()]
        return (values.unsqueeze(-1) * (1 + taus.unsqueeze(1))).flatten(1)


@EACH_TARGET_RULE
def test_implicit_quantile_loss_equals_that_of_loops(target_rule: Any) -> None:
    """N taus for the online network, N' for the target network, and K new ones for each action value."""
    part = ImplicitQuantile(
        num_tau_samples=3, num_tau_prime_samples=4, num_quantile_samples=5, kappa=0.7, target=target_rule
    )
    online_table, target_table, transition = tables(1)
    online, target = Lines(online_table, 0), Lines(target_table, 1)
    output = part(online, target, transition)

    counts = [taus.shape[-1] for taus in (*online.drawn, *target.drawn)]
    assert (online.drawn[0].shape[-1], target.drawn[0].shape[-1]) == (3, 4)
    assert sorted(counts) == [3, 4, *[5] * (len(counts) - 2)]
    for network in (online, target):  # every draw is used once
        assert all(a is b for a, b in zip(network.received, network.drawn, strict=True))

    def values(network: Lines, call: int, i: int, state: int) -> list[float]:
        return (network.table[state] * (1 + network.drawn[call][i].mean())).tolist()

    for i, row in enumerate(rows(transition)):
        state, next_state, action = int(row.obs), int(row.next_obs), int(row.action)
        online_next = values(online, 1, i, next_state) if isinstance(target_rule, DoubleTarget) else []
        target_next = [] if isinstance(target_rule, DoubleTarget) else values(target, 1, i, next_state)
        target_now = values(target, 2, i, state) if isinstance(target_rule, MunchausenTarget) else []
        reward, policy = expected_backup(target_rule, online_next, target_next, target_now, row)
        samples = mixed(target_table[next_state].unsqueeze(-1) * (1 + target.drawn[0][i]), policy)
        td_target = [reward + row.discount.item() * x for x in samples]
        taus = online.drawn[0][i].tolist()
        quantiles = [online_table[state, action].item() * (1 + tau) for tau in taus]
        loss = looped_quantile_huber(quantiles, taus, td_target, 0.7)
        assert output.loss[i].item() == pytest.approx(loss, abs=1e-5)
        q = sum(quantiles) / 3
        assert output.q[i].item() == pytest.approx(q, abs=1e-5)
        assert output.priority[i].item() == pytest.approx(abs(sum(td_target) / 4 - q), abs=1e-5)


# Both losses without random taus

LOSSES: dict[str, Callable[..., Any]] = {
    "categorical": lambda **settings: Categorical(num_atoms=4, v_min=-3, v_max=3, **settings),
    "quantile": lambda **settings: Quantile(num_quantiles=4, **settings),
}
LOSS = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)


@LOSS
def test_double_dqn_selects_with_the_online_network_and_evaluates_with_the_target_network(
    make: Callable[..., Any],
) -> None:
    """Action 2 is the best by the target network, action 1 by the online network."""
    n = make().outputs_per_action
    low, middle, high = (level * torch.linspace(1.0, 2.0, n) for level in (-1.0, 0.5, 1.0))
    online = torch.cat([low, high, middle]).repeat(2, 1)
    target = torch.cat([low, middle, high]).repeat(2, 1)
    transition = step(0, 0.1, 0.9)
    # A target network that prefers action 1, to which it gives the same distribution as `target` does.
    swapped = torch.cat([low, middle, low]).repeat(2, 1)
    double = make(target=DoubleTarget())(lookup(online), lookup(target), transition)
    expected = make(target=MaxTarget())(lookup(online), lookup(swapped), transition)
    assert_close(double, expected)
    plain = make(target=MaxTarget())(lookup(online), lookup(target), transition)
    assert not torch.allclose(plain.loss, double.loss)


@LOSS
@EACH_TARGET_RULE
def test_the_gradient_of_a_distributional_loss_reaches_only_the_action_taken(
    make: Callable[..., Any], target_rule: Any
) -> None:
    """Neither the TD target nor other actions have a gradient."""
    part = make(target=target_rule)
    online, target = (x.requires_grad_() for x in tables(part.outputs_per_action)[:2])
    output = part(lookup(online), lookup(target), step(1, 0.5, 0.9))
    output.loss.sum().backward()
    assert target.grad is None
    assert online.grad is not None
    places = online.grad.view(STATES, ACTIONS, part.outputs_per_action).nonzero()[:, :2]
    assert places.unique(dim=0).tolist() == [[0, 1]]
    assert not output.priority.requires_grad
    assert not output.q.requires_grad


@LOSS
@EACH_TARGET_RULE
def test_every_output_of_a_distributional_loss_is_one_number_per_sample(
    make: Callable[..., Any], target_rule: Any
) -> None:
    part = make(target=target_rule)
    online, target, transition = tables(part.outputs_per_action)
    together: LossOutput = part(lookup(online), lookup(target), transition)
    for i, row in enumerate(rows(transition)):
        alone: LossOutput = part(lookup(online), lookup(target), row)
        for name, value in alone._asdict().items():
            assert value.shape == (1,), name
            assert_close(getattr(together, name)[i : i + 1], value)
