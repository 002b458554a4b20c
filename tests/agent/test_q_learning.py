"""Q-learning: TD errors, losses and gradients."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dqn_runner.agent.losses.q_learning import QLearning, TDError
from dqn_runner.agent.losses.targets import DoubleTarget, MaxTarget
from dqn_runner.core.types import Transition
from tests.support.tables import lookup, step

GAMMA = 0.9
DOUBLE = pytest.mark.parametrize("double", [False, True])
ERROR = pytest.mark.parametrize("error", list(TDError))


# In state 1 the online network prefers action 0, the target network action 1.
ONLINE = torch.tensor([[1.0, 2.0], [5.0, 4.0]])
TARGET = torch.tensor([[9.0, 9.0], [3.0, 7.0]])


@pytest.mark.parametrize(
    ("double", "discount", "delta"),
    [
        (False, GAMMA, 0.5 + 0.9 * 7.0 - 2.0),  # the target network's best next value
        (True, GAMMA, 0.5 + 0.9 * 3.0 - 2.0),  # the target's value of the online network's best action
        (False, 0.0, 0.5 - 2.0),  # terminated: the next state has no value
        (True, 0.0, 0.5 - 2.0),
        (False, GAMMA**3, 0.5 + 0.729 * 7.0 - 2.0),  # a window of three rewards
        (True, GAMMA**3, 0.5 + 0.729 * 3.0 - 2.0),
    ],
)
def test_td_errors_equal_numbers_by_hand(double: bool, discount: float, delta: float) -> None:
    transition = step(action=1, reward=0.5, discount=discount)
    huber = QLearning(target=DoubleTarget() if double else MaxTarget())(
        lookup(ONLINE), lookup(TARGET), transition
    )
    squared = QLearning(target=DoubleTarget() if double else MaxTarget(), error=TDError.squared)(
        lookup(ONLINE), lookup(TARGET), transition
    )
    expected = 0.5 * delta**2 if abs(delta) <= 1 else abs(delta) - 0.5
    assert_close(huber.loss, torch.tensor([expected]))
    assert_close(squared.loss, torch.tensor([delta**2]))
    for output in (huber, squared):
        assert_close(output.priority, torch.tensor([abs(delta)]))
        assert_close(output.q, torch.tensor([2.0]))


@pytest.mark.parametrize(
    ("reward", "loss"), [(0.5, 0.125), (-0.5, 0.125), (1.0, 0.5), (3.0, 2.5), (-3.0, 2.5)]
)
def test_huber_loss_is_quadratic_up_to_one_and_linear_beyond(reward: float, loss: float) -> None:
    zeros = lookup(torch.zeros(2, 2))
    assert_close(QLearning()(zeros, zeros, step(0, reward, 0.0)).loss, torch.tensor([loss]))


def test_q_learning_is_by_default_that_of_mnih_2015() -> None:
    assert QLearning() == QLearning(target=MaxTarget(), error=TDError.huber)


@ERROR
@DOUBLE
def test_the_gradient_of_q_learning_reaches_only_the_value_of_the_action_taken(
    double: bool, error: TDError
) -> None:
    online, target = ONLINE.clone().requires_grad_(), TARGET.clone().requires_grad_()
    output = QLearning(target=DoubleTarget() if double else MaxTarget(), error=error)(
        lookup(online), lookup(target), step(1, 0.5, GAMMA)
    )
    output.loss.sum().backward()
    assert target.grad is None
    assert online.grad is not None
    assert online.grad.nonzero().tolist() == [[0, 1]]
    assert not output.priority.requires_grad
    assert not output.q.requires_grad


@ERROR
@DOUBLE
def test_no_gradient_flows_through_the_td_target_of_the_same_state(double: bool, error: TDError) -> None:
    """If a state is its own successor, the TD target is still a constant."""
    online = torch.tensor([[1.0, 2.0]], requires_grad=True)
    target = torch.tensor([[4.0, 3.0]])
    transition = step(0, 0.0, 0.5)._replace(next_obs=torch.tensor([[0.0]]))
    QLearning(target=DoubleTarget() if double else MaxTarget(), error=error)(
        lookup(online), lookup(target), transition
    ).loss.sum().backward()
    td_target = 0.5 * (3.0 if double else 4.0)
    delta = td_target - 1.0
    slope = -2 * delta if error is TDError.squared else -delta
    assert_close(online.grad, torch.tensor([[slope, 0.0]]))


@ERROR
@DOUBLE
def test_every_output_of_q_learning_is_one_number_per_sample(double: bool, error: TDError) -> None:
    """[batch] and [batch, 1] would silently broadcast to [batch, batch]."""
    batch, actions = 5, 3
    generator = torch.Generator().manual_seed(0)
    transition = Transition(
        obs=torch.arange(batch).float().unsqueeze(-1),
        action=torch.tensor([0, 1, 2, 1, 0]),
        reward=torch.randn(batch, generator=generator),
        discount=torch.full((batch,), GAMMA),
        next_obs=torch.arange(batch).flip(0).float().unsqueeze(-1),
    )
    online = torch.randn(batch, actions, generator=generator)
    target = torch.randn(batch, actions, generator=generator)
    loss = QLearning(target=DoubleTarget() if double else MaxTarget(), error=error)
    together = loss(lookup(online), lookup(target), transition)
    for row in range(batch):
        alone = loss(
            lookup(online), lookup(target), Transition(*(x[row : row + 1] for x in transition.columns()))
        )
        for name, value in alone._asdict().items():
            assert value.shape == (1,), name
            assert_close(getattr(together, name)[row : row + 1], value)
    assert {value.shape for value in together} == {(batch,)}


def test_q_learning_has_one_output_per_action_which_is_its_value() -> None:
    """Acting does not call `q_values` if there is one output per action."""
    loss = QLearning()
    outputs = torch.arange(6.0).reshape(2, 3)
    assert loss.outputs_per_action == 1
    assert torch.equal(loss.q_values(outputs), torch.arange(6.0).reshape(2, 3))
