"""Networks: their shapes and layers, the flat parameter vector, and users' own modules."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dqn_runner import DQNAgent, DQNConfig, UserError
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.agent.networks import architectures
from dqn_runner.agent.networks.architectures import Auto, Custom, ImpalaCnn, MinatarCnn, Mlp, NatureCnn
from dqn_runner.agent.networks.base import Network
from dqn_runner.agent.networks.modules.flat_network import FlatNetwork
from dqn_runner.agent.networks.modules.heads import Dueling, ImplicitQuantileHead
from dqn_runner.agent.networks.modules.layers import NoisyLinear, SpectralConv2d
from dqn_runner.core.imports import import_object
from dqn_runner.core.rng import torch_seeded
from dqn_runner.core.types import EnvSpec
from tests.support.networks import flat, observations, outputs_of

ATARI = EnvSpec((84, 84, 4), 4, "uint8")
MINATAR = EnvSpec((10, 10, 6), 3, "bool")


class Nested(nn.Module):
    """A user's network with parameters at several depths, a layer that is used twice, and a buffer."""

    def __init__(self, obs_shape: tuple[int, ...], num_outputs: int, hidden: int = 8) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 0.5))
        self.first = nn.Linear(math.prod(obs_shape), hidden)
        self.body = nn.ModuleDict({"again": nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh())})
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, num_outputs)
        self.register_buffer("offset", torch.ones(hidden))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x.flatten(1)) * self.scale + self.offset
        return self.head(self.norm(self.body["again"](self.body["again"](x))))


