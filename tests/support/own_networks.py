"""Networks of a user with more than parameters: buffers, frozen, lazy and recurrent layers, hooks, faults."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn


class Projected(nn.Module):
    """A random projection that no seed of the program decides, and a frozen layer behind it."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        projection = np.random.default_rng().normal(size=(shape[0], 8)).astype(np.float32)
        self.register_buffer("projection", torch.from_numpy(projection))
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.head = nn.Linear(8, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.frozen(x @ self.projection)))


class Counting(nn.Module):
    """Its values depend on how often it was evaluated."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(shape[0], outputs)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.head(x) + self.calls


class Drawing(nn.Module):
    """Draws from all global generators whenever it is evaluated."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(shape[0], outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = random.gauss(0, 1) + float(np.random.normal())  # noqa: NPY002 (that is the point)
        return self.head(x) + torch.randn(()) + noise


class Dropping(nn.Module):
    """Parts that are active in torch's training mode only."""

    def __init__(self, shape: tuple[int, ...], outputs: int, part: str, p: float) -> None:
        super().__init__()
        parts: dict[str, nn.Module] = {
            "dropout": nn.Dropout(p),
            "alpha": nn.AlphaDropout(p),
            "recurrent": nn.LSTM(8, 8, num_layers=2, dropout=p),
            "attention": nn.MultiheadAttention(8, 2, dropout=p),
            "random slope": nn.RReLU(p, 0.3),
        }
        self.first, self.part = nn.Linear(shape[0], outputs), parts[part]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x)


class Lazy(nn.Module):
    """Its sizes follow from the first observation."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Gated(nn.Conv2d):
    """A convolution with a second argument, which is scaled by it."""

    def forward(self, input: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return super().forward(input) * scale


class Attached(nn.Module):
    """Convolutions called in unusual ways, with a hook that knows the module, and a lock."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.first = Gated(shape[0], 4, 3)
        self.second = nn.Conv2d(4, 4, 3)
        self.head = nn.LazyLinear(outputs)
        self.features: Any = None
        self.second.register_forward_hook(lambda _, __, output: setattr(self, "features", output))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.lock:
            self.second(input=torch.relu(self.first(x, 0.5)))
            return self.head(torch.relu(self.features).flatten(1))


class Double(nn.Module):
    """Computes with float64 inside."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(shape[0], 4, 3).double()
        self.head = nn.Linear(4 * 8 * 8, outputs).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.convolution(x.double())).flatten(1)).float()


class Layer(nn.Module):
    """A first layer that torch changes in some way, and a head."""

    def __init__(self, shape: tuple[int, ...], outputs: int, change: str) -> None:
        super().__init__()
        changes: dict[str, Callable[[nn.Linear], nn.Module]] = {
            "spectral norm": nn.utils.parametrizations.spectral_norm,
            "old spectral norm": nn.utils.spectral_norm,
            "weight norm": nn.utils.parametrizations.weight_norm,
            "float64": nn.Linear.double,
        }
        self.first, self.head = changes[change](nn.Linear(shape[0], 8)), nn.Linear(8, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first: Any = self.first
        return self.head(first(x.to(first.weight.dtype)).float())


class Recurrent(nn.Module):
    """Reads an observation as a sequence of numbers."""

    def __init__(self, shape: tuple[int, ...], outputs: int, kind: str) -> None:
        super().__init__()
        self.layer: nn.RNNBase = getattr(nn, kind)(1, 8, batch_first=True)
        self.head = nn.Linear(8, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x.unsqueeze(-1))[0][:, -1])


class Faulty(nn.Module):
    """A network with one of the faults that its methods have."""

    def __init__(self, shape: tuple[int, ...], outputs: int, fault: str) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(shape[0], 8), nn.Linear(8, outputs)
        self.fault: Callable[[torch.Tensor], torch.Tensor] = getattr(self, fault)
        self.weights, self.layers = [self.first.weight], [nn.Linear(8, 8)]
        self.state = torch.zeros(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fault(x)

    def none(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.first(x)))

    def in_place(self, x: torch.Tensor) -> torch.Tensor:
        x /= 255
        return self.none(x)

    def in_place_data(self, x: torch.Tensor) -> torch.Tensor:
        x.data.mul_(2)
        return self.none(x)

    def second_reference(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(x @ self.weights[0].mT))

    def list_of_layers(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers[0](self.first(x)))

    def hidden_state(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x) + self.state)
        self.state = hidden.detach().mean(0)
        return self.head(hidden)

    def all_parameters(self, x: torch.Tensor) -> torch.Tensor:
        return self.none(x) / (1 + sum((each.square().mean() for each in self.parameters()), torch.zeros(())))

    def state_of_module(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.state_dict().get("first.weight")
        return self.none(x) * (1.0 if scale is None else scale.norm())

    def float64(self, x: torch.Tensor) -> torch.Tensor:
        return self.none(x).double()


class InPlaceEntries(nn.Module):
    """Changes an entry of a Dict observation in place."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], outputs: int, key: str) -> None:
        super().__init__()
        self.key, self.head = key, nn.LazyLinear(outputs)

    def forward(self, entries: dict[str, torch.Tensor]) -> torch.Tensor:
        entries[self.key].clamp_(max=0)
        return self.head(entries[self.key].flatten(1).float())


def scripted(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """A module that is compiled to TorchScript."""
    return torch.jit.script(nn.Linear(shape[0], outputs))


class Ordered(nn.Module):
    """Layers of the same sizes that are added in an order."""

    def __init__(self, shape: tuple[int, ...], outputs: int, names: list[str]) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(shape[0], shape[0]))
        self.head = nn.Linear(shape[0], outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.get_submodule("second")(torch.tanh(self.get_submodule("first")(x))))
