"""Heads of networks: modules that compute the outputs of all actions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn


class Dueling(nn.Module):
    """The sum of a state's value and its actions' advantages (Wang et al. 2016, eq. 9)."""

    def __init__(self, value: nn.Module, advantage: nn.Module, num_actions: int) -> None:
        """`value` returns [batch, outputs_per_action], `advantage` [batch, actions * outputs_per_action]."""
        super().__init__()
        self.value, self.advantage, self.num_actions = value, advantage, num_actions

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features [batch, size] to [batch, actions * outputs_per_action]; the mean is taken over actions."""
        value: torch.Tensor = self.value(x).unsqueeze(-2)
        advantage: torch.Tensor = self.advantage(x)
        advantage = advantage.view(x.shape[0], self.num_actions, -1)
        return (value + advantage - advantage.mean(-2, keepdim=True)).flatten(-2)


class ImplicitQuantileHead(nn.Module):
    """Quantiles at any taus, from the product of features and embedded taus (Dabney et al. 2018b, eq. 4)."""

    def __init__(
        self,
        features: nn.Module,
        embedding: nn.Module,
        head: nn.Module,
        cosine_embedding_dim: int,
        num_taus: int,
    ) -> None:
        """`features` maps observations to [batch, size], `embedding` [n, cosine_embedding_dim] to [n, size].

        `head` maps [n, size] to one number per action. A call without taus uses the midpoints of `num_taus`
        equal fractions.
        """
        super().__init__()
        self.features, self.embedding, self.head = features, embedding, head
        self.cosine_embedding_dim, self.num_taus = cosine_embedding_dim, num_taus

    def forward(self, x: Any, taus: torch.Tensor | None = None) -> torch.Tensor:
        """Observations, as `features` takes them, and taus [batch, n] to quantiles [batch, actions * n]."""
        features: torch.Tensor = self.features(x)
        batch = features.shape[0]
        if taus is None:
            taus = (torch.arange(self.num_taus, device=features.device) + 0.5) / self.num_taus
            taus = taus.expand(batch, -1)
        n = taus.shape[-1]
        multiples = math.pi * torch.arange(self.cosine_embedding_dim, device=features.device)
        cosines = torch.cos(multiples * taus.unsqueeze(-1))
        embedded = torch.relu(self.embedding(cosines.flatten(0, 1)))
        product = features.unsqueeze(1) * embedded.view(batch, n, -1)
        outputs: torch.Tensor = self.head(product.flatten(0, 1))
        return outputs.view(batch, n, -1).transpose(1, 2).flatten(1)
