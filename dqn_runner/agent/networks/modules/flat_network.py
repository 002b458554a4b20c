"""A network as a function of one flat vector of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise, zip_longest
from typing import Any, cast

import torch
from torch import nn

from dqn_runner.agent.networks.modules.accepted_layers import check_dtypes, check_layer
from dqn_runner.agent.networks.modules.heads import ImplicitQuantileHead
from dqn_runner.agent.networks.modules.layers import Linear, NoisyLinear
from dqn_runner.agent.networks.modules.numpy_forward import Parameters, numpy_forward
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.observation_layout import ObservationLayout
from dqn_runner.core.types import Forward

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class FlatNetwork:
    """A network as a function of observations and of its parameters, which are views of one flat vector.

    The parameters are removed from the module, and each call assigns the given ones to it. This is what
    `torch.func.functional_call` does, at a tenth of its cost. A plain MLP is executed without its module, as
    a list of operations.
    """

    def __init__(self, module: nn.Module, layout: ObservationLayout | None = None) -> None:
        """Remove the parameters from `module`; their values become `self.initial` [parameters].

        Parameters that need no gradient become buffers, so that no update changes them. `layout` is that of
        packed observations, of which `module` takes the entries. Raises a UserError for a layer that needs
        the training mode of torch (see `accepted_layers`), and for learned parameters of different dtypes.
        """
        check_dtypes(module)
        self.module = module.eval()
        self._layout = layout
        self._is_plain = layout is None and all(value.requires_grad for value in module.parameters())
        """Whether it is a function of arrays and of the parameters alone."""
        self._mlp = _mlp_operations(module) if self._is_plain else None
        self._assignments: list[tuple[nn.Module, str, int]] = []
        """For each parameter its layer, its name, and its index in `views`."""
        values: dict[int, torch.Tensor] = {}
        self.parameters: list[str] = []
        """Name and shape of each parameter, in the order of the vector."""
        for name, part in dict[str, nn.Module](module.named_modules()).items():  # pyright: ignore[reportUnknownArgumentType]
            check_layer(name, part)
            for key, parameter in list(part.named_parameters(recurse=False)):
                delattr(part, key)
                if not parameter.requires_grad:
                    part.register_buffer(key, parameter.detach())
                    continue
                if id(parameter) not in values:  # a shared one is kept once
                    values[id(parameter)] = parameter
                    self.parameters.append(f"{name}.{key} {tuple(parameter.shape)}".lstrip("."))
                self._assignments.append((part, key, list(values).index(id(parameter))))
        self._noisy = [part for part in module.modules() if isinstance(part, NoisyLinear)]
        self._recurrent = [part.train() for part in module.modules() if isinstance(part, nn.RNNBase)]
        """In the training mode, without which cuDNN computes no gradients; they have no dropout."""
        self.noise_size = sum(layer.noise_size for layer in self._noisy)
        """Number of random numbers that the noisy layers need in one call."""
        self.takes_taus = isinstance(module, ImplicitQuantileHead)
        """Whether the network takes taus and returns the quantiles at them."""
        self._shapes = [value.shape for value in values.values()]
        self.initial = torch.cat([value.detach().reshape(-1) for value in values.values()])

    @property
    def has_convolutions(self) -> bool:
        """Whether a layer is a convolution."""
        return any(isinstance(part, CONVOLUTIONS) for part in self.module.modules())

    def to(self, device: torch.device) -> None:
        """Move the initial parameters, and the buffers of the module, to `device`."""
        self.module.to(device)
        self.initial = self.initial.to(device)

    def buffers(self) -> dict[str, torch.Tensor]:
        """What the module has besides its parameters and stores with them, by name; nothing is copied."""
        return {key: value for key, value in self.module.state_dict().items() if torch.is_tensor(value)}

    def check_parameters(self, stored: Sequence[str]) -> None:
        """Raise a UserError unless the stored `parameters` of a network are those of this one."""
        if [*stored] == self.parameters:
            return
        index, theirs, ours = next(
            (index, *pair)
            for index, pair in enumerate(zip_longest(stored, self.parameters, fillvalue="missing"))
            if pair[0] != pair[1]
        )
        raise UserError(
            f"the checkpoint holds another network: parameter {index} is {theirs} there, and {ours} here; "
            "names, shapes and order of parameters have to be the same"
        )

    def load_buffers(self, stored: Mapping[str, torch.Tensor]) -> None:
        """Copy the values of buffers; raises a UserError for those of another network."""
        own = self.buffers()
        if _shapes(own) != _shapes(stored):
            raise UserError(
                f"the checkpoint holds another network: it has the buffers {_shapes(stored)}, this run has "
                f"{_shapes(own)}"
            )
        for name, value in own.items():
            value.copy_(stored[name])

    def views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """The parameters as views of a vector [*runs, parameters], each [*runs, *shape]."""
        parts = torch.split(flat, [shape.numel() for shape in self._shapes], -1)
        runs = flat.shape[:-1]
        return [part.view((*runs, *shape)) for part, shape in zip(parts, self._shapes, strict=True)]

    def __call__(
        self,
        params: Sequence[torch.Tensor],
        obs: torch.Tensor,
        noise: torch.Tensor | None = None,
        taus: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Outputs [batch, actions * outputs_per_action] for observations [batch, *obs_shape].

        Observations are those of `module_inputs`. `noise` [noise_size] is standard normal; without it noisy
        layers use their mean weights. With `taus` [batch, n] an implicit quantile network returns quantiles
        [batch, actions * n]; any other network raises a UserError.
        """
        inputs = module_inputs(obs, self._layout)
        if taus is not None and not self.takes_taus:
            raise UserError(
                "agent.loss needs quantiles at taus, but agent.network does not take taus; set "
                "agent.network.cosine_embedding_dim=64"
            )
        if self._mlp is not None:
            return _run_mlp(self._mlp, params, inputs)
        for layer, name, index in self._assignments:
            layer.__dict__[name] = params[index]
        for layer in self._recurrent:
            _update_list_of_parameters(layer)
        first = 0
        for layer in self._noisy:
            layer.noise = None if noise is None else noise[first : first + layer.noise_size]
            first += layer.noise_size
        return self.module(inputs) if taus is None else self.module(inputs, taus)

    def numpy_forward(self, flat: torch.Tensor, obs_shape: tuple[int, ...]) -> Forward | None:
        """The same function of single observations on numpy arrays; None if a layer has no counterpart there.

        Its parameters are views of `flat` [parameters], so that it follows their changes.
        """
        if not self._is_plain:
            return None
        views = [view.numpy() for view in self.views(flat)]
        arrays = {(id(layer), name): views[index] for layer, name, index in self._assignments}
        sizes = [layer.noise_size for layer in self._noisy]
        ends = accumulate(sizes)
        noise = {
            id(layer): slice(end - size, end)
            for layer, size, end in zip(self._noisy, sizes, ends, strict=True)
        }
        return numpy_forward(self.module, Parameters(arrays, noise), obs_shape)


