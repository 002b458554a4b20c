"""A network as operations of numpy on a single observation, which take less than half the time of torch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from torch import nn

from dqn_runner.agent.networks.modules.heads import Dueling
from dqn_runner.agent.networks.modules.layers import ChannelsFirst, Linear, NoisyLinear
from dqn_runner.core.types import Array, FloatArray, Forward, IntArray

Operation = Callable[[FloatArray, FloatArray | None], FloatArray]
"""From the flat input of a layer and the scaled noise of the network to a flat output; changes neither."""
Shape = tuple[int, ...]

_ZERO = np.zeros((), np.float32)


@dataclass(frozen=True)
class Parameters:
    """The parameters of all layers as arrays, and which part of the noise each noisy layer has."""

    arrays: Mapping[tuple[int, str], FloatArray]
    """By the `id` of the layer and the parameter's name."""
    noise: Mapping[int, slice]
    """By the `id` of the layer."""

    def of(self, layer: nn.Module) -> tuple[FloatArray, FloatArray]:
        """Weight and bias of a layer; raises UnsupportedError if it has no bias."""
        try:
            return self.arrays[id(layer), "weight"], self.arrays[id(layer), "bias"]
        except KeyError:
            raise UnsupportedError from None


class UnsupportedError(Exception):
    """A layer is not one that numpy can compute here."""


def numpy_forward(module: nn.Module, parameters: Parameters, obs_shape: Shape) -> Forward | None:
    """The function of `module` for single observations; None if it has a layer of another kind.

    It follows changes of the parameters in place.
    """
    if any(_has_hooks(part) for part in cast("Iterable[nn.Module]", module.modules())):
        return None
    try:
        operation, _ = _translate(module, parameters, obs_shape)
    except UnsupportedError:
        return None

    @np.errstate(invalid="ignore", over="ignore")  # the trainer reports a network that diverged
    def forward(obs: Array, noise: FloatArray | None) -> FloatArray:
        x: FloatArray = obs.reshape(-1).astype(np.float32, copy=False)
        if obs.dtype == np.uint8:
            x = x / np.float32(255)
        scaled = None if noise is None else np.sign(noise) * np.sqrt(np.abs(noise))
        return operation(x, scaled)[None]

    return forward


def _has_hooks(module: nn.Module) -> bool:
    return bool(vars(module)["_forward_hooks"] or vars(module)["_forward_pre_hooks"])


def _translate(module: nn.Module, parameters: Parameters, shape: Shape) -> tuple[Operation, Shape]:
    """The operation of a module and the shape of its output, for an input of `shape`."""
    # A subclass may compute something else, so that it does not count as its base class.
    translation = _TRANSLATIONS.get(type(module))
    if translation is None:
        raise UnsupportedError
    return translation(module, parameters, shape)


def _sequential(module: nn.Sequential, parameters: Parameters, shape: Shape) -> tuple[Operation, Shape]:
    operations: list[Operation] = []
    for layer in module:
        operation, shape = _translate(layer, parameters, shape)
        operations.append(operation)

    def run(x: FloatArray, noise: FloatArray | None) -> FloatArray:
        for operation in operations:
            x = operation(x, noise)
        return x

    return run, shape


def _flatten(module: nn.Flatten, _parameters: Parameters, shape: Shape) -> tuple[Operation, Shape]:
    if (module.start_dim, module.end_dim) != (1, -1):
        raise UnsupportedError
    return lambda x, _: x, (math.prod(shape),)


def _relu(_module: nn.ReLU, _parameters: Parameters, shape: Shape) -> tuple[Operation, Shape]:
    return lambda x, _: np.maximum(x, _ZERO), shape


def _linear(module: nn.Linear | Linear, parameters: Parameters, shape: Shape) -> tuple[Operation, Shape]:
    weight, bias = parameters.of(module)
    if isinstance(module, nn.Linear):
        weight = weight.T
    if shape != weight.shape[:1]:
        raise UnsupportedError

    def run(x: FloatArray, _: FloatArray | None) -> FloatArray:
        x = x.dot(weight)  # the bits of `@`, which takes twice the time for a vector
        x += bias
        return x

    return run, bias.shape


