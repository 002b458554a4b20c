"""Convolutions in bfloat16: what they compute, what keeps float32, and where they are rejected."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dqn_runner import DQNAgent, DQNConfig, UserError
from dqn_runner.agent import precision
from dqn_runner.agent.compiled.program import update_program
from dqn_runner.agent.learner import HyperParameters, LearnerState, make_update
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.agent.losses.targets import DoubleTarget
from dqn_runner.agent.networks.architectures import Custom, MinatarCnn, Mlp
from dqn_runner.agent.networks.modules.flat_network import FlatNetwork
from dqn_runner.agent.precision import check_hardware, network_of_updates
from dqn_runner.agent.update_noise import NoiseRequirements
from dqn_runner.core.types import Batch, Transition

SIZE = 16
SHAPE = (4, 10, 10)
CPU = torch.device("cpu")


def config(**settings: Any) -> DQNConfig:
    given = {"network": MinatarCnn(hidden=32), "batch_size": SIZE, "precision": "bfloat16", **settings}
    return DQNConfig(state_dim=SHAPE, action_dim=3, compile=False, device="cpu", **given)


def batch(seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    obs, next_obs = (torch.from_numpy(rng.normal(size=(SIZE, *SHAPE)).astype("float32")) for _ in range(2))
    action = torch.from_numpy(rng.integers(3, size=SIZE))
    reward = torch.from_numpy(rng.normal(size=SIZE).astype("float32"))
    transition = Transition(obs, action, reward, torch.full((SIZE,), 0.99), next_obs)
    return Batch(transition, np.arange(SIZE), torch.full((SIZE,), 1 / SIZE))


class OwnNetwork(nn.Module):
    """Two convolutions and a head whose bias makes values of about 200."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3)
        self.second = nn.Conv2d(8, 8, 3, bias=False)
        self.head = nn.Linear(8 * 6 * 6, 3)
        with torch.no_grad():
            self.head.bias.fill_(200.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(x.flatten(1))


def rounded(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.bfloat16).to(torch.float32)


def test_convolutions_multiply_rounded_numbers_and_all_else_keeps_float32() -> None:
    network = FlatNetwork(OwnNetwork())
    params = network.views(network.initial)
    first, bias, second, weight, head_bias = params
    obs = batch(0).transition.obs
    hidden = torch.relu(rounded(nn.functional.conv2d(rounded(obs), rounded(first), rounded(bias))))
    hidden = torch.relu(rounded(nn.functional.conv2d(hidden, rounded(second))))
    expected = nn.functional.linear(hidden.flatten(1), weight, head_bias)

    found = network_of_updates(network, "bfloat16")(params, obs)
    assert found.dtype is torch.float32
    # A sum that lies between two bfloat16 numbers may be rounded to either, by the order of its terms.
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)
    assert (found - rounded(found)).abs().max() > 0.1  # the head has not rounded values of 200


def test_acting_and_evaluation_keep_float32() -> None:
    plain, agent = DQNAgent(config(precision="float32")), DQNAgent(config())
    for obs in (batch(1).transition.obs.numpy(), batch(2).transition.obs.numpy()[:1]):
        np.testing.assert_array_equal(agent.q_values(obs), plain.q_values(obs))


def test_an_update_follows_the_gradient_of_float32() -> None:
    """They point the same way; about 1 in 200 units of the convolution is on the other side of its ReLU."""
    plain, agent = DQNAgent(config(precision="float32")), DQNAgent(config())
    for each in (plain, agent):
        each.learn(batch(0), 0)
    a, b = plain.learner.grad, agent.learner.grad
    assert b.dtype is torch.float32
    assert not torch.equal(a, b)
    assert torch.cosine_similarity(a, b, dim=0) > 0.99


@pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout contract")
def test_the_runs_axis_gives_each_run_its_update() -> None:
    agent = DQNAgent(config(loss=QLearning(target=DoubleTarget())))
    network, optimizer = agent.network, agent.config.optimizer
    update = make_update(network_of_updates(network, "bfloat16"), agent.config.loss, optimizer)
    stacked = [torch.stack(column) for column in zip(*(batch(i)[0].columns() for i in range(2)), strict=True)]

    def state(params: torch.Tensor) -> LearnerState:
        return LearnerState(params, optimizer.init(params), network.views)

    hyper = HyperParameters(1e-3, 10.0)
    together = state(torch.stack([network.initial, network.initial * 0.9]))
    update(together, Transition(*stacked), torch.full((2, SIZE), 1 / SIZE), hyper)
    for run, params in enumerate((network.initial.clone(), network.initial * 0.9)):
        alone = state(params)
        update(alone, batch(run).transition, batch(run).weight, hyper)
        assert torch.cosine_similarity(together.grad[run], alone.grad, dim=0) > 0.99


def test_a_restored_agent_continues_with_the_same_bytes() -> None:
    whole, before, after = (DQNAgent(config()) for _ in range(3))
    for seed in range(4):
        whole.learn(batch(seed), 0)
    for seed in range(2):
        before.learn(batch(seed), 0)
    after.load_state_dict(before.state_dict())
    for seed in range(2, 4):
        after.learn(batch(seed), 0)
    assert torch.equal(whole.learner.online, after.learner.online)


def test_compiled_updates_of_the_precisions_are_not_shared() -> None:
    programs = [
        update_program(config(precision=name), "float32", False, NoiseRequirements(2, 0), 1)
        for name in precision.PRECISIONS
    ]
    assert len({program.key("g++") for program in programs}) == 2


@pytest.mark.parametrize("name", ["Attached", "Double"])
def test_modules_of_a_user_work_as_with_float32(name: str) -> None:
    """Hooks see the module that learns; convolutions take any arguments, and float64 stays float64."""
    network = Custom(target=f"tests.support.own_networks:{name}")
    plain, agent = (DQNAgent(config(network=network, precision=p)) for p in precision.PRECISIONS)
    for each in (plain, agent):
        each.learn(batch(0), 0)
    similarity = torch.cosine_similarity(plain.learner.grad, agent.learner.grad, dim=0)
    assert similarity > 0.99
    assert torch.equal(plain.learner.grad, agent.learner.grad) == (name == "Double")


def test_what_has_no_convolutions_and_what_is_no_precision_is_rejected() -> None:
    with pytest.raises(
        UserError, match="bfloat16 is for the convolutions of a network, and this one has none"
    ):
        DQNAgent(replace(config(), network=Mlp()))
    with pytest.raises(UserError, match=r"agent.precision must be float32 or bfloat16, got 'fp16'"):
        config(precision="fp16")


class TestHardware:
    @pytest.mark.parametrize(
        ("features", "known"),
        [({"avx512_bf16"}, True), ({"amx_bf16"}, True), ({"asimd", "bf16"}, True), ({"avx512f"}, False)],
    )
    def test_a_processor_without_instructions_for_it_is_rejected(
        self, features: set[str], known: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(precision, "features", lambda: frozenset(features))
        agent = DQNAgent(config())  # an agent that only acts runs anywhere
        if known:
            agent.choose_update("float32", 1_000)
        else:
            with pytest.raises(UserError, match=r"no instructions for it .*; set agent.precision=float32"):
                agent.choose_update("float32", 1_000)
        check_hardware("float32", CPU)

    def test_an_apple_gpu_is_rejected(self) -> None:
        with pytest.raises(UserError, match=r"for the CPU and CUDA, not for device=mps; set agent"):
            check_hardware("bfloat16", torch.device("mps"))

    @pytest.mark.parametrize("supported", [True, False])
    def test_a_gpu_is_asked(self, supported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)
        if supported:
            check_hardware("bfloat16", torch.device("cuda"))
        else:
            with pytest.raises(UserError, match="the GPU has no instructions for it"):
                check_hardware("bfloat16", torch.device("cuda"))
