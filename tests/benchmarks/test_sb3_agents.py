"""The agents that ours are compared with compute what the papers say, and so the same numbers as ours."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dqn_runner.agent.losses.quantile import quantile_huber
from dqn_runner.agent.losses.targets import DoubleTarget, MaxTarget, MunchausenTarget, TargetRule
from dqn_runner.core.types import Transition

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BATCH, ACTIONS, GAMMA = 16, 3, 0.9


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("sb3_agents")


def batch() -> Any:
    """A batch as the replay buffer of stable-baselines3 returns it."""
    generator = torch.Generator().manual_seed(0)
    return SimpleNamespace(
        observations=torch.randn(BATCH, 4, generator=generator),
        next_observations=torch.randn(BATCH, 4, generator=generator),
        actions=torch.randint(ACTIONS, (BATCH, 1), generator=generator),
        rewards=torch.randn(BATCH, 1, generator=generator),
        dones=torch.randint(2, (BATCH, 1), generator=generator).float(),
    )


def model(seed: int = 0) -> Any:
    """What a target takes of a model."""
    torch.manual_seed(seed)
    return SimpleNamespace(
        q_net=torch.nn.Linear(4, ACTIONS), q_net_target=torch.nn.Linear(4, ACTIONS), gamma=GAMMA
    )


def our_target(rule: TargetRule, model: Any, data: Any) -> torch.Tensor:
    transition = Transition(
        obs=data.observations,
        action=data.actions.squeeze(1),
        reward=data.rewards.squeeze(1),
        discount=GAMMA * (1 - data.dones.squeeze(1)),
        next_obs=data.next_observations,
    )
    next_q = model.q_net_target(data.next_observations)
    backup = rule(lambda: next_q, model.q_net, model.q_net_target, transition)
    return backup.td_target(next_q, transition.discount)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("max_target", MaxTarget()),
        ("double_target", DoubleTarget()),
        ("munchausen_target", MunchausenTarget()),
        ("munchausen_target", MunchausenTarget(alpha=0.3, temperature=2.0, floor=-0.5)),
    ],
)
def test_targets_are_those_of_dqn_runner(agents: Any, name: str, rule: Any) -> None:
    theirs = getattr(agents, name)
    if isinstance(rule, MunchausenTarget):
        theirs = theirs(rule.alpha, rule.temperature, rule.floor)
    data, found = batch(), model()
    assert torch.allclose(theirs(found, data).squeeze(1), our_target(rule, found, data), atol=1e-5)


def settings() -> dict[str, Any]:
    return {"env": "CartPole-v1", "learning_rate": 1e-3, "batch_size": 8, "learning_starts": 10, "seed": 0}


def options(loss: str, target: str = "MaxTarget", **network: Any) -> dict[str, Any]:
    """The part of a configuration that says which agent it is."""
    rule = {"_target_": f"somewhere.{target}", "alpha": 0.9, "temperature": 0.03, "floor": -1.0}
    samples = {"num_tau_samples": 5, "num_tau_prime_samples": 7, "num_quantile_samples": 6}
    plain = {"hidden": [9, 8], "noisy": False, "noisy_std": 0.5, "dueling": False, "cosine_embedding_dim": 11}
    return {
        "loss": {"_target_": f"somewhere.{loss}", "target": rule, "num_quantiles": 4, **samples},
        "network": {**plain, **network},
        "optimizer": {"eps": 1e-8},
    }


def test_loss_of_iqn_is_that_of_dqn_runner(agents: Any) -> None:
    iqn = agents.make_agent(options("ImplicitQuantile"), settings())
    data = batch()
    data.actions %= 2
    torch.manual_seed(1)
    loss = iqn.loss(data)
    torch.manual_seed(1)
    taus, target_taus = torch.rand(BATCH, 5), torch.rand(BATCH, 7)
    rows = torch.arange(BATCH)
    online, target = iqn.q_net.q_net, iqn.q_net_target.q_net
    quantiles = online.quantiles(data.observations, taus)[rows, :, data.actions.squeeze(1)]
    best = target(data.next_observations).argmax(1)
    following = target.quantiles(data.next_observations, target_taus)[rows, :, best]
    td_target = data.rewards + (1 - data.dones) * iqn.gamma * following
    expected = quantile_huber(quantiles, taus, td_target.detach(), 1.0).mean()
    assert torch.allclose(loss, expected)
    gradients = [torch.autograd.grad(value, list(online.parameters())) for value in (loss, expected)]
    for theirs, ours in zip(*gradients, strict=True):
        assert torch.allclose(theirs, ours, atol=1e-6)


@pytest.mark.parametrize(
    "agent",
    [
        options("QLearning"),
        options("QLearning", "DoubleTarget"),
        options("QLearning", "MunchausenTarget"),
        options("QLearning", dueling=True),
        options("QLearning", noisy=True),
        options("QLearning", noisy=True, dueling=True),
        options("Quantile"),
        options("ImplicitQuantile"),
    ],
)
def test_each_agent_learns(agents: Any, agent: dict[str, Any]) -> None:
    made = agents.make_agent(agent, settings())
    before = [parameter.clone() for parameter in made.policy.parameters()]
    with agents.learning(made):
        made.learn(40)
    after = list(made.policy.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert all(torch.isfinite(parameter).all() for parameter in after)


def test_noise_is_new_in_each_action_of_training_and_absent_from_evaluations(agents: Any) -> None:
    noisy = agents.make_agent(options("QLearning", noisy=True, noisy_std=50.0), settings())
    observation = noisy.observation_space.sample()
    values = lambda: noisy.q_net(torch.as_tensor(observation)[None])  # noqa: E731
    with agents.learning(noisy):
        noisy.exploration_rate = 0.0
        first = values()
        noisy.predict(observation)
        assert not torch.equal(values(), first)
    plain = values()
    noisy.predict(observation, deterministic=True)
    assert torch.equal(values(), plain)


@pytest.mark.parametrize(
    "agent",
    [
        options("Categorical"),
        options("ImplicitQuantile", "MunchausenTarget"),
        options("Quantile", noisy=True),
        options("QLearning", "SomeTarget"),
    ],
)
def test_what_is_not_here_is_rejected(agents: Any, agent: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="with"):
        agents.make_agent(agent, settings())