def module_inputs(obs: torch.Tensor, layout: ObservationLayout | None) -> Any:
    """What the module of a network takes for observations [batch, *obs_shape].

    Those of dtype uint8 are scaled to [0, 1]; for packed ones, the entries of `layout`.
    """
    if layout is not None:
        return layout.inputs(layout.unpack(obs))
    if obs.dtype is torch.uint8:
        return obs.to(torch.float32) / 255
    return obs if obs.dtype is torch.float32 else obs.to(torch.float32)


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _run_mlp(operations: list[str], params: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The outputs of a plain MLP for observations [batch, *obs_shape]."""
    remaining = iter(params)
    for operation in operations:
        if operation == "affine":
            weight = next(remaining)
            x = torch.addmm(next(remaining), x, weight)
        elif operation == "linear":
            x = nn.functional.linear(x, next(remaining), next(remaining))
        else:
            x = torch.relu_(x) if operation == "relu" else x.flatten(1)
    return x


def _update_list_of_parameters(layer: nn.RNNBase) -> None:
    """Give a recurrent layer, which computes with a list of its parameters, those that it has now.

    Without references to earlier ones, it does not look for changes itself, for which it would move their
    memory on a GPU.
    """
    names: list[str] = layer._flat_weights_names  # pyright: ignore[reportPrivateUsage]
    own: Any = layer
    own._flat_weights = [getattr(layer, name) for name in names]
    own._flat_weight_refs = [None] * len(names)


def _mlp_operations(module: nn.Module) -> list[str] | None:
    """The operations (flatten, affine, linear, relu) of a plain MLP; None for any other module."""
    names: dict[type, str] = {
        nn.Flatten: "flatten",
        Linear: "affine",
        nn.Linear: "linear",
        nn.ReLU: "relu",
    }
    layers = set(cast("Iterable[nn.Module]", module.modules()))
    if type(module) is not nn.Sequential or len(layers) != len(module) + 1:
        return None
    params = [param for layer in layers for param in layer.parameters(recurse=False)]
    if len(params) != len(list(module.parameters())):
        return None  # two layers share a parameter
    if any(vars(layer)["_forward_hooks"] or vars(layer)["_forward_pre_hooks"] for layer in layers):
        return None
    if any(isinstance(layer, nn.Linear) and layer.bias is None for layer in module):  # pyright: ignore[reportUnnecessaryComparison]
        return None
    operations = [names.get(type(layer), "") for layer in module]
    pairs = list(pairwise(["", *operations]))
    # A ReLU works in place, which must not change observations or the input of another layer.
    relu_after_linear = all(before in ("affine", "linear") for before, after in pairs if after == "relu")
    flatten_is_first = all(before == "" for before, after in pairs if after == "flatten")
    return operations if all(operations) and relu_after_linear and flatten_is_first else None
