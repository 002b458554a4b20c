"""agent/network=multi_input: each entry of a Dict observation reaches a module of its own kind."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.config import DQNConfig
from dqn_runner.agent.losses.implicit_quantile import ImplicitQuantile
from dqn_runner.agent.networks.architectures import Auto, Custom, Mlp, NatureCnn
from dqn_runner.agent.networks.modules.multi_input import Embeddings, OneHot
from dqn_runner.agent.networks.multi_input import ImageNetwork, MultiInput
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import EnvSpec
from dqn_runner.envs.base import spec_of
from dqn_runner.envs.mixed_observations import layout_of, pack
from tests.support.mixed import Keys

SPACE = Keys().observation_space


def an_agent(network: Any, space: Any = SPACE, **settings: Any) -> DQNAgent:
    return DQNAgent(DQNConfig(state_dim=space, action_dim=2, network=network, **settings))


def packed(*observations: Any, space: Any = SPACE) -> Any:
    return np.stack([pack(layout_of(space, "Env"), obs) for obs in observations])


def samples(count: int) -> list[Any]:
    SPACE.seed(3)
    return [SPACE.sample() for _ in range(count)]


def test_auto_takes_it_for_dict_observations() -> None:
    assert isinstance(Auto(dueling=True).choose(spec_of(Keys())), MultiInput)
    assert isinstance(Auto().choose(EnvSpec((4,), 2)), Mlp)


@pytest.mark.parametrize("key", ["image", "vector", "category"])
def test_every_entry_has_an_effect_on_the_values(key: str) -> None:
    agent = an_agent(MultiInput())
    one, two = samples(2)
    mixed = {**one, key: two[key] if key != "category" else 5 - one[key]}
    values = agent.q_values(packed(one, mixed))
    assert not np.array_equal(values[0], values[1])


@pytest.mark.parametrize(
    "options",
    [{"dueling": True}, {"noisy": True}, {"layer_norm": True}, {"vector_hidden": []}, {"hidden": []}]
    + [{"image_network": kind} for kind in (ImageNetwork.minatar_cnn, ImageNetwork.impala_cnn)],
    ids=str,
)
def test_options_of_networks(options: dict[str, Any]) -> None:
    agent = an_agent(MultiInput(**options))
    batch = packed(*samples(5))
    values = agent.q_values(batch)
    assert values.shape == (5, 2)
    np.testing.assert_allclose(agent.q_values(batch[3:4]), values[3:4], rtol=1e-4, atol=1e-5)


def test_implicit_quantiles() -> None:
    agent = an_agent(MultiInput(cosine_embedding_dim=8), loss=ImplicitQuantile())
    assert agent.q_values(packed(*samples(3))).shape == (3, 2)


def test_a_custom_network_gets_a_dictionary_of_scaled_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe(nn.Module):
        shape: Any
        seen: dict[str, torch.Tensor]

        def __init__(self, shape: Any, outputs: int) -> None:
            super().__init__()
            Probe.shape = shape
            self.layer = nn.Linear(1, outputs)

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            Probe.seen = inputs
            return self.layer(inputs["vector"][:, :1])

    monkeypatch.setattr(sys.modules[__name__], "Probe", Probe, raising=False)
    agent = an_agent(Custom(target=f"{__name__}:Probe"))
    (obs,) = samples(1)
    agent.q_values(packed(obs))
    assert Probe.shape == {"vector": (3,), "image": (2, 4, 5), "category": (1,)}
    np.testing.assert_allclose(Probe.seen["image"][0], obs["image"].transpose(2, 0, 1) / 255, rtol=1e-6)
    np.testing.assert_allclose(Probe.seen["vector"][0], obs["vector"], rtol=1e-6)
    assert Probe.seen["category"].tolist() == [[obs["category"] - 1]]


def test_one_hot_vectors_of_several_elements_are_joined() -> None:
    assert OneHot([2, 3])(torch.tensor([[1, 0], [0, 2]])).tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]


def test_embeddings_of_several_elements_are_joined() -> None:
    layer = Embeddings([2, 3], 1)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(5).reshape(5, 1))
    assert layer(torch.tensor([[1, 0], [0, 2]])).tolist() == [[1, 2], [0, 4]]


def test_many_categories_are_embedded() -> None:
    space = spaces.Dict({"place": spaces.Discrete(1000), "goal": spaces.MultiDiscrete([4, 4])})
    agent = an_agent(MultiInput(embedding_dim=5, hidden=[3]), space)
    assert agent.num_parameters() == 1000 * 5 + (5 + 8) * 3 + 3 + 3 * 2 + 2
    values = agent.q_values(packed(*({"place": n, "goal": [0, 0]} for n in (0, 999)), space=space))
    assert not np.array_equal(values[0], values[1])


def test_values_of_grids_become_one_hot_channels() -> None:
    space = spaces.Dict({"grid": spaces.Box(0, 255, (3, 3, 2), np.uint8)})
    agent = an_agent(MultiInput(grid_categories={"grid": [4, 2]}, image_hidden=1, hidden=[]), space)
    assert agent.num_parameters() == (4 + 2) * 9 * 16 + 16 + 16 + 1 + 2 + 2
    grid = np.zeros((3, 3, 2), np.uint8)
    grid[0, 0, 0], grid[1, 1, 1] = 3, 1
    branch: Any = agent.network.module[0].branches[0]  # pyright: ignore
    image = torch.from_numpy(grid).movedim(-1, 0)[None] / 255
    channels = branch[0](image)[0]
    assert channels.sum(0).tolist() == [[2.0] * 3] * 3
    assert channels[3, 0, 0] == channels[5, 1, 1] == 1


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ({"vector": [3]}, "vector is not an image; the observation has category"),
        ({"picture": [3]}, "picture is not an image"),
        ({"image": [3]}, "image has 2 channels; give the number of categories of each, not"),
        ({"image": [3, 0]}, "image has 2 channels"),
    ],
)
def test_grids_that_do_not_fit_are_rejected(grids: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        an_agent(MultiInput(grid_categories=grids))


def test_networks_for_arrays_reject_dict_observations_and_say_what_to_write() -> None:
    for network in (Mlp(), NatureCnn()):
        with pytest.raises(UserError, match=r"agent/network=multi_input, or env\.flatten_observation=true"):
            an_agent(network)


def test_it_rejects_arrays_and_says_what_to_write() -> None:
    with pytest.raises(UserError, match=r"one array of shape \(4,\); use agent/network=auto"):
        DQNAgent(DQNConfig(state_dim=4, action_dim=2, network=MultiInput()))


def test_images_too_small_for_the_chosen_convolutions_are_rejected() -> None:
    with pytest.raises(UserError, match="images image of 4x5 are too small"):
        an_agent(MultiInput(image_network=ImageNetwork.nature_cnn))


def test_normalisation_is_of_vectors_only() -> None:
    agent = an_agent(MultiInput(), normalize_observations=True)
    observations = samples(50)
    batch = packed(*observations)
    agent.act(batch, 0, np.random.default_rng(0))
    vectors = np.stack([obs["vector"] for obs in observations])
    normalization = agent.normalization()
    assert normalization is not None
    np.testing.assert_allclose(normalization[0], vectors.mean(0), rtol=1e-5)
    state = agent.state_dict()
    again = an_agent(MultiInput(), normalize_observations=True)
    again.load_state_dict(state)
    assert np.array_equal(again.q_values(batch), agent.q_values(batch))
    layout = layout_of(SPACE, "Env")
    normalized = layout.unpack(torch.from_numpy(agent._normalizer(batch)))  # pyright: ignore
    assert np.array_equal(normalized["image"], np.stack([obs["image"] for obs in observations]))
    np.testing.assert_allclose(normalized["vector"].mean(0), np.zeros(3), atol=1e-4)


def test_normalisation_without_vectors_is_rejected() -> None:
    space = spaces.Dict({"image": spaces.Box(0, 255, (4, 4), np.uint8)})
    with pytest.raises(UserError, match=r"the observations have none: image \(image 4x4 uint8\)"):
        an_agent(MultiInput(), space, normalize_observations=True)


def test_several_runs_are_evaluated_together() -> None:
    agent = an_agent(MultiInput(dueling=True, hidden=[8]))
    network, flat = agent.network, agent.network.initial
    params = torch.stack([flat, flat * 0.5])
    obs = torch.from_numpy(packed(*samples(6)).reshape(2, 3, -1))
    together = torch.func.vmap(lambda p, o: network(network.views(p), o))(params, obs)
    for run in range(2):
        alone = network(network.views(params[run]), obs[run])
        torch.testing.assert_close(together[run], alone, rtol=1e-4, atol=1e-5)
