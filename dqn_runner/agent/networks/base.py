"""Network parts: each builds a module that maps observations to `outputs_per_action` outputs per action."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.types import EnvSpec

if TYPE_CHECKING:
    from torch import nn


class Network(Protocol):
    """A kind of network."""

    def build(self, spec: EnvSpec, outputs_per_action: int) -> nn.Module:
        """A module from [batch, *obs_shape] float32 to [batch, actions * outputs_per_action], initialised."""
        ...


@dataclass(kw_only=True)
class NetworkOptions:
    """What can be said of every built-in network."""

    dueling: bool = False
    """From the last hidden layer on, one stream for the state's value and one for advantages (Wang 2016)."""
    noisy: bool = False
    """Noisy layers from the last hidden layer on (Fortunato 2018); they explore: agent/exploration=greedy."""
    noisy_std: float = 0.5
    """Initial deviation of noisy weights, times the root of the number of inputs."""
    layer_norm: bool = False
    """Normalise hidden layers before their ReLU, and what a stage of residual blocks gives."""
    cosine_embedding_dim: int = 0
    """Cosines by which taus are embedded, for agent/loss=implicit_quantile; 64 in its paper."""

    def __post_init__(self) -> None:
        """Refuse values that no network could have."""
        if not 0 <= self.noisy_std < math.inf or self.cosine_embedding_dim < 0:
            raise UserError(
                "agent.network.noisy_std and agent.network.cosine_embedding_dim must be numbers of at least 0, got "
                f"noisy_std={self.noisy_std} and cosine_embedding_dim={self.cosine_embedding_dim}"
            )


def channels_last(shape: tuple[int, ...]) -> bool:
    """Images carry their channels on the smaller of the first and last axes; a tie means last."""
    return shape[-1] <= shape[0]


def height_width(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if channels_last(shape) else shape[1:]


def channels_last_of_image(spec: EnvSpec) -> bool:
    """Where an image has its channels; raises for observations that are no images."""
    if len(spec.obs_shape) != 3:
        raise UserError(
            f"a convolutional network needs images [height, width, channels], but the observations "
            f"have shape {spec.obs_shape}; use agent/network=mlp"
        )
    return channels_last(spec.obs_shape)


def cnn(
    part: NetworkOptions,
    spec: EnvSpec,
    outputs_per_action: int,
    convolutions: list[tuple[int, int, int]],
    hidden: int,
) -> nn.Module:
    from dqn_runner.agent.networks.modules import layers

    last = channels_last_of_image(spec)
    features, size = layers.convolutions(spec.obs_shape, last, convolutions, part.layer_norm)
    if size <= 0:
        raise UserError(
            f"images of {spec.obs_shape} are too small for this network; use agent/network=minatar_cnn"
        )
    return assemble(part, features, size, [hidden], spec, outputs_per_action)


def assemble(
    part: NetworkOptions,
    features: list[nn.Module],
    size: int,
    hidden: list[int],
    spec: EnvSpec,
    outputs_per_action: int,
) -> nn.Module:
    """The network from its `features` [batch, size], through hidden layers to the outputs."""
    from dqn_runner.agent.networks.modules import layers

    if any(units < 1 for units in hidden):
        raise UserError(f"agent.network.hidden must be at least 1 unit each, got {hidden}")
    linear = layers.noisy_linear(part.noisy_std) if part.noisy else layers.plain_linear

    def head(sizes: list[int], outputs: int) -> list[nn.Module]:
        return [*layers.hidden_layers(sizes, linear, part.layer_norm), linear(sizes[-1], outputs)]

    sizes = [size, *hidden]
    split = max(0, len(hidden) - 1)  # the last hidden layer is the head's
    features = [*features, *layers.hidden_layers(sizes[: split + 1], layers.plain_linear, part.layer_norm)]
    if not part.dueling and not part.cosine_embedding_dim:
        return torch.nn.Sequential(*features, *head(sizes[split:], spec.num_actions * outputs_per_action))
    shared, rest = torch.nn.Sequential(*features), sizes[split:]
    per_action = 1 if part.cosine_embedding_dim else outputs_per_action
    top: nn.Module = torch.nn.Sequential(*head(rest, spec.num_actions * per_action))
    if part.dueling:
        value = torch.nn.Sequential(*head(rest, per_action))
        top = layers.Dueling(value, top, spec.num_actions)
    if not part.cosine_embedding_dim:
        return torch.nn.Sequential(shared, top)
    embedding = linear(part.cosine_embedding_dim, rest[0])
    return layers.ImplicitQuantileHead(shared, embedding, top, part.cosine_embedding_dim, outputs_per_action)
