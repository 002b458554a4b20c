"""Target rules against numbers by hand and against loops, and in Q-learning."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from dqn_runner.agent.losses.base import gather_actions
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.agent.losses.targets import Backup, DoubleTarget, MaxTarget, MunchausenTarget
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import Transition
from tests.support.tables import lookup, random_transitions, step

ALPHA, TEMPERATURE, FLOOR = 0.9, 0.5, -1.0
SOFT = MunchausenTarget(alpha=ALPHA, temperature=TEMPERATURE, floor=FLOOR)

# Two states, three actions; the first transition is from state 0 to state 1.
ONLINE = torch.tensor([[0.0, 0.0, 0.0], [2.0, 9.0, 1.0]])
TARGET = torch.tensor([[1.0, 0.0, -3.0], [2.0, 1.0, 4.0]])


def never() -> torch.Tensor:
    raise AssertionError("these values must not be computed")


def backup(target_rule: Any, transition: Transition) -> Backup:
    online, target = lookup(ONLINE), lookup(TARGET)
    return target_rule(lambda: target(transition.next_obs), online, target, transition)


def log_softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [value - math.log(total) for value in values]


def munchausen(
    q: list[float],
    next_q: list[float],
    action: int,
    reward: float,
    discount: float,
    part: MunchausenTarget = SOFT,
) -> tuple[float, list[float]]:
    """The reward with everything added to it, and the next policy, by loops (Vieillard et al. 2020)."""
    tau = part.temperature
    log = log_softmax([value / tau for value in q])
    next_log = log_softmax([value / tau for value in next_q])
    next_policy = [math.exp(value) for value in next_log]
    bonus = min(0.0, max(part.floor, tau * log[action]))
    entropy = -tau * sum(p * value for p, value in zip(next_policy, next_log, strict=True))
    return reward + part.alpha * bonus + discount * entropy, next_policy


def test_max_target_uses_only_the_target_network() -> None:
    transition = step(0, 0.5, 0.9)
    reward, policy = MaxTarget()(
        lambda: lookup(TARGET)(transition.next_obs), lambda _: never(), lambda _: never(), transition
    )
    assert reward.tolist() == [0.5]
    assert policy.tolist() == [2]


def test_double_target_selects_with_the_online_network_only() -> None:
    reward, policy = DoubleTarget()(never, lookup(ONLINE), lambda _: never(), step(0, 0.5, 0.9))
    assert reward.tolist() == [0.5]
    assert policy.tolist() == [1]


@pytest.mark.parametrize("discount", [0.9, 0.9**3, 0.0])
@pytest.mark.parametrize("action", [0, 1, 2])
def test_munchausen_target_equals_that_of_loops(action: int, discount: float) -> None:
    """Both policies are the target network's; the log-probability of action 2 is clipped to the floor."""
    found = backup(SOFT, step(action, 0.5, discount))
    reward, policy = munchausen(TARGET[0].tolist(), TARGET[1].tolist(), action, 0.5, discount)
    assert_close(found.reward, torch.tensor([reward]))
    assert_close(found.policy, torch.tensor([policy]))
    if action == 2:
        without = backup(MunchausenTarget(alpha=0, temperature=TEMPERATURE), step(action, 0.5, discount))
        assert_close(found.reward - without.reward, torch.tensor([ALPHA * FLOOR]))


def test_munchausen_target_of_two_equal_actions_equals_numbers_by_hand() -> None:
    """Log-probability and entropy are those of a fair coin."""
    zeros = torch.zeros(2, 2)
    transition = step(1, 0.25, 0.9)
    found = SOFT(lambda: zeros[:1], lambda _: never(), lookup(zeros), transition)
    coin = TEMPERATURE * math.log(2)
    assert_close(found.reward, torch.tensor([0.25 - ALPHA * coin + 0.9 * coin]))
    assert found.policy.tolist() == [[0.5, 0.5]]


