"""What networks of a user have besides parameters: it is stored with the run, and no update changes it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner import DQNAgent, DQNConfig, UserError, load_agent
from dqn_runner.agent.functional_update import UpdateInputs, make_functional_update
from dqn_runner.agent.learner import HyperParameters
from dqn_runner.agent.networks.architectures import Custom, Mlp
from dqn_runner.agent.networks.modules.flat_network import FlatNetwork
from dqn_runner.core.types import Batch, Transition
from dqn_runner.inference.module import make_module
from tests.inference.test_load_agent import a_run
from tests.support.mixed import Keys
from tests.support.own_networks import Recurrent

MODULE = "tests.support.own_networks"
OWN = "agent/network=custom", "agent.network.target"


def agent_with(name: str, **kwargs: Any) -> DQNAgent:
    network = Custom(target=f"{MODULE}:{name}", kwargs=kwargs)
    return DQNAgent(DQNConfig(state_dim=4, action_dim=2, batch_size=8, network=network))


def batch() -> Batch:
    rng = np.random.default_rng(0)
    obs, next_obs = (torch.from_numpy(rng.normal(size=(8, 4)).astype("float32")) for _ in range(2))
    numbers = torch.ones(8)
    transition = Transition(obs, torch.zeros(8, dtype=torch.int64), numbers, numbers, next_obs)
    return Batch(transition, np.arange(8), numbers / 8)


def test_frozen_parameters_and_buffers_do_not_learn() -> None:
    agent = agent_with("Projected")
    before = {name: value.clone() for name, value in agent.network.buffers().items()}
    assert set(before) == {"projection", "frozen.weight", "frozen.bias"}
    assert agent.num_parameters() == 8 * 2 + 2
    head = agent.learner.online.clone()
    for _ in range(3):
        agent.learn(batch(), 0)
    assert not torch.equal(agent.learner.online, head)
    assert all(torch.equal(value, before[name]) for name, value in agent.network.buffers().items())


@pytest.mark.usefixtures("no_curves")
def test_a_loaded_agent_and_its_module_have_the_buffers_of_the_run(tmp_path: Path) -> None:
    trainer = a_run(tmp_path / "run", OWN[0], f"{OWN[1]}={MODULE}:Projected")
    obs = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = trainer.agent.q_values(obs)
    loaded = load_agent(tmp_path / "run" / "checkpoints" / "latest.pt", trust=True)
    np.testing.assert_array_equal(loaded.q_values(obs), expected)
    with torch.no_grad():
        values = loaded.to_module()(torch.from_numpy(obs)).numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_buffers_of_another_shape_are_rejected() -> None:
    agent = agent_with("Projected")
    state = agent.state_dict()
    state["buffers"] = {**state["buffers"], "projection": torch.zeros(2, 8)}
    with pytest.raises(UserError, match=r"another network: it has the buffers \{'projection': \(2, 8\)"):
        agent.load_state_dict(state)


def test_networks_of_the_program_store_no_buffers() -> None:
    agent = DQNAgent(DQNConfig(state_dim=4, action_dim=2, network=Mlp(hidden=[8])))
    assert "buffers" not in agent.state_dict()


def test_a_network_that_changes_when_it_is_evaluated_is_rejected() -> None:
    with pytest.raises(UserError, match=r"agent.network changes its buffer 'calls' whenever it is evaluated"):
        agent_with("Counting")


@pytest.mark.parametrize(
    ("part", "p", "remedy"),
    [
        ("dropout", 0.1, "p=0"),
        ("alpha", 0.5, "p=0"),
        ("recurrent", 0.1, "dropout=0"),
        ("attention", 0.2, "dropout=0"),
        ("random slope", 0.1, "equal lower and upper slopes"),
    ],
)
def test_a_layer_that_would_have_no_effect_is_rejected(part: str, p: float, remedy: str) -> None:
    with pytest.raises(UserError, match=rf"network layer 'part' \(\w+\) has no effect: .* or set {remedy}$"):
        agent_with("Dropping", part=part, p=p)


@pytest.mark.parametrize("part", ["dropout", "alpha", "recurrent", "attention"])
def test_a_layer_that_is_turned_off_is_accepted(part: str) -> None:
    assert agent_with("Dropping", part=part, p=0.0).num_parameters()


@pytest.mark.parametrize("change", ["spectral norm", "old spectral norm"])
def test_a_spectral_norm_that_estimates_in_training_mode_only_is_rejected(change: str) -> None:
    with pytest.raises(
        UserError, match=r"network layer 'first.*' \(\w+\) has a spectral norm, whose estimate"
    ):
        agent_with("Layer", change=change)


def test_a_weight_norm_is_accepted() -> None:
    agent = agent_with("Layer", change="weight norm")
    before = agent.learner.online.clone()
    agent.learn(batch(), 0)
    changed = agent.network.views(agent.learner.online != before)
    assert all(each.any() for each in changed)


def test_learned_parameters_of_different_dtypes_are_rejected() -> None:
    names = r"'first.weight' torch.float64, 'head.weight' torch.float32"
    with pytest.raises(UserError, match=rf"network parameters have different dtypes \({names}\)"):
        agent_with("Layer", change="float64")


@pytest.mark.parametrize("fault", ["in_place", "in_place_data"])
def test_a_network_that_changes_its_observations_in_place_is_rejected(fault: str) -> None:
    with pytest.raises(UserError, match=r"agent.network changes its observations in place; .* x = x / 255$"):
        agent_with("Faulty", fault=fault)


@pytest.mark.parametrize("key", ["image", "vector", "category"])
def test_a_network_that_changes_an_entry_of_its_observations_in_place_is_rejected(key: str) -> None:
    network = Custom(target=f"{MODULE}:InPlaceEntries", kwargs={"key": key})
    with pytest.raises(UserError, match=r"agent.network changes its observations in place"):
        DQNAgent(DQNConfig(state_dim=Keys().observation_space, action_dim=2, network=network))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("second_reference", "uses its parameter 'first.weight' by a second reference"),
        ("list_of_layers", "computes with parameters that torch does not find in it"),
        ("hidden_state", "returns other outputs when it is evaluated again with the same observation"),
        ("all_parameters", r"computes with what parameters\(\) or state_dict\(\) returns in forward"),
        ("state_of_module", r"computes with what parameters\(\) or state_dict\(\) returns in forward"),
        ("float64", "returns outputs of torch.float64; it must return torch.float32"),
    ],
)
def test_a_network_that_updates_could_not_learn_is_rejected(fault: str, message: str) -> None:
    assert agent_with("Faulty", fault="none").num_parameters()
    with pytest.raises(UserError, match=f"^agent.network {message}"):
        agent_with("Faulty", fault=fault)


def test_a_network_that_draws_whenever_it_is_evaluated_is_accepted() -> None:
    assert agent_with("Drawing").num_parameters() == 4 * 2 + 2


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_torchscript_module_is_rejected() -> None:
    with pytest.raises(
        UserError, match=r"^agent.network made a TorchScript module .* without torch.jit.script"
    ):
        agent_with("scripted")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_learn_as_the_functional_update_does(kind: str) -> None:
    agent = agent_with("Recurrent", kind=kind)
    config, learner, network = agent.config, agent.learner, agent.network
    functional = make_functional_update(network, network.views, config.loss, config.optimizer, None)
    transition, _, weight = batch()
    for number in range(1, 4):
        before, moments = learner.online.clone(), {k: v.clone() for k, v in learner.moments.items()}
        scalars = torch.tensor(config.optimizer.scalars(number, 1e-3))
        found = functional(UpdateInputs(before, learner.target, moments, scalars, transition, weight, None))
        agent._update(learner, transition, weight, HyperParameters(1e-3, None))
        torch.testing.assert_close(found.online, learner.online, rtol=1e-4, atol=1e-6)
        assert all(each.any() for each in network.views(learner.online != before)[:4]), "all of it learns"
    obs = transition.obs.numpy()
    with torch.no_grad():
        values = make_module(agent, "float32")(transition.obs).numpy()
    np.testing.assert_allclose(agent.q_values(obs), values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_compute_with_the_given_parameters(kind: str) -> None:
    """They keep a list of their parameters, also after the module was moved."""
    torch.manual_seed(0)
    module = Recurrent((4,), 2, kind)
    obs = torch.rand(3, 4)
    expected = module(obs).detach()
    network = FlatNetwork(module)
    network.to(torch.device("cpu"))
    halved = network(network.views(network.initial / 2), obs)
    assert not torch.allclose(halved, expected)
    torch.testing.assert_close(network(network.views(network.initial), obs), expected)


def test_sizes_of_lazy_layers_follow_from_the_observations() -> None:
    first, second = agent_with("Lazy"), agent_with("Lazy")
    assert first.num_parameters() == 4 * 8 + 8 + 8 * 2 + 2
    assert torch.equal(first.learner.online, second.learner.online), "the seed decides their values"


def test_an_agent_can_be_pickled() -> None:
    agent = agent_with("Projected")
    agent.learn(batch(), 0)
    copied = pickle.loads(pickle.dumps(agent))
    for each in (agent, copied):
        each.learn(batch(), 0)
    assert torch.equal(agent.learner.online, copied.learner.online)
    obs = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(agent.q_values(obs), copied.q_values(obs))


@pytest.mark.usefixtures("no_curves")
def test_a_loaded_agent_can_be_sent_to_another_process(tmp_path: Path) -> None:
    a_run(tmp_path / "run", "env=cartpole")
    agent = load_agent(tmp_path / "run", seed=3)
    copied = pickle.loads(pickle.dumps(agent))
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    for deterministic in (True, False):
        expected = agent.predict(obs, deterministic=deterministic)
        np.testing.assert_array_equal(copied.predict(obs, deterministic=deterministic), expected)
    assert copied.provenance == agent.provenance


def test_weights_are_not_loaded_into_a_network_whose_layers_have_another_order() -> None:
    state = agent_with("Ordered", names=["first", "second"]).state_dict()
    other = agent_with("Ordered", names=["second", "first"])
    before = other.learner.online.clone()
    message = (
        r"parameter 0 is first\.weight \(4, 4\) there, and second\.weight \(4, 4\) here; names, shapes and"
    )
    with pytest.raises(UserError, match=message):
        other.load_state_dict(state)
    assert torch.equal(other.learner.online, before)
