"""Acting in numpy: the outputs are those of torch, for single observations and each kind of layer."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dqn_runner import DQNAgent, DQNConfig
from dqn_runner.agent.losses.quantile import Quantile
from dqn_runner.agent.networks.architectures import ImpalaCnn, MinatarCnn, Mlp, NatureCnn
from dqn_runner.agent.networks.base import Network
from dqn_runner.agent.networks.modules.flat_network import FlatNetwork
from dqn_runner.core.types import EnvSpec, Forward
from tests.support.networks import flat, observations, outputs_of

CART = EnvSpec((4,), 3)
MINATAR = EnvSpec((10, 10, 6), 3, "bool")
ATARI = EnvSpec((4, 84, 84), 4, "uint8")

NETWORKS: dict[str, tuple[Network, EnvSpec]] = {
    "mlp": (Mlp(), CART),
    "no hidden layer": (Mlp(hidden=[]), CART),
    "matrix": (Mlp(hidden=[16, 8]), EnvSpec((3, 5), 2)),
    "numbers of images": (Mlp(hidden=[8]), EnvSpec((10, 10, 2), 3, "uint8")),
    "mlp with norms": (Mlp(hidden=[32, 8], layer_norm=True), CART),
    "dueling mlp": (Mlp(dueling=True), CART),
    "noisy mlp": (Mlp(noisy=True, hidden=[32, 16]), CART),
    "noisy dueling mlp with norms": (Mlp(noisy=True, dueling=True, layer_norm=True), CART),
    "minatar": (MinatarCnn(), MINATAR),
    "minatar, channels first": (MinatarCnn(), EnvSpec((6, 10, 10), 3, "bool")),
    "images of floats": (MinatarCnn(), EnvSpec((10, 8, 2), 3)),
    "noisy dueling minatar with norms": (MinatarCnn(noisy=True, dueling=True, layer_norm=True), MINATAR),
    "nature": (NatureCnn(hidden=32), ATARI),
    "nature, channels last": (NatureCnn(hidden=32, layer_norm=True), EnvSpec((84, 96, 3), 4, "uint8")),
}


class Doubled(nn.Sequential):
    """The layers of a plain MLP, but a different forward method."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def tied() -> nn.Module:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(4, 6))


def repeated() -> nn.Module:
    again = nn.Linear(6, 6)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), again, nn.ReLU(), again)


def hooked() -> nn.Module:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
    module[0].register_forward_hook(lambda _module, _inputs, outputs: outputs + 1)
    return module


def convolution(**settings: Any) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, **settings), nn.Flatten(), nn.LazyLinear(6))


def forward_of(network: FlatNetwork, spec: EnvSpec, params: torch.Tensor | None = None) -> Forward:
    forward = network.numpy_forward(network.initial if params is None else params, spec.obs_shape)
    assert forward is not None
    return forward


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("has_noise", [False, True])
def test_outputs_are_those_of_torch(name: str, has_noise: bool) -> None:
    part, spec = NETWORKS[name]
    network = flat(part, spec, outputs_per_action=2)
    params = network.initial + 0.02 * torch.randn_like(network.initial)  # biases and scales differ, too
    noise = torch.randn(network.noise_size) if has_noise else None
    forward = forward_of(network, spec, params)
    for obs in observations(spec, 3):
        before = obs.copy()
        found = forward(obs[None], None if noise is None else noise.numpy())
        expected = network(network.views(params), torch.from_numpy(obs[None]), noise)
        assert found.dtype == np.float32
        assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=2e-5)
        assert np.array_equal(obs, before)
        if has_noise and network.noise_size:
            assert np.abs(found - forward(obs[None], None)).max() > 1e-2


@pytest.mark.parametrize(
    ("shape", "module"),
    [
        ((4,), tied()),
        ((4,), repeated()),
        ((2, 3), nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))),
        ((4,), nn.Sequential(nn.ReLU(), nn.Linear(4, 6))),
        ((4,), nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.ReLU(), nn.Linear(8, 6))),
        ((2, 9, 7), nn.Sequential(nn.Conv2d(2, 3, (4, 2), (2, 3)), nn.Flatten(), nn.Linear(18, 6))),
        ((2, 6, 4), nn.Sequential(nn.LayerNorm((2, 6, 4)), nn.Flatten(), nn.ReLU(), nn.Linear(48, 6))),
    ],
    ids=["tied weights", "a layer twice", "torch layers", "leading relu", "nested", "oblong", "norm first"],
)
def test_modules_of_users_are_supported(shape: tuple[int, ...], module: nn.Module) -> None:
    network, spec = FlatNetwork(copy.deepcopy(module)), EnvSpec(shape, 3)
    obs = observations(spec, 1)
    before = obs.copy()
    found = forward_of(network, spec)(obs, None)
    assert_close(torch.from_numpy(found), module(torch.from_numpy(obs)).detach())
    assert np.array_equal(obs, before)