def test_munchausen_target_with_alpha_zero_is_soft_dqn_and_near_temperature_zero_max_target() -> None:
    """In soft DQN the next value is temperature * logsumexp(q / temperature)."""
    transition = step(0, 0.5, 0.9)
    next_q = TARGET[1:]
    soft = backup(MunchausenTarget(alpha=0.0, temperature=TEMPERATURE), transition)
    value = TEMPERATURE * torch.logsumexp(next_q / TEMPERATURE, -1)
    assert_close(soft.td_target(next_q, transition.discount), 0.5 + 0.9 * value)
    cold = backup(MunchausenTarget(alpha=0.0, temperature=1e-4), transition)
    assert_close(cold.reward, torch.tensor([0.5]))
    assert_close(cold.policy, torch.tensor([[0.0, 0.0, 1.0]]))


def test_munchausen_target_of_large_values_at_a_small_temperature_is_finite() -> None:
    table = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    found = MunchausenTarget()(lambda: table[1:], lookup(table), lookup(table), step(1, 0.0, 0.9))
    assert_close(found.reward, torch.tensor([-0.9]))
    assert_close(found.policy, torch.tensor([[0.0, 1.0]]))


def test_q_learning_with_munchausen_target_equals_loops_over_samples_and_actions() -> None:
    generator = torch.Generator().manual_seed(0)
    online, target = (torch.randn(6, 3, generator=generator) for _ in range(2))
    transition = random_transitions(6, 3, generator)
    output = QLearning(target=SOFT)(lookup(online), lookup(target), transition)
    for row in range(6):
        state, next_state = int(transition.obs[row, 0]), int(transition.next_obs[row, 0])
        action, discount = int(transition.action[row]), transition.discount[row].item()
        next_q = target[next_state].tolist()
        reward, policy = munchausen(
            target[state].tolist(), next_q, action, transition.reward[row].item(), discount
        )
        td_target = reward + discount * sum(p * q for p, q in zip(policy, next_q, strict=True))
        delta = abs(td_target - online[state, action].item())
        assert output.priority[row].item() == pytest.approx(delta, abs=1e-5)
        assert output.loss[row].item() == pytest.approx(
            0.5 * delta**2 if delta <= 1 else delta - 0.5, abs=1e-5
        )


@pytest.mark.parametrize(
    "target_rule", [MaxTarget(), DoubleTarget(), SOFT], ids=["max", "double", "munchausen"]
)
def test_no_gradient_flows_through_the_td_target_of_any_target_rule(target_rule: Any) -> None:
    """Not even if both states and both networks are the same."""
    table = torch.tensor([[1.0, 2.0, 0.5]], requires_grad=True)
    transition = step(0, 0.3, 0.5)._replace(next_obs=torch.zeros(1, 1))
    output = QLearning(target=target_rule)(lookup(table), lookup(table), transition)
    output.loss.sum().backward()
    assert table.grad is not None
    assert table.grad.nonzero().tolist() == [[0, 0]]
    assert abs(table.grad[0, 0].item()) == pytest.approx(min(1.0, output.priority.item()))


def test_the_expectation_of_a_backup_is_over_actions_and_keeps_distributions() -> None:
    """For outputs [batch, actions, atoms], with actions or with their probabilities."""
    outputs = torch.arange(12.0).reshape(2, 3, 2)
    reward = torch.zeros(2)
    assert Backup(reward, torch.tensor([2, 0])).expectation(outputs).tolist() == [[4.0, 5.0], [6.0, 7.0]]
    mixed = Backup(reward, torch.tensor([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])).expectation(outputs)
    assert mixed.tolist() == [[2.0, 3.0], [8.0, 9.0]]
    assert gather_actions(outputs[..., 0], torch.tensor([1, 1])).tolist() == [2.0, 8.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: MunchausenTarget(temperature=0.0),
        lambda: MunchausenTarget(temperature=math.nan),
        lambda: MunchausenTarget(temperature=math.inf),
        lambda: MunchausenTarget(alpha=-0.1),
        lambda: MunchausenTarget(alpha=math.nan),
        lambda: MunchausenTarget(floor=0.1),
        lambda: MunchausenTarget(floor=math.nan),
    ],
)
def test_invalid_options_of_munchausen_target_are_rejected(make: Callable[[], MunchausenTarget]) -> None:
    with pytest.raises(UserError, match=r"^agent\.loss\.target\.(alpha|temperature|floor) must be "):
        make()


def test_the_defaults_of_munchausen_target_are_those_of_the_paper() -> None:
    assert MunchausenTarget() == MunchausenTarget(alpha=0.9, temperature=0.03, floor=-1.0)
