"""Features of observations with several entries: each entry gets a module of its own kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import nn


class JoinedFeatures(nn.Module):
    """The features of all entries, concatenated in the order of `names`."""

    def __init__(self, branches: Mapping[str, nn.Module]) -> None:
        """`branches` map an entry [batch, ...] to its features [batch, size]."""
        super().__init__()
        self.names = list(branches)
        self.branches = nn.ModuleList(branches.values())  # a ModuleDict rejects names with dots

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Entries to [batch, sum of sizes]."""
        found = [branch(inputs[name]) for name, branch in zip(self.names, self.branches, strict=True)]
        return torch.cat(found, -1)


class OneHot(nn.Module):
    """Categories [batch, elements] to one-hot vectors, joined, [batch, sum of sizes]."""

    element: torch.Tensor
    category: torch.Tensor

    def __init__(self, sizes: Sequence[int]) -> None:
        """`sizes` are the numbers of categories of the elements."""
        super().__init__()
        counts = torch.tensor(list(sizes))
        first = torch.tensor([0, *accumulate(sizes)][:-1])
        element = torch.repeat_interleave(torch.arange(len(counts)), counts)
        self.register_buffer("element", element, persistent=False)
        self.register_buffer("category", torch.arange(len(element)) - first[element], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, elements] int64 to float32."""
        return (x.index_select(-1, self.element) == self.category).to(torch.float32)


class Embeddings(nn.Module):
    """Categories [batch, elements] to learned vectors, joined, [batch, elements * dim]."""

    first: torch.Tensor

    def __init__(self, sizes: Sequence[int], dim: int) -> None:
        """One table of `dim` numbers per category, for all elements."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(sum(sizes), dim))
        self.register_buffer("first", torch.tensor([0, *accumulate(sizes)][:-1]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, elements] int64 to float32."""
        return nn.functional.embedding(x + self.first, self.weight).flatten(-2)


class OneHotGrid(nn.Module):
    """Images whose values are categories, to images with a channel for each category.

    A value that is not a category gives zeros.
    """

    def __init__(self, sizes: Sequence[int], divisor: float) -> None:
        """`sizes` are the numbers of categories of the channels; `divisor` is undone."""
        super().__init__()
        self.one_hot, self.divisor = OneHot(sizes), divisor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, channels, height, width] to [batch, sum of sizes, height, width]."""
        values = (x * self.divisor).round().movedim(-3, -1)
        return self.one_hot(values).movedim(-1, -3)