@pytest.mark.parametrize(
    ("shape", "make"),
    [
        ((4,), Doubled),
        ((4,), hooked),
        ((4,), lambda: nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 6))),
        ((4,), lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 6))),
        ((4,), lambda: nn.Sequential(nn.LayerNorm(4, elementwise_affine=False), nn.Linear(4, 6))),
        ((3, 4), lambda: nn.Sequential(nn.LayerNorm(4), nn.Flatten(), nn.Linear(12, 6))),
        ((3, 4), lambda: nn.Sequential(nn.Linear(4, 2), nn.Flatten())),
        ((2, 3, 4), lambda: nn.Sequential(nn.Flatten(2), nn.Flatten(), nn.Linear(24, 6))),
        ((2, 5, 5), lambda: convolution(padding=1)),
        ((2, 5, 5), lambda: convolution(padding="same")),
        ((2, 5, 5), lambda: convolution(dilation=2)),
        ((2, 5, 5), lambda: convolution(groups=2)),
        ((2, 5, 5), lambda: convolution(bias=False)),
        ((2, 5, 5), lambda: nn.Sequential(nn.GroupNorm(2, 2), nn.Flatten(), nn.Linear(50, 6))),
    ],
)
def test_other_modules_act_in_torch(shape: tuple[int, ...], make: Callable[[], nn.Module]) -> None:
    module, obs = make(), observations(EnvSpec(shape, 3), 1)
    expected = module(torch.from_numpy(obs)).detach()
    network = FlatNetwork(copy.deepcopy(module))
    assert network.numpy_forward(network.initial, shape) is None
    assert_close(outputs_of(network, network.initial, torch.from_numpy(obs)), expected)


@pytest.mark.parametrize("part", [ImpalaCnn(width=0.25), MinatarCnn(cosine_embedding_dim=8)])
def test_networks_with_residual_blocks_or_taus_act_in_torch(part: Network) -> None:
    network = flat(part, MINATAR, outputs_per_action=8)
    assert network.numpy_forward(network.initial, MINATAR.obs_shape) is None


def test_products_have_the_bits_of_numpy_and_give_no_warning() -> None:
    network, obs = flat(Mlp(hidden=[120, 84]), CART), observations(CART, 1)
    weights = [each.numpy() for each in network.views(network.initial)]
    x = obs[0]
    for index in (0, 2):
        x = np.maximum(x @ weights[index] + weights[index + 1], 0)
    expected = x @ weights[4].T + weights[5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a deprecation is formatted in each step, which takes longer than it
        found = forward_of(network, CART)(obs, None)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
def test_a_network_that_diverged_gives_no_warning(name: str, value: float) -> None:
    """The trainer reports it."""
    part, spec = NETWORKS[name]
    network = flat(part, spec)
    noise = np.ones(network.noise_size, np.float32) if network.noise_size else None
    forward = forward_of(network, spec, torch.full_like(network.initial, value))
    assert forward(observations(spec, 1), noise).shape == (1, spec.num_actions)


def test_changes_of_the_weights_in_place_are_followed() -> None:
    part, spec = NETWORKS["noisy dueling minatar with norms"]
    network, obs = flat(part, spec), observations(spec, 1)
    params, noise = network.initial.clone(), torch.randn(network.noise_size)
    forward = forward_of(network, spec, params)
    params.mul_(-3).add_(0.1)
    expected = network(network.views(params), torch.from_numpy(obs), noise)
    assert_close(torch.from_numpy(forward(obs, noise.numpy())), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", [None, Quantile(num_quantiles=5)])
def test_an_agent_has_the_same_action_values_for_one_observation_and_for_many(loss: Any) -> None:
    settings = {} if loss is None else {"loss": loss}
    part = MinatarCnn(dueling=True, layer_norm=True)
    agent = DQNAgent(DQNConfig(state_dim=[10, 10, 6], action_dim=3, network=part, **settings))
    obs = observations(MINATAR, 4)
    together = agent.q_values(obs)
    alone = np.concatenate([agent.q_values(each[None]) for each in obs])
    assert together.shape == (4, 3)
    assert_close(torch.from_numpy(alone), torch.from_numpy(together), rtol=1e-4, atol=1e-5)
    assert agent.greedy(obs).tolist() == together.argmax(-1).tolist()
