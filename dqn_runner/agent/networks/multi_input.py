"""A network for observations with several entries, such as a Dict of an image and a vector."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from dqn_runner.agent.networks.base import (
    IMPALA_CHANNELS,
    LARGE_IMAGE,
    MOST_UNITS,
    NATURE_CONVOLUTIONS,
    NetworkOptions,
    assemble,
)
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.observation_layout import Entry, ObservationLayout
from dqn_runner.core.registry import option
from dqn_runner.core.settings import setting
from dqn_runner.core.types import EnvSpec

if TYPE_CHECKING:
    from torch import nn

MOST_ONE_HOT = 64
"""Entries with more categories are embedded."""


class ImageNetwork(Enum):
    """The convolutions of an image entry."""

    auto = "auto"
    minatar_cnn = "minatar_cnn"
    nature_cnn = "nature_cnn"
    impala_cnn = "impala_cnn"


@option("agent/network", "multi_input")
@dataclass(kw_only=True)
class MultiInput(NetworkOptions):
    """For Dict observations: a CNN for each image, an MLP for each vector, one-hot vectors or embeddings for
    categories; their features are joined."""

    image_network: ImageNetwork = ImageNetwork.auto
    """Convolutions of each image, those of the network of this name; `auto`: `minatar_cnn` for images below
    36x36, else `nature_cnn`."""
    image_hidden: int = setting(128, at_least=1, largest=MOST_UNITS)
    """Units of the layer after the convolutions of each image."""
    vector_hidden: list[int] = setting([64], at_least=1, largest=MOST_UNITS)
    """Units of the hidden layers of each vector; empty: vectors are joined as they are."""
    embedding_dim: int = setting(32, at_least=1, largest=MOST_UNITS)
    """Length of the embedding of a category, in entries with more than 64 categories; others are one-hot."""
    hidden: list[int] = setting([128], at_least=1, largest=MOST_UNITS)
    """Units of each hidden layer after the features are joined."""
    grid_categories: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """Images whose values are categories instead of intensities: for each key the number of categories of
    each channel, as in {image: [11, 6, 3]} for MiniGrid. They become one-hot channels."""

    def build(self, spec: EnvSpec, outputs_per_action: int) -> nn.Module:
        """A module from the entries of `spec.layout` to [batch, actions * outputs_per_action]."""
        from dqn_runner.agent.networks.modules.multi_input import JoinedFeatures

        layout = spec.layout
        if layout is None:
            raise UserError(
                f"agent/network=multi_input needs Dict observations, but they are one array of shape "
                f"{spec.obs_shape}; use agent/network=auto, or leave out env.flatten_observation and select "
                "several env.observation_keys with env.separate_keys=true"
            )
        self._check_grids(layout)
        branches: dict[str, nn.Module] = {}
        size = 0
        for entry in sorted(layout.entries, key=lambda each: each.name):
            modules, features = self._branch(entry, layout.frames)
            branches[entry.name] = torch.nn.Sequential(*modules)
            size += features
        return assemble(self, [JoinedFeatures(branches)], size, self.hidden, spec, outputs_per_action)

    def _branch(self, entry: Entry, frames: int) -> tuple[list[nn.Module], int]:
        """The modules of an entry, and their number of features."""
        from dqn_runner.agent.networks.modules import layers
        from dqn_runner.agent.networks.modules.multi_input import Embeddings, OneHot

        if entry.sizes:
            sizes = entry.sizes * frames
            if max(sizes) <= MOST_ONE_HOT:
                return [OneHot(sizes)], sum(sizes)
            return [Embeddings(sizes, self.embedding_dim)], len(sizes) * self.embedding_dim
        if entry.is_image:
            return self._image_branch(entry, frames)
        sizes = [math.prod(entry.input_shape(frames)), *self.vector_hidden]
        return layers.hidden_layers(sizes, layers.plain_linear, self.layer_norm), sizes[-1]

    def _image_branch(self, entry: Entry, frames: int) -> tuple[list[nn.Module], int]:
        from dqn_runner.agent.networks.modules import layers
        from dqn_runner.agent.networks.modules.multi_input import OneHotGrid

        channels, height, width = entry.input_shape(frames)
        first: list[nn.Module] = []
        if sizes := self.grid_categories.get(entry.name):
            first = [OneHotGrid(sizes * frames, entry.divisor)]
            channels = sum(sizes) * frames
        modules, size = self._convolutions((channels, height, width))
        if size <= 0:
            raise UserError(
                f"the images {entry.name} of {height}x{width} are too small for "
                f"agent.network.image_network={self.image_network.value}; use minatar_cnn"
            )
        hidden = layers.hidden_layers([size, self.image_hidden], layers.plain_linear, self.layer_norm)
        return [*first, *modules, *hidden], self.image_hidden

    def _convolutions(self, shape: tuple[int, ...]) -> tuple[list[nn.Module], int]:
        from dqn_runner.agent.networks.modules import layers

        name: str = self.image_network.value
        if name == "auto":
            name = "nature_cnn" if min(shape[1:]) >= LARGE_IMAGE else "minatar_cnn"
        if name == "impala_cnn":
            return layers.impala(shape, False, list(IMPALA_CHANNELS), self.layer_norm, False)
        convolutions = {"minatar_cnn": [(16, 3, 1)], "nature_cnn": list(NATURE_CONVOLUTIONS)}
        return layers.convolutions(shape, False, convolutions[name], self.layer_norm)

    def _check_grids(self, layout: ObservationLayout) -> None:
        """Raise UserError if `grid_categories` does not fit the images."""
        images = {each.name: each.input_shape(1)[0] for each in layout.entries if each.is_image}
        for name, sizes in self.grid_categories.items():
            if name not in images:
                raise UserError(
                    f"agent.network.grid_categories: {name} is not an image; the observation has "
                    f"{layout.describe()}"
                )
            if len(sizes) != images[name] or min(sizes) < 1:
                raise UserError(
                    f"agent.network.grid_categories: {name} has {images[name]} channels; give the number of "
                    f"categories of each, not {list(sizes)}"
                )