class Normalised(nn.Sequential):
    def __init__(self, obs_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__(
            nn.Linear(obs_shape[0], 8), nn.Sequential(nn.BatchNorm1d(8)), nn.Linear(8, num_outputs)
        )


class Doubled(nn.Sequential):
    """The layers of a plain MLP, but a different forward method."""

    def __init__(self, obs_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__(nn.Linear(obs_shape[0], 8), nn.ReLU(), nn.Linear(8, num_outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def one_output_too_many(obs_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Linear(obs_shape[0], num_outputs + 1)


def outputs_without_batch_axis(obs_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(obs_shape[0], num_outputs), nn.Flatten(0))


def for_one_more_feature(obs_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Linear(obs_shape[0] + 1, num_outputs)


class Tied(nn.Module):
    def __init__(self, obs_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(obs_shape[0], obs_shape[0]), nn.Linear(obs_shape[0], obs_shape[0])
        self.second.weight = self.first.weight
        self.head = nn.Linear(obs_shape[0], num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)))


# Shapes and layers of the built-in networks


@pytest.mark.parametrize(
    ("part", "spec"),
    [
        (Mlp(), EnvSpec((4,), 2)),
        (Mlp(hidden=[]), EnvSpec((4,), 2)),
        (Mlp(hidden=[8, 8, 8]), EnvSpec((5, 5), 3)),
        (Mlp(), MINATAR),
        (MinatarCnn(), MINATAR),
        (MinatarCnn(channels=4, hidden=8), EnvSpec((6, 10, 10), 3, "bool")),
        (NatureCnn(), ATARI),
        (NatureCnn(hidden=16), EnvSpec((4, 84, 84), 4, "uint8")),
        (NatureCnn(hidden=16), EnvSpec((3, 64, 96), 4, "uint8")),
        (ImpalaCnn(width=0.25, hidden=8), EnvSpec((21, 17, 3), 4, "uint8")),
        (ImpalaCnn(width=0.25, hidden=8, layer_norm=True, spectral_norm=True), EnvSpec((2, 1, 5), 3)),
        (Mlp(hidden=[], dueling=True), EnvSpec((4,), 2)),
        (Mlp(hidden=[], noisy=True, cosine_embedding_dim=3), EnvSpec((4,), 2)),
        (MinatarCnn(dueling=True, noisy=True, layer_norm=True, cosine_embedding_dim=3), MINATAR),
        (Auto(), EnvSpec((60,), 7)),
        (Custom(target=f"{__name__}:Nested"), EnvSpec((4,), 2)),
    ],
    ids=lambda value: f"{type(value).__name__}" if not isinstance(value, EnvSpec) else str(value.obs_shape),
)
@pytest.mark.parametrize("outputs_per_action", [1, 3])
def test_a_network_has_the_requested_number_of_outputs_for_each_action(
    part: Network, spec: EnvSpec, outputs_per_action: int
) -> None:
    network = flat(part, spec, outputs_per_action)
    outputs = outputs_of(network, network.initial, torch.from_numpy(observations(spec, 2)))
    assert outputs.shape == (2, spec.num_actions * outputs_per_action)
    assert outputs.dtype == torch.float32


def test_nature_cnn_is_the_network_of_mnih_2015() -> None:
    assert flat(NatureCnn(), ATARI).initial.numel() == 1_686_180


def test_minatar_cnn_is_the_network_of_young_and_tian_2019() -> None:
    convolution, hidden, head = (3 * 3 * 6 + 1) * 16, (8 * 8 * 16 + 1) * 128, (128 + 1) * 3
    assert flat(MinatarCnn(), MINATAR).initial.numel() == convolution + hidden + head


HIDDEN, HEAD = 3136 * 512 + 512, 512 * 4 + 4
CONVOLUTIONS = 1_686_180 - HIDDEN - HEAD
NOISY_HIDDEN, NOISY_HEAD = 2 * HIDDEN, 2 * HEAD
VALUE = 512 + 1


@pytest.mark.parametrize(
    ("settings", "outputs_per_action", "count"),
    [
        ({}, 51, CONVOLUTIONS + HIDDEN + 51 * HEAD),
        ({"noisy": True}, 1, CONVOLUTIONS + NOISY_HIDDEN + NOISY_HEAD),
        ({"dueling": True}, 1, CONVOLUTIONS + 2 * HIDDEN + HEAD + VALUE),  # two streams of 512
        ({"dueling": True}, 51, CONVOLUTIONS + 2 * HIDDEN + 51 * (HEAD + VALUE)),
        ({"dueling": True, "noisy": True}, 51, CONVOLUTIONS + 2 * NOISY_HIDDEN + 51 * 2 * (HEAD + VALUE)),
        ({"cosine_embedding_dim": 64}, 32, CONVOLUTIONS + HIDDEN + HEAD + 64 * 3136 + 3136),
        ({"layer_norm": True}, 1, CONVOLUTIONS + HIDDEN + HEAD + 2 * (32 + 64 + 64 + 512)),
    ],
)
def test_nature_cnn_has_the_number_of_parameters_that_its_options_imply(
    settings: dict[str, Any], outputs_per_action: int, count: int
) -> None:
    assert flat(NatureCnn(**settings), ATARI, outputs_per_action).initial.numel() == count


@pytest.mark.parametrize(("width", "golden"), [(1, 1_090_260), (2, 2_372_772)])
def test_impala_cnn_is_the_network_of_espeholt_2018(width: int, golden: int) -> None:
    """Three stages, each of a convolution, a pooling layer and two blocks of two convolutions."""
    inputs, count = 4, 0
    for channels in (16 * width, 32 * width, 32 * width):
        count += (9 * inputs + 1) * channels + 4 * (9 * channels + 1) * channels
        inputs = channels
    count += (11 * 11 * inputs + 1) * 256 + (256 + 1) * 4
    assert flat(ImpalaCnn(width=width), ATARI).initial.numel() == count == golden


def test_impala_cnn_agrees_with_its_equations() -> None:
    """Each block is x + conv(relu(conv(relu(x)))); a ReLU follows the last block."""
    with torch_seeded(0):
        module = ImpalaCnn(width=0.25, hidden=8).build(EnvSpec((3, 9, 7), 2), 1)
    obs = torch.from_numpy(observations(EnvSpec((3, 9, 7), 2)))
    pairs = list(module.parameters())
    weights = list(zip(pairs[::2], pairs[1::2], strict=True))

    def conv(x: torch.Tensor) -> torch.Tensor:
        weight, bias = weights.pop(0)
        return nn.functional.conv2d(x, weight, bias, padding=1)

    x = obs
    for _ in range(3):
        x = nn.functional.max_pool2d(conv(x), 3, stride=2, padding=1)
        for _ in range(2):
            x = x + conv(conv(x.relu()).relu())
    (hidden, hidden_bias), (head, head_bias) = weights[-2:]
    x = nn.functional.linear(x.relu().flatten(1), hidden, hidden_bias)
    assert_close(module(obs), nn.functional.linear(x.relu(), head, head_bias))


@pytest.mark.parametrize(
    ("last", "first"), [((84, 84, 4), (4, 84, 84)), ((40, 60, 3), (3, 40, 60))], ids=["square", "oblong"]
)
def test_channels_first_and_last_are_the_same_network(last: tuple[int, ...], first: tuple[int, ...]) -> None:
    of_last, of_first = (
        flat(NatureCnn(hidden=16), EnvSpec(last, 2)),
        flat(NatureCnn(hidden=16), EnvSpec(first, 2)),
    )
    images = torch.from_numpy(observations(EnvSpec(last, 2), 3))
    params = of_last.initial
    assert_close(outputs_of(of_first, params, images.movedim(-1, 1)), outputs_of(of_last, params, images))


@pytest.mark.parametrize(
    ("shape", "chosen"),
    [
        ((4,), Mlp),
        ((3, 4), Mlp),
        ((10, 10, 4), MinatarCnn),
        ((4, 10, 10), MinatarCnn),
        ((35, 84, 1), MinatarCnn),
        ((36, 36, 1), NatureCnn),
        ((84, 84, 4), NatureCnn),
        ((4, 84, 84), NatureCnn),
        ((210, 160, 3), NatureCnn),
    ],
)
def test_auto_chooses_by_the_observation(shape: tuple[int, ...], chosen: type) -> None:
    spec = EnvSpec(shape, 3)
    assert type(Auto().choose(spec)) is chosen
    network = flat(Auto(), spec)
    assert network.initial.shape == flat(chosen(), spec).initial.shape
    assert outputs_of(network, network.initial, torch.zeros(1, *shape)).shape == (1, 3)


@pytest.mark.parametrize("part", [Mlp(hidden=[8]), NatureCnn(hidden=8)], ids=["mlp", "cnn"])
def test_byte_observations_are_scaled_to_one_and_booleans_become_zero_and_one(part: Network) -> None:
    shape = (36, 36, 1)
    network = flat(part, EnvSpec(shape, 2))
    images = torch.from_numpy(observations(EnvSpec(shape, 2, "uint8")))
    params = network.initial
    assert_close(outputs_of(network, params, images), outputs_of(network, params, images.float() / 255))
    masks = images > 127
    assert_close(outputs_of(network, params, masks), outputs_of(network, params, masks.float()))


def test_mlp_agrees_with_torch_linear_layers() -> None:
    """Weights are [inputs, outputs] in wide layers and [outputs, inputs] in layers with few outputs."""
    network = flat(Mlp(hidden=[16, 15]), EnvSpec((4,), 2))
    w1, b1, w2, b2, w3, b3 = network.initial.split([4 * 16, 16, 16 * 15, 15, 15 * 2, 2])
    obs = torch.from_numpy(observations(EnvSpec((4,), 2)))
    hidden = torch.relu(nn.functional.linear(obs, w1.view(4, 16).T, b1))
    hidden = torch.relu(nn.functional.linear(hidden, w2.view(15, 16), b2))
    expected = nn.functional.linear(hidden, w3.view(2, 15), b3)
    assert_close(outputs_of(network, network.initial, obs), expected)


@pytest.mark.parametrize(
    ("part", "spec", "message"),
    [
        (MinatarCnn(), EnvSpec((4,), 2), r"have shape \(4,\); use agent/network=mlp"),
        (NatureCnn(), EnvSpec((84, 84), 2), r"have shape \(84, 84\); use agent/network=mlp"),
        (MinatarCnn(), EnvSpec((2, 2, 1), 2), "too small"),
        (NatureCnn(), EnvSpec((20, 40, 3), 2), "too small for this network; use agent/network=minatar_cnn"),
        (NatureCnn(), EnvSpec((10, 10, 4), 2), "too small for this network; use agent/network=minatar_cnn"),
    ],
)
def test_observations_that_do_not_fit_a_convolutional_network_are_rejected(
    part: Network, spec: EnvSpec, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        part.build(spec, 1)


# Network options


def test_spectral_norm_equals_that_of_torch_after_many_power_iterations() -> None:
    """The largest singular value of the normalised kernel is 1 for any parameters."""
    layer, obs = SpectralConv2d(5, 6, 3, padding=1), torch.randn(2, 5, 4, 4)
    with torch.no_grad():  # the second singular value is half the first: power iteration converges
        left, values, right = torch.linalg.svd(layer.weight.flatten(1), full_matrices=False)
        values[0] = 2 * values[1]
        layer.weight.copy_((left * values @ right).view_as(layer.weight))
    theirs = nn.utils.parametrizations.spectral_norm(copy.deepcopy(layer), n_power_iterations=100)
    used = theirs.weight.detach()
    assert torch.linalg.svdvals(used.flatten(1))[0].item() == pytest.approx(1.0, abs=1e-5)
    expected = nn.functional.conv2d(obs, used, layer.bias, padding=1)
    assert_close(layer(obs), expected, rtol=1e-4, atol=1e-5)

    (gradient,) = torch.autograd.grad(layer(obs).square().sum(), layer.weight)
    output = nn.functional.conv2d(obs, theirs.weight, layer.bias, padding=1)
    (expected,) = torch.autograd.grad(output.square().sum(), theirs.parametrizations.weight.original)
    assert_close(gradient, expected, rtol=1e-3, atol=1e-4)
    assert gradient.abs().max() > 0.01

    before = layer(obs)
    with torch.no_grad():
        layer.weight.mul_(7.0)
    assert_close(layer(obs), before, rtol=1e-4, atol=1e-5)


def test_spectral_norm_applies_only_to_residual_blocks() -> None:
    module = ImpalaCnn(width=0.25, spectral_norm=True).build(ATARI, 1)
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 15
    spectral = [layer for layer in convolutions if isinstance(layer, SpectralConv2d)]
    assert len(spectral) == 12
    assert all(layer.in_channels == layer.out_channels for layer in spectral)
    plain = ImpalaCnn(width=0.25).build(ATARI, 1)
    assert not any(isinstance(layer, SpectralConv2d) for layer in plain.modules())


@pytest.mark.parametrize(
    ("part", "spec"),
    [(Mlp(hidden=[8, 8], layer_norm=True), EnvSpec((4,), 2)), (MinatarCnn(layer_norm=True), MINATAR)],
    ids=["mlp", "cnn"],
)
def test_layer_norm_precedes_every_relu_and_no_other_layer(part: Network, spec: EnvSpec) -> None:
    """It normalises each observation independently of the rest of the batch."""
    module = part.build(spec, 1)
    layers = [layer for layer in module.modules() if not isinstance(layer, nn.Sequential)]
    norms = [isinstance(layer, nn.LayerNorm | nn.GroupNorm) for layer in layers]
    relus = [isinstance(layer, nn.ReLU) for layer in layers]
    assert sum(norms) == sum(relus) == 2
    assert norms[:-1] == relus[1:]
    obs = torch.from_numpy(observations(spec)).float()
    assert_close(module(obs)[:1], module(obs[:1]))
    hidden = next(layer for layer in module.modules() if isinstance(layer, nn.LayerNorm | nn.GroupNorm))
    normalised: list[torch.Tensor] = []
    hidden.register_forward_hook(lambda _layer, _inputs, outputs: normalised.append(outputs))
    module(obs)
    assert_close(normalised[0].flatten(1).mean(1), torch.zeros(5), rtol=0, atol=1e-5)
    assert_close(normalised[0].flatten(1).std(1, correction=0), torch.ones(5), rtol=0, atol=1e-2)


@pytest.mark.parametrize("hidden", [[], [16], [32, 16]])
def test_dueling_and_noisy_layers_start_at_the_last_hidden_layer(hidden: list[int]) -> None:
    module = Mlp(hidden=hidden, dueling=True, noisy=True).build(EnvSpec((20,), 17), 1)
    (dueling,) = (layer for layer in module.modules() if isinstance(layer, Dueling))
    noisy = [layer for layer in module.modules() if isinstance(layer, NoisyLinear)]
    of_dueling = [layer for layer in dueling.modules() if isinstance(layer, NoisyLinear)]
    assert noisy == of_dueling
    assert [(layer.inputs, layer.noise_size - layer.inputs) for layer in noisy] == [
        *pairwise([*[20, *hidden][-2:], 1]),
        *pairwise([*[20, *hidden][-2:], 17]),
    ]


@pytest.mark.parametrize("shape", [(4,), (10, 10, 4), (84, 84, 4)])
def test_auto_passes_its_options_to_the_chosen_network(shape: tuple[int, ...]) -> None:
    settings: dict[str, Any] = {
        "dueling": True,
        "noisy": True,
        "noisy_std": 0.1,
        "layer_norm": True,
        "cosine_embedding_dim": 7,
    }
    assert set(settings) == set(vars(Auto()))  # a new option must be passed too
    spec = EnvSpec(shape, 3)
    chosen = Auto(**settings).choose(spec)
    assert {name: vars(chosen)[name] for name in settings} == settings
    module = Auto(**settings).build(spec, 2)
    assert isinstance(module, ImplicitQuantileHead)
    kinds = {type(layer) for layer in module.modules()}
    assert {Dueling, NoisyLinear, nn.LayerNorm} <= kinds
    assert module.cosine_embedding_dim == 7


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImpalaCnn(width=0.01).build(ATARI, 1), r"agent\.network\.width=0\.01 leaves no channels"),
        (lambda: ImpalaCnn().build(EnvSpec((4,), 2), 1), r"have shape \(4,\); use agent/network=mlp"),
    ],
)
def test_invalid_network_options_are_rejected(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


# A network as a function of one flat parameter vector


def repeated_layer() -> nn.Module:
    again = nn.Linear(6, 6)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), again, nn.ReLU(), again)


def tied_mlp() -> nn.Module:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(4, 6))


def hooked_mlp() -> nn.Module:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
    module[0].register_forward_hook(lambda _module, _inputs, outputs: outputs + 1)
    return module


class Scaled(nn.Linear):
    """A linear layer with an additional scalar parameter."""

    def __init__(self, obs_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__(obs_shape[0], num_outputs)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.scale


MODULES: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "nested": ((4,), lambda: Nested((4,), 6)),
    "tied": ((4,), lambda: Tied((4,), 6)),
    "tied mlp": ((4,), tied_mlp),
    "hook": ((4,), hooked_mlp),
    "scalar": ((4,), lambda: Scaled((4,), 6)),
    "own forward": ((4,), lambda: Doubled((4,), 6)),
    "repeated layer": ((4,), repeated_layer),
    "no bias": ((4,), lambda: nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 6))),
    "torch layers": ((4,), lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU())),
    "leading relu": ((4,), lambda: nn.Sequential(nn.ReLU(), nn.Linear(4, 6))),
    "sequential": ((4,), lambda: nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 6))),
    "convolution": (
        (2, 5, 5),
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.Flatten(), nn.Linear(27, 6)),
    ),
    "mlp": ((4,), lambda: Mlp(hidden=[8]).build(EnvSpec((4,), 3), 2)),
}
"""Shape of the observations, and a module with two outputs for each of three actions."""


