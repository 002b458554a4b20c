"""Network parts: each builds a module that maps observations to `width` outputs per action."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dqn_runner.lazy import torch
from dqn_runner.registry import option
from dqn_runner.types import EnvSpec, UserError

if TYPE_CHECKING:
    from torch import nn

_GROUP = "agent/network"


class Network(Protocol):
    """A kind of network."""

    def build(self, spec: EnvSpec, width: int) -> nn.Module:
        """A module from [batch, *obs_shape] float32 to [batch, actions * width], initialised."""
        ...


@dataclass(kw_only=True)
class Layers:
    """What can be said of every built-in network."""

    dueling: bool = False
    """From the last hidden layer on, one stream for the state's value and one for advantages (Wang 2016)."""
    noisy: bool = False
    """Noisy layers from the last hidden layer on (Fortunato 2018); they explore: agent/exploration=greedy."""
    noisy_std: float = 0.5
    """Initial deviation of noisy weights, times the root of the number of inputs."""
    layer_norm: bool = False
    """Normalise hidden layers before their ReLU, and what a stage of residual blocks gives."""
    cosines: int = 0
    """Cosines by which fractions are embedded, for agent/loss=implicit_quantile; 64 in its paper."""

    def __post_init__(self) -> None:
        """Refuse values that no network could have."""
        if not 0 <= self.noisy_std < math.inf or self.cosines < 0:
            raise UserError(
                "agent.network.noisy_std and agent.network.cosines must be numbers of at least 0, got "
                f"noisy_std={self.noisy_std} and cosines={self.cosines}"
            )


@option(_GROUP, "mlp")
@dataclass(kw_only=True)
class Mlp(Layers):
    """Fully connected ReLU layers over the flattened observation."""

    hidden: list[int] = field(default_factory=lambda: [120, 84])
    """Units of each hidden layer."""

    def build(self, spec: EnvSpec, width: int) -> nn.Module:
        """A module from [batch, *obs_shape] to [batch, actions * width]."""
        flatten: list[nn.Module] = [] if len(spec.obs_shape) == 1 else [torch.nn.Flatten()]
        return _assemble(self, flatten, math.prod(spec.obs_shape), self.hidden, spec, width)


@option(_GROUP, "minatar_cnn")
@dataclass(kw_only=True)
class MinatarCnn(Layers):
    """One 3x3 convolution and one hidden layer, for small images (Young & Tian 2019, section 4)."""

    channels: int = 16
    """Channels of the convolution."""
    hidden: int = 128
    """Units of the hidden layer."""

    def build(self, spec: EnvSpec, width: int) -> nn.Module:
        """A module from [batch, *obs_shape] to [batch, actions * width]."""
        return _cnn(self, spec, width, [(self.channels, 3, 1)], self.hidden)


@option(_GROUP, "nature_cnn")
@dataclass(kw_only=True)
class NatureCnn(Layers):
    """Three convolutions and a hidden layer, for 84x84 images (Mnih et al. 2015, Methods)."""

    hidden: int = 512
    """Units of the hidden layer."""

    def build(self, spec: EnvSpec, width: int) -> nn.Module:
        """A module from [batch, *obs_shape] to [batch, actions * width]."""
        return _cnn(self, spec, width, [(32, 8, 4), (64, 4, 2), (64, 3, 1)], self.hidden)


@option(_GROUP, "impala_cnn")
@dataclass(kw_only=True)
class ImpalaCnn(Layers):
    """Fifteen convolutions in residual blocks, and a hidden layer (Espeholt et al. 2018, figure 3)."""

    width: float = 1.0
    """Multiplies the channels 16, 32 and 32; 2 in Beyond the Rainbow (Clark et al. 2024)."""
    spectral_norm: bool = False
    """Divide the kernels of residual blocks by their largest singular value (Clark et al. 2024)."""
    hidden: int = 256
    """Units of the hidden layer."""

    def build(self, spec: EnvSpec, width: int) -> nn.Module:
        """A module from [batch, *obs_shape] to [batch, actions * width]."""
        from dqn_runner import layers

        last = _channels_last_of_image(spec)
        depths = [round(channels * self.width) for channels in (16, 32, 32)]
        if min(depths) < 1:
            raise UserError(f"agent.network.width={self.width} leaves no channels")
        features, size = layers.impala(spec.obs_shape, last, depths, self.layer_norm, self.spectral_norm)
        return _assemble(self, features, size, [self.hidden], spec, width)


