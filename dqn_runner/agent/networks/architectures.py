"""The built-in networks, and `custom` for a user's own module."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dqn_runner.agent.networks.base import (
    IMPALA_CHANNELS,
    LARGE_IMAGE,
    MOST_UNITS,
    NATURE_CONVOLUTIONS,
    Network,
    NetworkOptions,
    assemble,
    assemble_cnn,
    height_width,
    require_array,
    require_image,
)
from dqn_runner.agent.networks.multi_input import MultiInput
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_object
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.observation_layout import channels_last
from dqn_runner.core.registry import option
from dqn_runner.core.settings import check_settings, setting
from dqn_runner.core.types import EnvSpec

if TYPE_CHECKING:
    from torch import nn

_GROUP = "agent/network"


@option(_GROUP, "mlp")
@dataclass(kw_only=True)
class Mlp(NetworkOptions):
    """Fully connected ReLU layers over the flattened observation."""

    hidden: list[int] = setting([120, 84], at_least=1, largest=MOST_UNITS)
    """Units of each hidden layer."""

    def build(self, spec: EnvSpec, outputs_per_action: int) -> nn.Module:
        """A module from [batch, *obs_shape] to [batch, actions * outputs_per_action]."""
        require_array(spec)
        flatten: list[nn.Module] = [] if len(spec.obs_shape) == 1 else [torch.nn.Flatten()]
        return assemble(self, flatten, math.prod(spec.obs_shape), self.hidden, spec, outputs_per_action)


@option(_GROUP, "minatar_cnn")
@dataclass(kw_only=True)
class MinatarCnn(NetworkOptions):
    """One 3x3 convolution and one hidden layer, for small images (Young & Tian 2019, section 4)."""

    channels: int = setting(16, at_least=1, largest=MOST_UNITS)
    """Channels of the convolution."""
    hidden: int = setting(128, at_least=1, largest=MOST_UNITS)
    """Units of the hidden layer."""

    def build(self, spec: EnvSpec, outputs_per_action: int) -> nn.Module:
        """A module from [batch, *obs_shape] to [batch, actions * outputs_per_action]."""
        return assemble_cnn(self, spec, outputs_per_action, [(self.channels, 3, 1)], self.hidden)


@option(_GROUP, "nature_cnn")
@dataclass(kw_only=True)
class NatureCnn(NetworkOptions):
    """Three convolutions and a hidden layer, for 84x84 images (Mnih et al. 2015, Methods)."""

    hidden: int = setting(512, at_least=1, largest=MOST_UNITS)
    """Units of the hidden layer."""

    def build(self, spec: EnvSpec, outputs_per_action: int) -> nn.Module:
        """A module from [batch, *obs_shape] to [batch, actions * outputs_per_action]."""
        return assemble_cnn(self, spec, outputs_per_action, list(NATURE_CONVOLUTIONS), self.hidden)


@option(_GROUP, "impala_cnn")
@dataclass(kw_only=True)
class ImpalaCnn(NetworkOptions):
    """Fifteen convolutions in residual blocks, and a hidden layer (Espeholt et al. 2018, figure 3)."""

    width: float = setting(1.0, above=0, at_most=1000)
    """Multiplies the channels 16, 32 and 32; 2 in Beyond the Rainbow (Clark et al. 2024)."""
    spectral_norm: bool = False
    """Divide the kernels of residual blocks by their largest singular value (Clark et al. 2024)."""
    hidden: int = setting(256, at_least=1, largest=MOST_UNITS)
    """Units of the hidden layer."""

    def build(self, spec: EnvSpec, outputs_per_action: int) -> nn.Module:
        """A module from [batch, *obs_shape] to [batch, actions * outputs_per_action]."""
        from dqn_runner.agent.networks.modules import layers

        require_image(spec)
        channels = [round(base * self.width) for base in IMPALA_CHANNELS]
        if min(channels) < 1:
            raise UserError(f"agent.network.width={self.width} leaves no channels")
        features, size = layers.impala(
            spec.obs_shape, channels_last(spec.obs_shape), channels, self.layer_norm, self.spectral_norm
        )
        return assemble(self, features, size, [self.hidden], spec, outputs_per_action)


@option(_GROUP, "custom")
@dataclass(kw_only=True)
class Custom:
    """A user's own module class or function: `target(obs_shape, num_outputs, **kwargs) -> nn.Module`."""

    target: str = "???"
    """Import path, `my_pkg.my_module:MyNet` or `my_pkg.my_module.MyNet`."""
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    """Keyword arguments for the target."""

    __post_init__ = check_settings

    def build(self, spec: EnvSpec, outputs_per_action: int) -> nn.Module:
        """The user's module; it maps [batch, *obs_shape] to [batch, num_outputs].

        With `spec.layout`, `obs_shape` and the observations are dictionaries (`ObservationLayout.inputs`).
        """
        make: Callable[..., nn.Module] = import_object(self.target, "agent.network.target")
        shape = spec.obs_shape if spec.layout is None else spec.layout.input_shapes
        return make(shape, spec.num_actions * outputs_per_action, **self.kwargs)


@option(_GROUP, "auto")
@dataclass(kw_only=True)
class Auto(NetworkOptions):
    """By the observation: `mlp` for vectors, `minatar_cnn` for small images, `nature_cnn` for others, and
    `multi_input` for a Dict."""

    def choose(self, spec: EnvSpec) -> Network:
        """The network for `spec`, with the options of this one."""
        if spec.layout is not None:
            return MultiInput(**vars(self))
        if len(spec.obs_shape) != 3:
            return Mlp(**vars(self))
        large = min(height_width(spec.obs_shape)) >= LARGE_IMAGE
        return NatureCnn(**vars(self)) if large else MinatarCnn(**vars(self))

    def build(self, spec: EnvSpec, outputs_per_action: int) -> nn.Module:
        """A module from [batch, *obs_shape] to [batch, actions * outputs_per_action]."""
        return self.choose(spec).build(spec, outputs_per_action)
