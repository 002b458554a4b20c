"""Optimizers against those of torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from dqn_runner.agent.optimizers import Adam, LearningRate, Optimizer, RMSprop

PARAMETERS = 50
STEPS = 20

PAIRS: dict[str, tuple[Optimizer, Callable[..., torch.optim.Optimizer]]] = {
    "adam": (Adam(), torch.optim.Adam),
    "adam-other": (
        Adam(beta1=0.8, beta2=0.95, eps=1e-3),
        partial(torch.optim.Adam, betas=(0.8, 0.95), eps=1e-3),
    ),
    "rmsprop-centered": (
        RMSprop(),
        partial(torch.optim.RMSprop, alpha=0.95, eps=0.01, centered=True),
    ),
    "rmsprop": (
        RMSprop(decay=0.9, eps=1e-5, centered=False),
        partial(torch.optim.RMSprop, alpha=0.9, eps=1e-5),
    ),
}
"""Each optimizer and the equivalent one of torch."""

EACH = pytest.mark.parametrize("name", PAIRS)


def gradients(seed: int = 0) -> torch.Tensor:
    """[STEPS, PARAMETERS] of very different sizes; some are zero, like those of dead units."""
    generator = torch.Generator().manual_seed(seed)
    size = 10 ** torch.linspace(-4, 2, PARAMETERS)
    values = torch.randn(STEPS, PARAMETERS, generator=generator) * size
    values[:, ::7] = 0
    return values


def start(seed: int = 0) -> torch.Tensor:
    return torch.randn(PARAMETERS, generator=torch.Generator().manual_seed(100 + seed))


def run(
    optimizer: Optimizer, params: torch.Tensor, grads: torch.Tensor, learning_rate: LearningRate
) -> dict[str, torch.Tensor]:
    """`params` [*runs, P] and the moments after a step for each of `grads` [STEPS, *runs, P]."""
    params = params.clone()
    moments = optimizer.init(params)
    for count, grad in enumerate(grads, start=1):
        optimizer.step(params, grad.clone(), moments, count, learning_rate)
    return {"params": params, **moments}


@EACH
@pytest.mark.parametrize("learning_rate", [1e-3, 0.1])
def test_an_optimizer_agrees_with_that_of_torch(name: str, learning_rate: float) -> None:
    ours, theirs = PAIRS[name]
    parameter = torch.nn.Parameter(start())
    reference = theirs([parameter], lr=learning_rate)
    for grad in gradients():
        parameter.grad = grad.clone()
        reference.step()
    mine = run(ours, start(), gradients(), learning_rate)
    assert_close(mine["params"], parameter.detach(), rtol=1e-5, atol=1e-6)


@EACH
def test_optimizer_steps_of_runs_side_by_side_equal_those_alone_to_the_last_bit(name: str) -> None:
    ours, _ = PAIRS[name]
    rates = torch.tensor([[1e-3], [0.0], [0.1]])
    runs = range(len(rates))
    together = run(
        ours,
        torch.stack([start(r) for r in runs]),
        torch.stack([gradients(r) for r in runs], dim=1),
        rates,
    )
    for r in runs:
        for part, values in run(ours, start(r), gradients(r), rates[r].item()).items():
            assert torch.equal(together[part][r], values), (r, part)
    assert torch.equal(together["params"][1], start(1))  # its rate is zero


@EACH
def test_an_optimizer_step_is_in_place_and_does_not_change_the_gradient(name: str) -> None:
    """Others hold views of the parameters and moments, so their memory must not change."""
    ours, _ = PAIRS[name]
    params, grad = start(), gradients()[0]
    before = grad.clone()
    moments = ours.init(params)
    addresses = [params.data_ptr(), *(m.data_ptr() for m in moments.values())]
    ours.step(params, grad, moments, 1, 0.1)
    assert [params.data_ptr(), *(m.data_ptr() for m in moments.values())] == addresses
    assert torch.equal(grad, before)
    assert not torch.equal(params, start())


def test_centered_rmsprop_stays_finite_if_the_gradient_is_constant() -> None:
    """Rounding makes E[g^2] - E[g]^2 negative, and its root would be NaN."""
    grads = torch.full((300, PARAMETERS), 1e3) * torch.linspace(0.1, 1, PARAMETERS)
    assert run(RMSprop(), start(), grads, 1e-3)["params"].isfinite().all()


def test_the_first_step_of_adam_has_the_length_of_the_learning_rate() -> None:
    params = torch.zeros(2)
    Adam().step(params, torch.tensor([3.0, -0.02]), Adam().init(params), 1, 0.5)
    assert_close(params, torch.tensor([-0.5, 0.5]))