@option(_GROUP, "custom")
@dataclass(kw_only=True)
class Custom:
    """A user's own module class or function: `target(obs_shape, num_outputs, **kwargs) -> nn.Module`."""

    target: str = "???"
    """Import path, `my_pkg.my_module:MyNet` or `my_pkg.my_module.MyNet`."""
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    """Further arguments."""

    def build(self, spec: EnvSpec, width: int) -> nn.Module:
        """The user's module; it maps [batch, *obs_shape] to [batch, num_outputs]."""
        make: Callable[..., nn.Module] = import_object(self.target, "agent.network.target")
        return make(spec.obs_shape, spec.num_actions * width, **self.kwargs)


@option(_GROUP, "auto")
@dataclass(kw_only=True)
class Auto(Layers):
    """By the observation: `mlp` for vectors, `minatar_cnn` for small images, `nature_cnn` for others."""

    def choose(self, spec: EnvSpec) -> Network:
        """The part that fits `spec`, with these settings."""
        if len(spec.obs_shape) != 3:
            return Mlp(**vars(self))
        large = min(_height_width(spec.obs_shape)) >= 36
        return NatureCnn(**vars(self)) if large else MinatarCnn(**vars(self))

    def build(self, spec: EnvSpec, width: int) -> nn.Module:
        """A module from [batch, *obs_shape] to [batch, actions * width]."""
        return self.choose(spec).build(spec, width)


def import_object(path: str, knob: str) -> Any:
    """What `path` names: `package.module:name` or `package.module.name`; `knob` is for the error."""
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{knob}={path} cannot be imported: {error}") from error


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Images carry their channels on the smaller of the first and last axes; a tie means last."""
    return shape[-1] <= shape[0]


def _height_width(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if _channels_last(shape) else shape[1:]


def _channels_last_of_image(spec: EnvSpec) -> bool:
    """Where an image has its channels; raises for observations that are no images."""
    if len(spec.obs_shape) != 3:
        raise UserError(
            f"a convolutional network needs images [height, width, channels], but the observations "
            f"have shape {spec.obs_shape}; use agent/network=mlp"
        )
    return _channels_last(spec.obs_shape)


def _cnn(
    part: Layers, spec: EnvSpec, width: int, convolutions: list[tuple[int, int, int]], hidden: int
) -> nn.Module:
    from dqn_runner import layers

    last = _channels_last_of_image(spec)
    features, size = layers.convolutions(spec.obs_shape, last, convolutions, part.layer_norm)
    if size <= 0:
        raise UserError(
            f"images of {spec.obs_shape} are too small for this network; use agent/network=minatar_cnn"
        )
    return _assemble(part, features, size, [hidden], spec, width)


def _assemble(
    part: Layers, features: list[nn.Module], size: int, hidden: list[int], spec: EnvSpec, width: int
) -> nn.Module:
    """The network from its `features` [batch, size], through hidden layers to the outputs."""
    from dqn_runner import layers

    if any(units < 1 for units in hidden):
        raise UserError(f"agent.network.hidden must be at least 1 unit each, got {hidden}")
    linear = layers.noisy_linear(part.noisy_std) if part.noisy else layers.plain_linear

    def head(sizes: list[int], outputs: int) -> list[nn.Module]:
        return [*layers.hidden_layers(sizes, linear, part.layer_norm), linear(sizes[-1], outputs)]

    sizes = [size, *hidden]
    split = max(0, len(hidden) - 1)  # the last hidden layer is the head's
    features = [*features, *layers.hidden_layers(sizes[: split + 1], layers.plain_linear, part.layer_norm)]
    if not part.dueling and not part.cosines:
        return torch.nn.Sequential(*features, *head(sizes[split:], spec.num_actions * width))
    shared, rest = torch.nn.Sequential(*features), sizes[split:]
    per_action = 1 if part.cosines else width
    top: nn.Module = torch.nn.Sequential(*head(rest, spec.num_actions * per_action))
    if part.dueling:
        value = torch.nn.Sequential(*head(rest, per_action))
        top = layers.Dueling(value, top, spec.num_actions)
    if not part.cosines:
        return torch.nn.Sequential(shared, top)
    embedding = linear(part.cosines, rest[0])
    return layers.Implicit(shared, embedding, top, part.cosines, width)