@pytest.mark.parametrize("name", MODULES)
def test_a_flat_network_computes_the_same_outputs_and_gradients_as_its_module(name: str) -> None:
    obs_shape, make = MODULES[name]
    with torch_seeded(0):
        module = make()
    network = FlatNetwork(copy.deepcopy(module))
    named = dict(module.named_parameters())
    assert_close(network.initial, nn.utils.parameters_to_vector(named.values()).detach())

    obs = torch.from_numpy(observations(EnvSpec(obs_shape, 3)))
    params = torch.randn(
        network.initial.shape, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    pieces = params.split([p.numel() for p in named.values()])
    given = {name: piece.view(p.shape) for (name, p), piece in zip(named.items(), pieces, strict=True)}
    before = obs.clone()
    expected = torch.func.functional_call(module, given, (obs,))
    found = outputs_of(network, params, obs)
    assert torch.equal(obs, before)
    assert_close(found, expected)
    (expected_grad,) = torch.autograd.grad(expected.square().sum(), params)
    (found_grad,) = torch.autograd.grad(found.square().sum(), params)
    assert_close(found_grad, expected_grad)
    assert (found_grad != 0).float().mean() > 0.5


def test_calls_with_different_parameters_do_not_affect_each_other() -> None:
    """The online and the target network share one module."""
    network = flat(Mlp(hidden=[8]), EnvSpec((4,), 2))
    obs = torch.from_numpy(observations(EnvSpec((4,), 2)))
    online, target = network.initial, network.initial * 2
    before = outputs_of(network, online, obs)
    assert not torch.equal(outputs_of(network, target, obs), before)
    assert torch.equal(outputs_of(network, online, obs), before)


def test_a_layer_with_running_statistics_is_rejected_by_name() -> None:
    """The target network would share them with the online network."""
    message = r"layer '1\.0' \(BatchNorm1d\) keeps running statistics.*use LayerNorm or GroupNorm"
    with pytest.raises(UserError, match=message):
        flat(Custom(target=f"{__name__}:Normalised"), EnvSpec((4,), 2))


def test_normalisation_without_running_statistics_is_accepted() -> None:
    assert flat(Custom(target=f"{__name__}:Nested"), EnvSpec((4,), 2)).initial.isfinite().all()


def test_parameters_shared_by_layers_stay_shared_in_the_flat_vector() -> None:
    module = Tied((4,), 2)
    assert FlatNetwork(copy.deepcopy(module)).initial.numel() == sum(p.numel() for p in module.parameters())


def test_parameters_are_views_of_the_flat_vector_for_one_run_and_for_many() -> None:
    network = flat(MinatarCnn(channels=4, hidden=16), MINATAR)
    shapes = [(4, 6, 3, 3), (4,), (256, 16), (16,), (3, 16), (3,)]
    for runs in ((), (2,)):
        vector = network.initial.repeat(*runs, 1).view(*runs, -1)
        views = network.views(vector)
        assert [view.shape for view in views] == [(*runs, *shape) for shape in shapes]
        vector.zero_()
        assert not any(view.any() for view in views)


# A user's own network


def custom(make: Callable[..., nn.Module], **settings: Any) -> DQNAgent:
    """An agent for 4 features and 2 actions whose network is made by `make`."""
    part = Custom(target=f"{__name__}:{make.__name__}")
    return DQNAgent(DQNConfig(state_dim=4, action_dim=2, network=part, **settings))


class TwoPerAction(QLearning):
    """A loss whose action values are means of two outputs per action."""

    @property
    def outputs_per_action(self) -> int:
        return 2

    def q_values(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.unflatten(-1, (-1, 2)).mean(-1)


def test_the_loss_defines_the_number_and_meaning_of_the_outputs() -> None:
    agent = custom(Nested, loss=TwoPerAction())
    obs = observations(EnvSpec((4,), 2))
    outputs = outputs_of(agent.network, agent.learner.online, torch.from_numpy(obs)).detach()
    assert outputs.shape == (5, 4)
    assert_close(torch.from_numpy(agent.q_values(obs)), (outputs[:, ::2] + outputs[:, 1::2]) / 2)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (
            one_output_too_many,
            {},
            r"of shape \(1, 3\) for one observation; it must return \(1, 2\): 1 for each of 2 actions",
        ),
        (
            one_output_too_many,
            {"loss": TwoPerAction()},
            r"of shape \(1, 5\) for one observation; it must return \(1, 4\): 2 for each of 2 actions",
        ),
        (
            outputs_without_batch_axis,
            {},
            r"outputs of shape \(2,\) for one observation; it must return \(1, 2\)",
        ),
        (for_one_more_feature, {}, r"cannot take observations of shape \(4,\): "),
    ],
    ids=["one output", "two outputs", "batch axis", "observations"],
)
def test_a_network_that_does_not_fit_is_rejected_when_the_agent_is_created(
    make: Callable[..., nn.Module], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=r"^agent\.network .*" + message):
        custom(make, **settings)


