"""Runs begin, and are scored, as those of stable-baselines3: what test_peer_loop.py does not compare."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from dqn_runner import DQNAgent, DQNConfig
from dqn_runner.agent.networks.architectures import Mlp
from dqn_runner.core.rng import eval_seeds, seed_for
from dqn_runner.core.types import Array
from dqn_runner.envs.gym import GymEnv
from dqn_runner.envs.make_workers import make_worker
from dqn_runner.envs.vector_env import VectorEnv
from dqn_runner.training.evaluator import Evaluator

pytestmark = pytest.mark.slow  # stable-baselines3 takes seconds to import
HIDDEN = [64, 48]
EPISODES = 300


def lander() -> Any:
    return gymnasium.make("LunarLander-v3")


def same_distribution(ours: Array, theirs: Array) -> bool:
    """Whether a two-sample test finds no difference; the samples are the same in every run of the tests."""
    from scipy import stats  # late: its import takes a second

    test: Any = stats.ks_2samp(ours, theirs)
    return len(ours) == len(theirs) and test.pvalue > 0.01


def test_initial_weights_have_the_distribution_of_those_of_stable_baselines3() -> None:
    from stable_baselines3 import DQN

    agent = DQNAgent(DQNConfig(state_dim=8, action_dim=4, seed=1, network=Mlp(hidden=HIDDEN)))
    theirs = DQN("MlpPolicy", lander(), policy_kwargs={"net_arch": HIDDEN}, seed=1, device="cpu")
    views = agent.network.views(agent.learner.online)
    for mine, other in zip(views, theirs.q_net.parameters(), strict=True):
        assert same_distribution(mine.flatten().numpy(), other.detach().flatten().numpy())
    assert torch.equal(agent.learner.online, agent.learner.target)


def test_training_episodes_start_as_those_of_an_environment_that_is_seeded_once() -> None:
    worker = make_worker(GymEnv(id="LunarLander-v3"), 1, 0)
    envs = VectorEnv([worker], lambda env, episode: seed_for(1, "env", env, episode), 1)
    starts: list[Array] = []
    for _ in range(EPISODES):
        starts.append(envs.obs[0].copy())
        envs.step([0])  # truncated, since episodes have at most one step
    env = lander()
    env.reset(seed=1)
    others = np.array([env.reset()[0] for _ in range(EPISODES)])
    ours = np.array(starts)
    assert len(np.unique(ours, axis=0)) == EPISODES
    for column in range(ours.shape[1]):
        assert same_distribution(ours[:, column], others[:, column])


def test_evaluation_of_a_policy_of_stable_baselines3_gives_its_returns() -> None:
    from stable_baselines3 import DQN

    model = DQN("MlpPolicy", lander(), policy_kwargs={"net_arch": HIDDEN}, seed=1, device="cpu")
    seeds, env = eval_seeds("test"), lander()

    def act(obs: Array) -> Array:
        return np.asarray(model.predict(obs, deterministic=True)[0])

    returns: list[float] = []
    for episode in range(2):
        obs, _ = env.reset(seed=seeds(episode))
        total, ended = 0.0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(int(act(obs)))
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    evaluator = Evaluator(lander(), seeds, 1_000)
    assert evaluator.run(act, 2).returns == returns
