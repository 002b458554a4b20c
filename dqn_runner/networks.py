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


@option(_GROUP, "mlp")
@dataclass(kw_only=True)
class Mlp:
    """Fully connected ReLU layers over the flattened observation."""

    hidden: list[int] = field(default_factory=lambda: [120, 84])
    """Units of each hidden layer."""

    def build(self, spec: EnvSpec, width: int) -> nn.Module:
        """A module from [batch, *obs_shape] to [batch, actions * width]."""
        from dqn_runner import modules

        if any(units < 1 for units in self.hidden):
            raise UserError(f"agent.network.hidden must be at least 1 unit each, got {self.hidden}")
        sizes = [math.prod(spec.obs_shape), *self.hidden, spec.num_actions * width]
        flatten = [] if len(spec.obs_shape) == 1 else [torch.nn.Flatten()]
        return torch.nn.Sequential(*flatten, *modules.mlp(sizes))


@option(_GROUP, "minatar_cnn")
@dataclass(kw_only=True)
class MinatarCnn:
    """One 3x3 convolution and one hidden layer, for small images (Young & Tian 2019, section 4)."""

    channels: int = 16
    """Channels of the convolution."""
    hidden: int = 128
    """Units of the hidden layer."""

    def build(self, spec: EnvSpec, width: int) -> nn.Module:
        """A module from [batch, *obs_shape] to [batch, actions * width]."""
        return _cnn(spec, width, [(self.channels, 3, 1)], self.hidden)


@option(_GROUP, "nature_cnn")
@dataclass(kw_only=True)
class NatureCnn:
    """Three convolutions and a hidden layer, for 84x84 images (Mnih et al. 2015, Methods)."""

    hidden: int = 512
    """Units of the hidden layer."""

    def build(self, spec: EnvSpec, width: int) -> nn.Module:
        """A module from [batch, *obs_shape] to [batch, actions * width]."""
        return _cnn(spec, width, [(32, 8, 4), (64, 4, 2), (64, 3, 1)], self.hidden)


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
class Auto:
    """By the observation: `mlp` for vectors, `minatar_cnn` for small images, `nature_cnn` for others."""

    def choose(self, spec: EnvSpec) -> Network:
        """The part that fits `spec`."""
        if len(spec.obs_shape) != 3:
            return Mlp()
        return NatureCnn() if min(_height_width(spec.obs_shape)) >= 36 else MinatarCnn()

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


def _cnn(spec: EnvSpec, width: int, layers: list[tuple[int, int, int]], hidden: int) -> nn.Module:
    from dqn_runner import modules

    if len(spec.obs_shape) != 3:
        raise UserError(
            f"a convolutional network needs images [height, width, channels], but the observations "
            f"have shape {spec.obs_shape}; use agent/network=mlp"
        )
    features, size = modules.convolutions(spec.obs_shape, _channels_last(spec.obs_shape), layers)
    if size <= 0:
        raise UserError(
            f"images of {spec.obs_shape} are too small for this network; use agent/network=minatar_cnn"
        )
    sizes = [size, hidden, spec.num_actions * width]
    return torch.nn.Sequential(*features, *modules.mlp(sizes))
