"""Known mistakes of DQN implementations, numbered as in docs/pitfalls.md: updates and when they happen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dqn_runner import DQNAgent, DQNConfig, UserError
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.learner import UPDATE_METRICS, HyperParameters, make_update
from dqn_runner.agent.losses.q_learning import QLearning, TDError
from dqn_runner.agent.losses.targets import DoubleTarget, MaxTarget
from dqn_runner.agent.networks.architectures import Custom, Mlp
from dqn_runner.agent.optimizers import Adam
from dqn_runner.agent.schedules import Linear
from dqn_runner.core.rng import stream
from dqn_runner.core.types import Batch, EnvSpec, Transition
from dqn_runner.replay.uniform import UniformReplay
from tests.support.diary import GAMMA, Diaries, RecordingExploration, StepRecord, make_trainer, train

pytestmark = pytest.mark.usefixtures("no_curves")

one_env_and_several = pytest.mark.parametrize("num_envs", [1, 3])


# 7 and 8: the target network


def target_updates(run_dir: Path, num_envs: int, max_steps: int, **settings: Any) -> list[int]:
    """The env step of each update of the target network; several updates at a step repeat it."""
    trainer = make_trainer(run_dir, Diaries(num_envs), max_steps, learning_starts=1, **settings)
    steps: list[int] = []
    sync = trainer.agent.sync_target

    def record_sync(times: int) -> None:
        steps.extend([trainer.step] * times)
        sync(times)

    trainer.agent.sync_target = record_sync
    trainer.train()
    return steps


@pytest.mark.parametrize("num_envs", [1, 2, 4])
@pytest.mark.parametrize("gradient_steps", [1, 3])
def test_pitfall_07_target_update_every_counts_env_steps(
    num_envs: int, gradient_steps: int, tmp_path: Path
) -> None:
    """Not gradient updates, and not steps of the vector environment."""
    found = target_updates(
        tmp_path,
        num_envs,
        100,
        target_update_every=20,
        train_every=1,
        gradient_steps=gradient_steps,
    )
    assert found == [20, 40, 60, 80, 100]


@pytest.mark.parametrize(
    ("num_envs", "train_every", "expected"),
    [
        (1, 1, [25, 50, 75, 100]),
        (1, 10, [30, 50, 80, 100]),
        (1, 7, [28, 56, 77, 100]),
        (4, 1, [28, 52, 76, 100]),
        (4, 10, [32, 52, 80, 100]),
    ],
)
def test_pitfall_08_target_updates_do_not_wait_for_a_common_multiple_of_the_periods(
    num_envs: int, train_every: int, expected: list[int], tmp_path: Path
) -> None:
    """One update every 25 env steps, at the next training iteration if none is due at that step."""
    found = target_updates(tmp_path, num_envs, 100, target_update_every=25, train_every=train_every)
    assert found == expected


@pytest.mark.parametrize("num_envs", [1, 3, 4])
@pytest.mark.parametrize("train_every", [1, 16])
@pytest.mark.parametrize("target_update_every", [1, 2, 24])
def test_pitfall_08_soft_target_updates_per_env_step_do_not_depend_on_train_every(
    target_update_every: int, train_every: int, num_envs: int, tmp_path: Path
) -> None:
    """Also if several target updates are due between two training iterations."""
    tau, steps = 0.05, 96
    settings = {"tau": tau, "target_update_every": target_update_every, "train_every": train_every}
    trainer = make_trainer(
        tmp_path, Diaries(num_envs), steps, learning_starts=1, learning_rate=1e-30, **settings
    )
    learner = trainer.agent.learner
    learner.target.add_(1.0)
    trainer.train()
    assert learner.updates > 0
    distance = learner.target - learner.online
    expected = (1 - tau) ** (steps // target_update_every)
    assert_close(distance, torch.full_like(distance, expected), rtol=0, atol=1e-5)


def test_pitfall_08b_a_target_update_copies_all_that_the_network_learns() -> None:
    """Running statistics, which a copy of the parameters would miss, are rejected."""
    agent = DQNAgent(DQNConfig(state_dim=3, action_dim=2, network=Mlp(hidden=[8], layer_norm=True)))
    agent.learner.online.add_(1.0)
    agent.sync_target(1)
    obs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert_close(
        agent.network(agent.learner.target_params, obs), agent.network(agent.learner.online_params, obs)
    )
    batch_norm = Custom(target=f"{__name__}:batch_norm_network")
    with pytest.raises(UserError, match="keeps running statistics"):
        DQNAgent(DQNConfig(state_dim=3, action_dim=2, network=batch_norm))


def batch_norm_network(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.BatchNorm1d(8), nn.Linear(8, num_outputs))


# 9 and 23: exploration and warm-up


@pytest.mark.parametrize(("num_envs", "train_every", "gradient_steps"), [(1, 1, 1), (1, 5, 2), (4, 5, 2)])
def test_pitfall_09_epsilon_depends_on_env_steps(
    num_envs: int, train_every: int, gradient_steps: int, tmp_path: Path
) -> None:
    exploration = RecordingExploration()
    train(
        tmp_path,
        Diaries(num_envs),
        40,
        exploration=exploration,
        train_every=train_every,
        gradient_steps=gradient_steps,
    )
    assert exploration.steps == list(range(8, 40, num_envs))


def test_pitfall_09_a_larger_budget_does_not_change_exploration(tmp_path: Path) -> None:
    """Schedules are in absolute env steps."""
    steps: list[list[StepRecord]] = []
    for max_steps in (60, 120):
        envs = Diaries()
        exploration = EpsilonGreedy(schedule=Linear(steps=50))
        train(tmp_path / str(max_steps), envs, max_steps, exploration=exploration)
        steps.append(envs.training[0].steps)
    assert steps[1][:60] == steps[0]


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize(
    ("learning_starts", "train_every", "expected"),
    [(8, 4, [8, 12, 16, 20]), (9, 4, [12, 16, 20]), (12, 4, [12, 16, 20]), (0, 4, [4, 8, 12, 16, 20])],
)
def test_pitfall_23_learning_and_the_policy_start_at_learning_starts(
    learning_starts: int, train_every: int, expected: list[int], num_envs: int, tmp_path: Path
) -> None:
    """Before it, actions are uniformly random and the network is not evaluated."""
    exploration = RecordingExploration(epsilon=0.0)
    trainer = make_trainer(
        tmp_path,
        Diaries(num_envs),
        20,
        learning_starts=learning_starts,
        train_every=train_every,
        exploration=exploration,
    )
    agent = trainer.agent
    updates: list[int] = []
    evaluated: list[Any] = []
    learn, q_values = agent.learn, agent.q_values

    def record_learn(batch: Batch, step: int) -> Any:
        assert step == trainer.step
        updates.append(step)
        return learn(batch, step)

    def record_q_values(obs: Any, noise: Any) -> Any:
        evaluated.append(obs)
        return q_values(obs, noise)

    agent.learn, agent.q_values = record_learn, record_q_values
    agent.greedy = lambda obs: np.zeros(len(obs), np.int64)  # the final evaluation must not call q_values
    trainer.train()
    assert updates == expected
    policy_steps = [step for step in range(0, 20, num_envs) if step >= learning_starts]
    assert exploration.steps == policy_steps
    assert len(evaluated) == len(policy_steps)


@one_env_and_several
def test_pitfall_23_warm_up_actions_are_uniformly_random(num_envs: int, tmp_path: Path) -> None:
    envs = Diaries(num_envs)
    train(tmp_path, envs, 1800, learning_starts=1500, exploration=RecordingExploration(epsilon=0.0))
    for diary in envs.training:
        warm_up = [step.action for step in diary.steps[: 1500 // num_envs]]
        assert np.mean(warm_up) == pytest.approx(0.5, abs=4 * 0.5 / len(warm_up) ** 0.5)


# 12, 13, 14, 16 and 21: the loss


def q_learning_gradient(loss: QLearning, reward: float) -> float:
    """d loss / d Q of a transition to a terminal state, at Q = 0."""
    q = torch.zeros(1, 2, requires_grad=True)
    obs = torch.zeros(1, 1)
    transition = Transition(obs, torch.tensor([0]), torch.tensor([reward]), torch.zeros(1), obs)
    loss(lambda _: q, lambda _: q.detach(), transition).loss.sum().backward()
    assert q.grad is not None
    return q.grad[0, 0].item()


def test_pitfall_12_large_td_errors_have_a_gradient_of_one_not_zero() -> None:
    assert [q_learning_gradient(QLearning(), r) for r in (100.0, 1.0, 0.25, -0.25, -100.0)] == [
        -1.0,
        -1.0,
        -0.25,
        0.25,
        1.0,
    ]
    assert q_learning_gradient(QLearning(error=TDError.squared), 100.0) == -200.0


def test_pitfall_13_the_loss_is_the_mean_over_the_batch() -> None:
    """A batch that holds each transition twice gives the same update, with the weights of the replay."""
    config = DQNConfig(state_dim=3, action_dim=2, network=Mlp(hidden=[8]), max_grad_norm=None)
    once, twice = DQNAgent(config), DQNAgent(config)
    rng = stream(0, "test")
    obs, next_obs = (torch.from_numpy(rng.normal(size=(4, 3)).astype(np.float32)) for _ in range(2))
    transition = Transition(
        obs, torch.tensor([0, 1, 1, 0]), torch.arange(4.0), torch.full((4,), GAMMA), next_obs
    )
    doubled = Transition(*(torch.cat([column, column]) for column in transition.columns()))
    replay = UniformReplay().build(EnvSpec((3,), 2), 1, GAMMA, 1, stream(0, "replay"))
    replay.add(0, np.zeros(3, np.float32), 0, 0.0, False, False, np.zeros(3, np.float32))
    _, info = once.learn(Batch(transition, np.arange(4), replay.sample(4, 0).weight), 0)
    _, info_twice = twice.learn(Batch(doubled, np.arange(8), replay.sample(8, 0).weight), 0)
    assert_close(info_twice, info)
    assert once.learner.moments["first"].any()
    assert_close(once.learner.moments["first"], twice.learner.moments["first"])
    td_target = transition.reward + GAMMA * target_values(once, next_obs).amax(-1)
    q = target_values(once, obs)[torch.arange(4), transition.action]
    expected = torch.nn.functional.smooth_l1_loss(q, td_target)
    assert info[UPDATE_METRICS.index("loss")].item() == pytest.approx(expected.item(), rel=1e-5)


def target_values(agent: DQNAgent, obs: torch.Tensor) -> torch.Tensor:
    """Action values of the target network, which is the initial network until its first update."""
    return agent.network(agent.learner.target_params, obs)


@pytest.mark.parametrize("reward", [-3.0, -0.5, 0.0, 1.0, 7.0])
def test_pitfall_14_the_huber_loss_has_a_threshold_of_one(reward: float) -> None:
    """As in Mnih et al. 2015; only then huber_loss and smooth_l1_loss of torch are equal."""
    q = torch.zeros(1, 2)
    obs = torch.zeros(1, 1)
    transition = Transition(obs, torch.tensor([0]), torch.tensor([reward]), torch.zeros(1), obs)
    expected = torch.nn.functional.smooth_l1_loss(torch.zeros(1), torch.tensor([reward]), reduction="none")
    assert_close(QLearning()(lambda _: q, lambda _: q, transition).loss, expected)


def test_pitfall_16_double_dqn_selects_with_the_online_and_evaluates_with_the_target_network(
    tmp_path: Path,
) -> None:
    trainer = train(tmp_path, Diaries(), 40)
    agent, batch = trainer.agent, trainer.replay.sample(64, 0)
    obs, action, reward, discount, next_obs = batch.transition.columns()
    learner = agent.learner
    learner.target.copy_(learner.online)
    for head in learner.target_params[-2:]:
        head.copy_(head.flip(0))  # swaps the values of the two actions in the target network
    best = agent.network(learner.online_params, next_obs).argmax(-1)
    next_values = agent.network(learner.target_params, next_obs)
    assert (best != next_values.argmax(-1)).all()
    q = agent.network(learner.online_params, obs)[torch.arange(64), action]
    delta = reward + discount * next_values[torch.arange(64), best] - q
    priority, _ = make_update(agent.network, QLearning(target=DoubleTarget()), Adam())(
        learner, batch.transition, batch.weight, HyperParameters(0.0, None)
    )
    assert_close(priority, delta.abs())


@one_env_and_several
@pytest.mark.parametrize("double", [False, True])
def test_pitfall_21_batches_and_losses_have_one_number_per_transition(
    double: bool, num_envs: int, tmp_path: Path
) -> None:
    """A shape of (batch, 1) would broadcast with one of (batch,)."""
    trainer = train(tmp_path, Diaries(num_envs), 40, n_step=2)
    batch = trainer.replay.sample(5, 0)
    learner = trainer.agent.learner
    online, target = (
        lambda obs, p=p: trainer.agent.network(p, obs) for p in (learner.online_params, learner.target_params)
    )
    output = QLearning(target=DoubleTarget() if double else MaxTarget())(online, target, batch.transition)
    assert [column.shape for column in batch.transition.columns()] == [(5, 3), (5,), (5,), (5,), (5, 3)]
    assert {value.shape for value in (*output, batch.weight)} == {(5,)}


# 24: updates per env step


def update_steps(run_dir: Path, num_envs: int, **settings: Any) -> list[int]:
    """The env step of each update in a run of 120 env steps."""
    trainer = make_trainer(run_dir, Diaries(num_envs), 120, **settings)
    steps: list[int] = []
    learn = trainer.agent.learn

    def record_learn(batch: Batch, step: int) -> Any:
        steps.append(trainer.step)
        return learn(batch, step)

    trainer.agent.learn = record_learn
    trainer.train()
    assert trainer.agent.learner.updates == len(steps)
    return steps


@pytest.mark.parametrize("num_envs", [1, 3, 4])
@pytest.mark.parametrize(
    ("train_every", "gradient_steps"), [(1, 1), (1, 2), (2, 1), (4, 1), (4, 3), (6, 1), (12, 12)]
)
def test_pitfall_24_updates_per_env_step_do_not_depend_on_num_envs(
    train_every: int, gradient_steps: int, num_envs: int, tmp_path: Path
) -> None:
    steps = update_steps(
        tmp_path,
        num_envs,
        learning_starts=24,
        train_every=train_every,
        gradient_steps=gradient_steps,
    )
    assert sum(48 < step <= 120 for step in steps) == 72 // train_every * gradient_steps


@pytest.mark.parametrize("train_every", [1, 2, 4, 6])
@pytest.mark.parametrize("num_envs", [3, 4])
def test_pitfall_24_updates_of_the_warm_up_are_not_made_later(
    num_envs: int, train_every: int, tmp_path: Path
) -> None:
    steps = update_steps(tmp_path, num_envs, learning_starts=24, train_every=train_every)
    assert steps.count(24) == 1


def test_pitfall_24_updates_are_spread_evenly_over_env_steps(tmp_path: Path) -> None:
    found = update_steps(tmp_path, 1, learning_starts=100, train_every=5, gradient_steps=2)
    assert found == [100, 100, 105, 105, 110, 110, 115, 115, 120, 120]


def test_pitfall_24_updates_due_within_one_vector_step_follow_it(tmp_path: Path) -> None:
    found = update_steps(tmp_path, 4, learning_starts=100, train_every=6)
    assert found == [104, 108, 116, 120]