@pytest.mark.parametrize("separator", [":", "."])
def test_a_custom_network_is_found_by_its_import_path(
    separator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"their_networks_{'colon' if separator == ':' else 'dot'}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "nets.py").write_text(
        "from torch import nn\n"
        "def make(obs_shape, num_outputs, hidden=4):\n"
        "    first, second = nn.Linear(*obs_shape, hidden), nn.Linear(hidden, num_outputs)\n"
        "    return nn.Sequential(first, nn.ReLU(), second)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    part = Custom(target=f"{package}.nets{separator}make", kwargs={"hidden": 16})
    agent = DQNAgent(DQNConfig(state_dim=5, action_dim=3, network=part))
    assert agent.q_values(np.ones((2, 5), np.float32)).shape == (2, 3)
    assert agent.learner.online.numel() == 5 * 16 + 16 + 16 * 3 + 3


@pytest.mark.parametrize(
    "target", ["no_such_package.nets:Net", "torch.nn:NoSuchLayer", "torch.nn.NoSuchLayer", "Net", ""]
)
def test_an_import_path_that_cannot_be_imported_is_reported_with_its_setting(target: str) -> None:
    with pytest.raises(UserError) as error:
        Custom(target=target).build(EnvSpec((4,), 2), 1)
    assert str(error.value).startswith(f"agent.network.target={target} cannot be imported: ")


def test_the_reason_of_a_failed_import_is_reported() -> None:
    with pytest.raises(UserError, match="No module named 'no_such_package'"):
        import_object("no_such_package:Net", "agent.network.target")
    with pytest.raises(UserError, match="has no attribute 'NoSuchLayer'"):
        import_object("torch.nn:NoSuchLayer", "agent.network.target")


# Initialisation


@pytest.mark.parametrize("part", [Mlp(), MinatarCnn(), Custom(target=f"{__name__}:Nested")])
def test_initial_weights_depend_only_on_the_seed(part: Network) -> None:
    """The agent neither uses nor changes torch's global generator."""

    def initial(seed: int, poison: int) -> torch.Tensor:
        config = DQNConfig(state_dim=list(MINATAR.obs_shape), action_dim=3, seed=seed, network=part)
        torch.manual_seed(poison)
        before = torch.get_rng_state()
        agent = DQNAgent(config)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(agent.learner.online, agent.learner.target)
        return agent.learner.online

    with torch.random.fork_rng(devices=[]):
        assert torch.equal(initial(seed=0, poison=1), initial(seed=0, poison=2))
        assert not torch.equal(initial(seed=0, poison=1), initial(seed=1, poison=1))


@pytest.mark.parametrize("num_actions", [15, 50])
def test_linear_layers_are_initialised_like_those_of_torch(num_actions: int) -> None:
    """Uniform within 1/sqrt(inputs), weights and biases alike."""
    with torch_seeded(1):
        network = flat(Mlp(hidden=[1000]), EnvSpec((16,), num_actions))
    sizes = [16_000, 1000, num_actions * 1000, num_actions]
    first, first_bias, second, second_bias = network.initial.split(sizes)
    for values, inputs in ((first, 16), (first_bias, 16), (second, 1000), (second_bias, 1000)):
        bound = 1 / math.sqrt(inputs)
        assert bound / 2 < values.abs().max() <= bound
        if len(values) > 100:
            assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


class _Tuple(torch.nn.Linear):
    def forward(self, input: torch.Tensor) -> Any:
        return (input,)


def _raise(*_: Any) -> Any:
    raise KeyError("units")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda *_: 3, "agent.network must make a torch.nn.Module, but made a int"),
        (lambda *_: None, "but made a NoneType"),
        (lambda *_: torch.nn.Linear, "but made Linear"),
        (lambda *_: torch.nn.Flatten(), "agent.network made a Flatten without parameters to learn"),
        (lambda *_: torch.nn.Linear(4, 3), "returns outputs of shape"),
        (lambda *_: torch.nn.Linear(5, 2), "cannot take observations of shape"),
        (lambda *_: torch.nn.Bilinear(4, 4, 2), "cannot take observations of shape"),
        (lambda *_: _Tuple(4, 2), "agent.network returns a tuple; it must return a tensor"),
        (_raise, "agent.network cannot be built: KeyError: 'units'"),
        (lambda: torch.nn.Linear(4, 2), "agent.network cannot be built: TypeError: "),
    ],
)
def test_a_custom_network_that_does_not_fit_is_rejected(
    monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any], message: str
) -> None:
    monkeypatch.setattr(architectures, "import_object", lambda *_: make)
    with pytest.raises(UserError) as error:
        DQNAgent(DQNConfig(state_dim=4, action_dim=2, network=Custom(target="my_pkg.Net")))
    assert message in str(error.value)


@pytest.mark.parametrize("state_dim", [0, -1, "big", 4.0, True, [4, "x"], [[4]], (84, 0)])
def test_a_state_dim_that_is_no_shape_is_rejected(state_dim: Any) -> None:
    with pytest.raises(UserError, match=r"agent\.state_dim must be a length or an image shape"):
        DQNAgent(DQNConfig(state_dim=state_dim, action_dim=2))