def _noisy_linear(module: NoisyLinear, parameters: Parameters, _shape: Shape) -> tuple[Operation, Shape]:
    """Two products with a vector instead of a matrix of noisy weights."""
    weight, bias = parameters.of(module)
    weight_std, bias_std = (parameters.arrays[id(module), name] for name in ("weight_std", "bias_std"))
    part, inputs = parameters.noise[id(module)], module.inputs

    def run(x: FloatArray, noise: FloatArray | None) -> FloatArray:
        outputs = x.dot(weight) + bias
        if noise is not None:
            own = noise[part]
            outputs += ((x * own[:inputs]).dot(weight_std) + bias_std) * own[inputs:]
        return outputs

    return run, bias.shape


def _conv2d(module: nn.Conv2d, parameters: Parameters, shape: Shape) -> tuple[Operation, Shape]:
    """The product of the kernels with the patches of the image."""
    plain = (module.padding, module.dilation, module.groups) == ((0, 0), (1, 1), 1)
    if not plain or len(shape) != 3:
        raise UnsupportedError
    kernels, bias = parameters.of(module)
    patches, size = _patches(shape, module.kernel_size, module.stride)
    weight, column = kernels.reshape(len(kernels), -1), bias[:, None]

    def run(x: FloatArray, _: FloatArray | None) -> FloatArray:
        image = weight.dot(x.take(patches))
        image += column
        return image.reshape(-1)

    return run, (len(kernels), *size)


def _patches(shape: Shape, kernel: Shape, stride: Shape) -> tuple[IntArray, Shape]:
    """Indices [channels * kernel, places] of a flat image, and the height and width of the places."""
    indices = np.arange(math.prod(shape)).reshape(shape)
    windows = np.lib.stride_tricks.sliding_window_view(indices, kernel, (1, 2))
    windows = windows[:, :: stride[0], :: stride[1]]
    size = windows.shape[1:3]
    return np.ascontiguousarray(windows.transpose(0, 3, 4, 1, 2).reshape(-1, math.prod(size))), size


def _channels_first(_module: ChannelsFirst, _parameters: Parameters, shape: Shape) -> tuple[Operation, Shape]:
    if len(shape) != 3:
        raise UnsupportedError
    order = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), -1, 0)
    flat = order.reshape(-1)
    return lambda x, _: x.take(flat), order.shape


def _layer_norm(module: nn.LayerNorm, parameters: Parameters, shape: Shape) -> tuple[Operation, Shape]:
    if tuple(module.normalized_shape) != shape:
        raise UnsupportedError
    weight, bias = parameters.of(module)
    epsilon = np.float32(module.eps)
    scale, shift = weight.reshape(-1), bias.reshape(-1)
    return lambda x, _: _normalized(x, epsilon) * scale + shift, shape


def _group_norm(module: nn.GroupNorm, parameters: Parameters, shape: Shape) -> tuple[Operation, Shape]:
    if module.num_groups != 1:
        raise UnsupportedError
    weight, bias = parameters.of(module)
    epsilon, channels = np.float32(module.eps), len(weight)
    scale, shift = weight[:, None], bias[:, None]

    def run(x: FloatArray, _: FloatArray | None) -> FloatArray:
        image = _normalized(x, epsilon).reshape(channels, -1)
        return (image * scale + shift).reshape(-1)

    return run, shape


def _normalized(x: FloatArray, epsilon: np.float32) -> FloatArray:
    """x [n] with mean 0 and variance 1."""
    size = np.float32(len(x))
    centered: FloatArray = x - np.add.reduce(x) / size
    centered /= np.sqrt(centered.dot(centered) / size + epsilon)
    return centered


def _dueling(module: Dueling, parameters: Parameters, shape: Shape) -> tuple[Operation, Shape]:
    value, _ = _translate(module.value, parameters, shape)
    advantage, outputs = _translate(module.advantage, parameters, shape)
    num_actions = module.num_actions
    count = np.float32(num_actions)

    def run(x: FloatArray, noise: FloatArray | None) -> FloatArray:
        advantages = advantage(x, noise).reshape(num_actions, -1)
        mean = np.add.reduce(advantages, 0) / count
        return (value(x, noise) + advantages - mean).reshape(-1)

    return run, outputs


_TRANSLATIONS: Mapping[type[nn.Module], Callable[[Any, Parameters, Shape], tuple[Operation, Shape]]] = {
    nn.Sequential: _sequential,
    nn.Flatten: _flatten,
    nn.ReLU: _relu,
    nn.Linear: _linear,
    Linear: _linear,
    NoisyLinear: _noisy_linear,
    nn.Conv2d: _conv2d,
    ChannelsFirst: _channels_first,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    Dueling: _dueling,
}
