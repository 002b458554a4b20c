"""The interface of networks, the options that all built-in ones share, and how they are assembled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.observation_layout import channels_last
from dqn_runner.core.settings import check_settings, setting
from dqn_runner.core.types import EnvSpec

if TYPE_CHECKING:
    from torch import nn

Params = list["torch.Tensor"]
"""The parameters of a network, in the order of its layers."""

MOST_UNITS = 100_000
"""Upper bound of the units of a layer."""

LARGE_IMAGE = 36
"""From this height and width on, `auto` takes the convolutions of `nature_cnn`, else of `minatar_cnn`."""
NATURE_CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Channels, kernel size and stride of each convolution of `nature_cnn`."""
IMPALA_CHANNELS = (16, 32, 32)
"""Channels of the three parts of `impala_cnn`."""


class Network(Protocol):
    """An option of the config group `agent/network`."""

    def build(self, spec: EnvSpec, outputs_per_action: int) -> nn.Module:
        """An initialised module from [batch, *obs_shape] float32 to [batch, actions * outputs_per_action].

        With `spec.layout`, the module gets a dictionary of entries instead (`ObservationLayout.inputs`).
        """
        ...


class NetworkFunction(Protocol):
    """A network as a function of its parameters."""

    def __call__(
        self,
        params: Params,
        obs: torch.Tensor,
        noise: torch.Tensor | None = None,
        taus: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Outputs [batch, actions * outputs_per_action] for observations [batch, *obs_shape].

        `noise` [noise_size] is standard normal, for noisy layers; without it they use their mean weights.
        With `taus` [batch, n] an implicit quantile network returns quantiles [batch, actions * n].
        """
        ...


@dataclass(kw_only=True)
class NetworkOptions:
    """The options of every built-in network."""

    dueling: bool = False
    """Separate streams for state value and advantages, from the last hidden layer on (Wang 2016)."""
    noisy: bool = False
    """Noisy layers from the last hidden layer on (Fortunato 2018); use them with agent/exploration=greedy."""
    noisy_std: float = setting(0.5, at_least=0)
    """Initial standard deviation of noisy weights, times the square root of the number of inputs."""
    layer_norm: bool = False
    """Normalise hidden layers before their ReLU, and the output of each stage of residual blocks."""
    cosine_embedding_dim: int = setting(0, at_least=0, largest=MOST_UNITS)
    """Number of cosines that embed taus, for agent/loss=implicit_quantile (64 in the paper); 0: no taus."""

    __post_init__ = check_settings


def height_width(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width of an image, with its channels on the first or last axis."""
    return shape[:2] if channels_last(shape) else shape[1:]


def require_array(spec: EnvSpec) -> None:
    """Raise a UserError if observations have several entries."""
    if spec.layout is not None:
        raise UserError(
            f"this network takes one array, but observations have the entries {spec.layout.describe()}; use "
            "agent/network=multi_input, or env.flatten_observation=true for one vector of all of them"
        )


def require_image(spec: EnvSpec) -> None:
    """Raise a UserError if observations are not images."""
    require_array(spec)
    if len(spec.obs_shape) != 3:
        raise UserError(
            f"a convolutional network needs images [height, width, channels], but the observations "
            f"have shape {spec.obs_shape}; use agent/network=mlp"
        )


def assemble_cnn(
    options: NetworkOptions,
    spec: EnvSpec,
    outputs_per_action: int,
    convolutions: list[tuple[int, int, int]],
    hidden: int,
) -> nn.Module:
    """A network of `convolutions`, given as (channels, kernel, stride), and one hidden layer."""
    from dqn_runner.agent.networks.modules import layers

    require_image(spec)
    features, size = layers.convolutions(
        spec.obs_shape, channels_last(spec.obs_shape), convolutions, options.layer_norm
    )
    if size <= 0:
        raise UserError(
            f"images of {spec.obs_shape} are too small for this network; use agent/network=minatar_cnn"
        )
    return assemble(options, features, size, [hidden], spec, outputs_per_action)


def assemble(
    options: NetworkOptions,
    features: list[nn.Module],
    size: int,
    hidden: list[int],
    spec: EnvSpec,
    outputs_per_action: int,
) -> nn.Module:
    """A network of `features` [batch, size], `hidden` layers and a head, as `options` say."""
    from dqn_runner.agent.networks.modules import heads, layers

    linear = layers.noisy_linear(options.noisy_std) if options.noisy else layers.plain_linear
    sizes = [size, *hidden]
    split = max(0, len(hidden) - 1)  # the last hidden layer belongs to the head
    head_sizes = sizes[split:]

    def head(outputs: int) -> list[nn.Module]:
        hidden_layers = layers.hidden_layers(head_sizes, linear, options.layer_norm)
        return [*hidden_layers, linear(head_sizes[-1], outputs)]

    torso = [
        *features,
        *layers.hidden_layers(sizes[: split + 1], layers.plain_linear, options.layer_norm),
    ]
    if not options.dueling and not options.cosine_embedding_dim:
        return torch.nn.Sequential(*torso, *head(spec.num_actions * outputs_per_action))

    shared = torch.nn.Sequential(*torso)
    # With taus as inputs the head computes one quantile per action at a time.
    head_outputs = 1 if options.cosine_embedding_dim else outputs_per_action
    top: nn.Module = torch.nn.Sequential(*head(spec.num_actions * head_outputs))
    if options.dueling:
        top = heads.Dueling(torch.nn.Sequential(*head(head_outputs)), top, spec.num_actions)
    if not options.cosine_embedding_dim:
        return torch.nn.Sequential(shared, top)
    embedding = linear(options.cosine_embedding_dim, head_sizes[0])
    return heads.ImplicitQuantileHead(
        shared, embedding, top, options.cosine_embedding_dim, outputs_per_action
    )
