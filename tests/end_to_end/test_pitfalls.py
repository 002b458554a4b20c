"""Mistakes that DQN code is known to make, numbered as in the project's checklist; one group of tests each.

Most of them run the real trainer on an environment that writes a diary: its observations tell which copy,
episode and time step they come from, so that every remembered transition can be traced back.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.learner import UPDATE_METRICS, HyperParameters, make_update
from dqn_runner.agent.losses.q_learning import QLearning, TDError
from dqn_runner.agent.losses.targets import DoubleTarget, MaxTarget
from dqn_runner.agent.networks.architectures import Mlp
from dqn_runner.agent.optimizers import Adam
from dqn_runner.agent.schedules import Constant, Linear
from dqn_runner.config.build import build_trainer
from dqn_runner.core.rng import stream
from dqn_runner.core.types import Batch, EnvSpec, FloatArray, IntArray, Transition
from dqn_runner.replay.uniform import UniformReplay
from dqn_runner.run import plots
from dqn_runner.training.config import FrequencyUnit
from tests.support.probes import agent_options, compose_run

GAMMA = 0.5
NEVER = 10**9


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)


# An environment with a diary


class Moment(NamedTuple):
    """One step of a Diary, or one transition that a replay remembers."""

    obs: list[float]
    action: int
    reward: float
    discount: float
    next_obs: list[float]

    @property
    def episode(self) -> list[float]:
        """Which copy's which episode it starts in."""
        return self.obs[:2]

    @property
    def length(self) -> int:
        """Time steps from `obs` to `next_obs`."""
        return int(self.next_obs[2] - self.obs[2])


class Diary(gymnasium.Env[Any, Any]):
    """Observes (copy, episode, time); step t gives reward t+1; episodes last 3, 5, 4, 3, … steps."""

    observation_space = gymnasium.spaces.Box(0, 1e6, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    LENGTHS = (3, 5, 4)

    def __init__(self, copy: int, ends: tuple[str, ...]) -> None:
        """`ends` says, episode by episode, what ends it: terminated, truncated, both or never."""
        self.copy = copy
        self.ends = ends
        self.episode = -1
        self.time = 0
        self.seeds: list[int | None] = []
        self.moments: list[Moment] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.episode, self.time = self.episode + 1, 0
        return self._obs(), {}

    def step(self, action: Any) -> Any:
        obs = self._obs()
        self.time += 1
        end = self.ends[self.episode % len(self.ends)]
        over = self.time == self.LENGTHS[self.episode % len(self.LENGTHS)] and end != "never"
        terminated, truncated = (over and end in (name, "both") for name in ("terminated", "truncated"))
        discount = 0.0 if terminated else GAMMA
        next_obs = self._obs()
        self.moments.append(Moment(obs.tolist(), int(action), float(self.time), discount, next_obs.tolist()))
        return next_obs, float(self.time), terminated, truncated, {}

    def _obs(self) -> FloatArray:
        return np.array([self.copy, self.episode, self.time], np.float32)


@dataclass
class Copies:
    """An env part that makes diaries and keeps them; the trainer makes the evaluation env last."""

    num_envs: int = 1
    ends: tuple[str, ...] = ("terminated", "truncated")
    made: list[Diary] = field(default_factory=list[Diary])

    def learning_reward(self, reward: float) -> float:
        return reward

    def make(self, training: bool = True, render: bool = False) -> Diary:
        self.made.append(Diary(len(self.made), self.ends))
        return self.made[-1]

    @property
    def training(self) -> list[Diary]:
        return self.made[: self.num_envs]

    @property
    def evaluation(self) -> Diary:
        return self.made[self.num_envs]


class SpyExploration(EpsilonGreedy):
    """Epsilon-greedy that writes down the env steps at which it was asked."""

    def __init__(self, epsilon: float = 0.5) -> None:
        super().__init__(schedule=Constant(value=epsilon))
        self.steps: list[int] = []

    def __call__(
        self, q_values: Any, shape: tuple[int, int], step: int, rng: np.random.Generator
    ) -> IntArray:
        self.steps.append(step)
        return super().__call__(q_values, shape, step, rng)


def make_trainer(run_dir: Path, envs: Copies, max_steps: int, **settings: Any) -> Trainer:
    """A trainer that only trains; `settings` of the trainer go to it, the others to the agent."""
    course = {"eval_frequency": NEVER, "log_frequency": NEVER, "checkpoint_frequency": NEVER}
    course |= {name: settings.pop(name) for name in list(settings) if hasattr(TrainingConfig, name)}
    agent = {
        "gamma": GAMMA,
        "learning_starts": 8,
        "batch_size": 4,
        "network": Mlp(hidden=[8]),
        "exploration": SpyExploration(),
        **settings,
    }
    config = TrainingConfig(
        frequency_unit=FrequencyUnit.steps, max_episodes=None, max_steps=max_steps, **course
    )
    return Trainer(DQNAgent(DQNConfig(state_dim=3, action_dim=2, **agent)), envs, config, run_dir, loggers={})


def trained(run_dir: Path, envs: Copies, max_steps: int, **settings: Any) -> Trainer:
    trainer = make_trainer(run_dir, envs, max_steps, **settings)
    trainer.train()
    return trainer


def remembered(trainer: Trainer) -> list[Moment]:
    """What the replay holds, in the order of its rows."""
    columns = trainer.replay.state_dict()["rows"].all()
    names = Moment._fields
    return [Moment(*row) for row in zip(*(columns[name].tolist() for name in names), strict=True)]


ENVS = pytest.mark.parametrize("num_envs", [1, 3])


# 1


def test_01_truncation_still_bootstraps(tmp_path: Path) -> None:
    envs = Copies(ends=("terminated", "truncated", "both"))
    moments = remembered(trained(tmp_path, envs, 100))
    assert [m.discount for m in moments] == [m.discount for m in envs.training[0].moments]
    last = [now for now, then in itertools.pairwise(moments) if now.episode != then.episode]
    assert [m.discount for m in last[:6]] == [0.0, GAMMA, 0.0, 0.0, GAMMA, 0.0]


def test_01_the_time_limit_of_the_trainer_is_a_truncation_too(tmp_path: Path) -> None:
    moments = remembered(trained(tmp_path, Copies(ends=("never",)), 40, max_steps_per_episode=4))
    assert [m.obs[2] for m in moments] == [0, 1, 2, 3] * 10
    assert [m.discount for m in moments] == [GAMMA] * 40


def test_01_the_time_limit_does_not_hide_a_termination(tmp_path: Path) -> None:
    moments = remembered(trained(tmp_path, Copies(ends=("terminated",)), 36, max_steps_per_episode=3))
    assert [m.discount for m in moments] == [GAMMA, GAMMA, 0.0, *[GAMMA] * 6] * 4


class Endless(gymnasium.Env[Any, Any]):
    """Reward 1 for ever."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.ones(1, np.float32), 1.0, False, False, {}


def test_01_an_endless_task_cut_into_episodes_has_the_value_of_an_endless_task(tmp_path: Path) -> None:
    agent = DQNAgent(
        DQNConfig(
            state_dim=1,
            action_dim=2,
            gamma=GAMMA,
            learning_rate=0.01,
            learning_starts=32,
            batch_size=32,
            train_every=1,
            target_update_every=20,
            network=Mlp(hidden=[16]),
        )
    )
    config = TrainingConfig(max_episodes=150, max_steps_per_episode=2, eval_frequency=NEVER)
    Trainer(agent, Endless(), config, tmp_path, loggers={}).train()
    assert agent.q_values(np.ones((1, 1), np.float32))[0] == pytest.approx(1 / (1 - GAMMA), abs=0.05)


# 2, 3


@ENVS
@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_02_the_successor_at_an_end_is_the_final_observation(num_envs: int, end: str, tmp_path: Path) -> None:
    for moment in remembered(trained(tmp_path, Copies(num_envs, (end,)), 60)):
        copy, episode, now = moment.obs
        assert moment.next_obs == [copy, episode, now + 1]


@ENVS
def test_03_every_env_step_is_one_transition_and_nothing_else_is(num_envs: int, tmp_path: Path) -> None:
    """No ghost step between episodes, none lost; the action stored is the one that was taken."""
    envs = Copies(num_envs)
    trainer = trained(tmp_path, envs, 60)
    assert trainer.step == 60
    by_turns = zip(*(diary.moments for diary in envs.training), strict=True)
    assert remembered(trainer) == [moment for turn in by_turns for moment in turn]


@ENVS
def test_03_every_episode_starts_at_its_reset_observation(num_envs: int, tmp_path: Path) -> None:
    envs = Copies(num_envs)
    trainer = trained(tmp_path, envs, 66)
    starts = [m.episode for m in remembered(trainer) if m.obs[2] == 0]
    assert sorted(starts) == sorted([d.copy, e] for d in envs.training for e in range(d.episode + 1))
    lengths = sorted(trainer.metrics.episodes["length"])
    assert lengths == sorted(Diary.LENGTHS[e % 3] for d in envs.training for e in range(d.episode))


# 4, 15


def assert_genuine(moment: Moment, n_step: int, ends: tuple[str, ...]) -> None:
    """A window of rewards t+1, t+2, … that lies within one episode."""
    copy, episode, start = moment.obs
    assert moment.next_obs[:2] == [copy, episode]
    k, last = moment.length, moment.next_obs[2]
    at_end = last == Diary.LENGTHS[int(episode) % 3]
    assert k == n_step or (at_end and 1 <= k < n_step)
    assert moment.reward == sum(GAMMA**i * (start + i + 1) for i in range(k))
    terminated = at_end and ends[int(episode) % len(ends)] != "truncated"
    assert moment.discount == (0.0 if terminated else GAMMA**k)


@ENVS
@pytest.mark.parametrize("ends", [("terminated", "truncated"), ("truncated",), ("terminated",)])
@pytest.mark.parametrize("n_step", [2, 3, 7])
def test_04_windows_end_with_their_episode_and_discount_by_their_length(
    n_step: int, ends: tuple[str, ...], num_envs: int, tmp_path: Path
) -> None:
    for moment in remembered(trained(tmp_path, Copies(num_envs, ends), 60, n_step=n_step)):
        assert_genuine(moment, n_step, ends)


@ENVS
@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_04b_the_last_states_of_an_episode_are_remembered(num_envs: int, end: str, tmp_path: Path) -> None:
    """Each step of a finished episode starts one window, also the shorter ones at its end."""
    envs = Copies(num_envs, (end,))
    moments = remembered(trained(tmp_path, envs, 60, n_step=3))
    for diary in envs.training:
        for episode in range(diary.episode):
            starts = [m.obs[2] for m in moments if m.episode == [diary.copy, episode]]
            assert starts == list(range(Diary.LENGTHS[episode % 3]))


@pytest.mark.parametrize("capacity", [8, 11])
@pytest.mark.parametrize("n_step", [1, 3])
def test_15_a_memory_that_wrapped_holds_whole_transitions(n_step: int, capacity: int, tmp_path: Path) -> None:
    envs = Copies(2)
    trainer = trained(tmp_path, envs, 90, n_step=n_step, replay=UniformReplay(capacity=capacity))
    moments = remembered(trainer)
    assert len(moments) == capacity
    assert len({tuple(m.obs) for m in moments}) == capacity
    for moment in moments:
        assert_genuine(moment, n_step, envs.ends)


# 7, 8


def target_updates(run_dir: Path, num_envs: int, max_steps: int, **settings: Any) -> list[int]:
    """The env steps at which the target network moved; more than once if it moved so many times."""
    trainer = make_trainer(run_dir, Copies(num_envs), max_steps, learning_starts=1, **settings)
    steps: list[int] = []
    sync = trainer.agent.sync_target

    def spy(times: int) -> None:
        steps.extend([trainer.step] * times)
        sync(times)

    trainer.agent.sync_target = spy
    trainer.train()
    return steps


@pytest.mark.parametrize("num_envs", [1, 2, 4])
@pytest.mark.parametrize("gradient_steps", [1, 3])
def test_07_the_target_period_counts_env_steps(num_envs: int, gradient_steps: int, tmp_path: Path) -> None:
    """Not updates, and not steps of the batch of environments."""
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
def test_08_target_updates_need_no_coincidence_with_rounds_of_learning(
    num_envs: int, train_every: int, expected: list[int], tmp_path: Path
) -> None:
    """One target update every 25 env steps, at the next round where the periods do not meet."""
    found = target_updates(tmp_path, num_envs, 100, target_update_every=25, train_every=train_every)
    assert found == expected


@pytest.mark.parametrize("num_envs", [1, 3, 4])
@pytest.mark.parametrize("train_every", [1, 16])
@pytest.mark.parametrize("target_update_every", [1, 2, 24])
def test_08_a_soft_target_moves_as_far_per_env_step_whatever_the_rounds(
    target_update_every: int, train_every: int, num_envs: int, tmp_path: Path
) -> None:
    """Also when its period passes several times from one round of learning to the next."""
    tau, steps = 0.05, 96
    settings = {"tau": tau, "target_update_every": target_update_every, "train_every": train_every}
    trainer = make_trainer(
        tmp_path, Copies(num_envs), steps, learning_starts=1, learning_rate=0.0, **settings
    )
    learner = trainer.agent.learner
    learner.target.add_(1.0)
    trainer.train()
    assert learner.updates > 0
    distance = learner.target - learner.online
    expected = (1 - tau) ** (steps // target_update_every)
    assert_close(distance, torch.full_like(distance, expected), rtol=0, atol=1e-5)


# 9, 23


@pytest.mark.parametrize(("num_envs", "train_every", "gradient_steps"), [(1, 1, 1), (1, 5, 2), (4, 5, 2)])
def test_09_epsilon_is_asked_for_env_steps(
    num_envs: int, train_every: int, gradient_steps: int, tmp_path: Path
) -> None:
    exploration = SpyExploration()
    trained(
        tmp_path,
        Copies(num_envs),
        40,
        exploration=exploration,
        train_every=train_every,
        gradient_steps=gradient_steps,
    )
    assert exploration.steps == list(range(8, 40, num_envs))


def test_09_a_longer_run_explores_in_the_same_way(tmp_path: Path) -> None:
    """Schedules are in absolute steps, so that the budget does not change what happens within it."""
    moments: list[list[Moment]] = []
    for max_steps in (60, 120):
        envs = Copies()
        exploration = EpsilonGreedy(schedule=Linear(steps=50))
        trained(tmp_path / str(max_steps), envs, max_steps, exploration=exploration)
        moments.append(envs.training[0].moments)
    assert moments[1][:60] == moments[0]


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize(
    ("learning_starts", "train_every", "expected"),
    [(8, 4, [8, 12, 16, 20]), (9, 4, [12, 16, 20]), (12, 4, [12, 16, 20]), (0, 4, [4, 8, 12, 16, 20])],
)
def test_23_learning_and_the_policy_start_at_learning_starts(
    learning_starts: int, train_every: int, expected: list[int], num_envs: int, tmp_path: Path
) -> None:
    """Before it every action is uniformly random and costs no network evaluation."""
    exploration = SpyExploration(epsilon=0.0)
    trainer = make_trainer(
        tmp_path,
        Copies(num_envs),
        20,
        learning_starts=learning_starts,
        train_every=train_every,
        exploration=exploration,
    )
    agent = trainer.agent
    learned: list[int] = []
    valued: list[Any] = []
    learn, q_values = agent.learn, agent.q_values

    def spy_learn(batch: Batch, step: int) -> Any:
        assert step == trainer.step
        learned.append(step)
        return learn(batch, step)

    def spy_q_values(obs: Any, noise: Any) -> Any:
        valued.append(obs)
        return q_values(obs, noise)

    agent.learn, agent.q_values = spy_learn, spy_q_values
    agent.greedy = lambda obs: np.zeros(len(obs), np.int64)  # the evaluation at the end values nothing
    trainer.train()
    assert learned == expected
    policy_steps = [step for step in range(0, 20, num_envs) if step >= learning_starts]
    assert exploration.steps == policy_steps
    assert len(valued) == len(policy_steps)


@ENVS
def test_23_warm_up_actions_are_uniform(num_envs: int, tmp_path: Path) -> None:
    envs = Copies(num_envs)
    trained(tmp_path, envs, 1800, learning_starts=1500, exploration=SpyExploration(epsilon=0.0))
    for diary in envs.training:
        warm_up = [m.action for m in diary.moments[: 1500 // num_envs]]
        assert np.mean(warm_up) == pytest.approx(0.5, abs=4 * 0.5 / len(warm_up) ** 0.5)


# 10, 11


@ENVS
def test_10_returns_are_plain_sums_of_rewards(num_envs: int, tmp_path: Path) -> None:
    """Undiscounted, and from the first step of an episode to its last, in training and evaluation."""
    envs = Copies(num_envs)
    metrics = trained(tmp_path, envs, 60, n_step=3, eval_frequency=30, eval_episodes=3).metrics
    per_length = dict(zip(metrics.episodes["length"], metrics.episodes["return"], strict=True))
    assert per_length == {3: 1 + 2 + 3, 4: 1 + 2 + 3 + 4, 5: 1 + 2 + 3 + 4 + 5}
    assert metrics.eval["returns"] == [[6, 15, 10]] * 2


def test_11_evaluation_is_greedy_on_the_same_episodes_each_time(tmp_path: Path) -> None:
    envs = Copies()
    trainer = make_trainer(
        tmp_path, envs, 60, exploration=SpyExploration(epsilon=1.0), eval_frequency=20, eval_episodes=3
    )
    greedy = trainer.agent.greedy
    chosen: list[int] = []

    def spy(obs: Any) -> IntArray:
        actions = greedy(obs)
        chosen.extend(actions.tolist())
        return actions

    trainer.agent.greedy = spy
    trainer.train()
    diary = envs.evaluation
    assert [m.action for m in diary.moments] == chosen
    assert len(diary.seeds) == 3 * 3
    assert diary.seeds[:3] == diary.seeds[3:6] == diary.seeds[6:]
    assert len(set(diary.seeds)) == 3
    assert not set(diary.seeds) & set(envs.training[0].seeds)


def test_11_evaluation_episodes_are_cut_like_training_episodes(tmp_path: Path) -> None:
    envs = Copies(ends=("never",))
    trainer = trained(tmp_path, envs, 20, max_steps_per_episode=6, eval_frequency=20, eval_episodes=2)
    assert trainer.metrics.eval["length_mean"] == [6.0]
    assert trainer.metrics.eval["returns"] == [[21.0, 21.0]]


@pytest.mark.parametrize("num_envs", [1, 3])
def test_11_evaluation_leaves_no_trace_in_training(num_envs: int, tmp_path: Path) -> None:
    def run(name: str, **settings: Any) -> tuple[Any, ...]:
        envs = Copies(num_envs)
        trainer = trained(tmp_path / name, envs, 120, early_stopping=False, **settings)
        return [d.moments for d in envs.training], trainer.agent.learner.online.tolist()

    never = run("never")
    assert run("often", eval_frequency=6, eval_episodes=7) == never
    assert run("sometimes", eval_frequency=50, eval_episodes=1) == never


# 12, 13, 14, 16, 21


def q_learning_gradient(loss: QLearning, reward: float) -> float:
    """d loss / d Q of a transition to a terminal state, from Q = 0."""
    q = torch.zeros(1, 2, requires_grad=True)
    obs = torch.zeros(1, 1)
    transition = Transition(obs, torch.tensor([0]), torch.tensor([reward]), torch.zeros(1), obs)
    loss(lambda _: q, lambda _: q.detach(), transition).loss.sum().backward()
    assert q.grad is not None
    return q.grad[0, 0].item()


def test_12_clipping_bounds_the_gradient_of_a_large_error_and_keeps_it() -> None:
    assert [q_learning_gradient(QLearning(), r) for r in (100.0, 1.0, 0.25, -0.25, -100.0)] == [
        -1.0,
        -1.0,
        -0.25,
        0.25,
        1.0,
    ]
    assert q_learning_gradient(QLearning(error=TDError.squared), 100.0) == -200.0


def test_13_the_loss_is_a_mean_over_the_batch() -> None:
    """A batch that holds everything twice takes the same step, with the weights that a replay gives."""
    config = DQNConfig(state_dim=3, action_dim=2, network=Mlp(hidden=[8]), max_grad_norm=None)
    once, twice = DQNAgent(config), DQNAgent(config)
    random_ = stream(0, "test")
    obs, next_obs = (torch.from_numpy(random_.normal(size=(4, 3)).astype(np.float32)) for _ in range(2))
    transition = Transition(
        obs, torch.tensor([0, 1, 1, 0]), torch.arange(4.0), torch.full((4,), GAMMA), next_obs
    )
    double = Transition(*(torch.cat([column, column]) for column in transition))
    replay = UniformReplay().build(EnvSpec((3,), 2), 1, GAMMA, 1, stream(0, "replay"))
    replay.add(0, np.zeros(3, np.float32), 0, 0.0, False, False, np.zeros(3, np.float32))
    _, info = once.learn(Batch(transition, np.arange(4), replay.sample(4, 0).weight), 0)
    _, info_twice = twice.learn(Batch(double, np.arange(8), replay.sample(8, 0).weight), 0)
    assert_close(info_twice, info)
    assert once.learner.moments["first"].any()
    assert_close(once.learner.moments["first"], twice.learner.moments["first"])
    td_target = transition.reward + GAMMA * target_values(once, next_obs).amax(-1)
    q = target_values(once, obs)[torch.arange(4), transition.action]
    expected = torch.nn.functional.smooth_l1_loss(q, td_target)
    assert info[UPDATE_METRICS.index("loss")].item() == pytest.approx(expected.item(), rel=1e-5)


def target_values(agent: DQNAgent, obs: torch.Tensor) -> torch.Tensor:
    """Action values by the target network, which before its first update is the initial network."""
    return agent.network(agent.learner.target_params, obs)


@pytest.mark.parametrize("reward", [-3.0, -0.5, 0.0, 1.0, 7.0])
def test_14_huber_is_that_of_the_nature_paper(reward: float) -> None:
    """With a threshold of 1, where torch's huber_loss and smooth_l1_loss are one."""
    q = torch.zeros(1, 2)
    obs = torch.zeros(1, 1)
    transition = Transition(obs, torch.tensor([0]), torch.tensor([reward]), torch.zeros(1), obs)
    expected = torch.nn.functional.smooth_l1_loss(torch.zeros(1), torch.tensor([reward]), reduction="none")
    assert_close(QLearning()(lambda _: q, lambda _: q, transition).loss, expected)


def test_16_double_dqn_chooses_online_and_values_with_the_target(tmp_path: Path) -> None:
    trainer = trained(tmp_path, Copies(), 40)
    agent, batch = trainer.agent, trainer.replay.sample(64, 0)
    obs, action, reward, discount, next_obs = batch.transition
    learner = agent.learner
    learner.target.copy_(learner.online)
    for head in learner.target_params[-2:]:
        head.copy_(head.flip(0))  # the target's values are those of the other action
    best = agent.network(learner.online_params, next_obs).argmax(-1)
    valued = agent.network(learner.target_params, next_obs)
    assert (best != valued.argmax(-1)).all()
    q = agent.network(learner.online_params, obs)[torch.arange(64), action]
    delta = reward + discount * valued[torch.arange(64), best] - q
    priority, _ = make_update(agent.network, QLearning(target=DoubleTarget()), Adam())(
        learner, batch.transition, batch.weight, HyperParameters(0.0, None)
    )
    assert_close(priority, delta.abs())


@ENVS
@pytest.mark.parametrize("double", [False, True])
def test_21_nothing_broadcasts(double: bool, num_envs: int, tmp_path: Path) -> None:
    trainer = trained(tmp_path, Copies(num_envs), 40, n_step=2)
    batch = trainer.replay.sample(5, 0)
    learner = trainer.agent.learner
    online, target = (
        lambda obs, p=p: trainer.agent.network(p, obs) for p in (learner.online_params, learner.target_params)
    )
    output = QLearning(target=DoubleTarget() if double else MaxTarget())(online, target, batch.transition)
    for name, column in batch.transition._asdict().items():
        assert column.shape == ((5, 3) if name.endswith("obs") else (5,)), name
    assert {value.shape for value in (*output, batch.weight)} == {(5,)}


# 22


def test_22_every_episode_of_every_environment_has_its_own_seed(tmp_path: Path) -> None:
    def seeds(name: str, seed: int) -> tuple[list[Any], list[Any]]:
        envs = Copies(num_envs=4)
        trained(tmp_path / name, envs, 200, seed=seed, eval_frequency=100)
        return [s for diary in envs.training for s in diary.seeds], envs.evaluation.seeds

    training, evaluation = seeds("first", seed=0)
    assert len(training) > 40
    assert None not in training
    assert len({*training, *evaluation}) == len(training) + len(set(evaluation))
    assert seeds("again", seed=0) == (training, evaluation)
    other_training, other_evaluation = seeds("other", seed=1)
    assert not set(training) & set(other_training)
    assert other_evaluation == evaluation  # results of different runs are compared on the same episodes


_POISONS = itertools.count(3)


class Poison(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Stirs every global generator at each step, as other code in the process may."""

    def step(self, action: Any) -> Any:
        poison(next(_POISONS))
        return super().step(action)


def poison(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


@pytest.fixture
def _kept_global_generators() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002


def cartpole(run_dir: Path, *overrides: str) -> list[str]:
    """The lines of metrics.jsonl of a short run, without the keys that tell the time."""
    settings = [
        "trainer=default",
        "trainer.max_episodes=16",
        "trainer.eval_frequency=5",
        "trainer.eval_episodes=2",
        "trainer.log_frequency=2",
        "agent.learning_starts=50",
        "agent.batch_size=16",
        "env.num_envs=2",
        "logging=jsonl",
    ]
    build_trainer(compose_run([*settings, *overrides]), run_dir, {}, None).train()
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert {record["kind"] for record in records} == {"episode", "train", "eval"}
    assert any("train/loss" in record for record in records)
    return [json.dumps({k: v for k, v in r.items() if not k.startswith("time/")}) for r in records]


@pytest.mark.usefixtures("_kept_global_generators")
@pytest.mark.parametrize("option", agent_options())
def test_22_a_run_depends_on_its_seed_alone(option: str, tmp_path: Path) -> None:
    """Not on the global generators of Python, numpy and torch, whatever happens to them meanwhile."""
    poisoned = f"env.wrappers=[{__name__}:Poison]"
    poison(1)
    first = cartpole(tmp_path / "first", f"agent={option}")
    poison(2)
    assert cartpole(tmp_path / "again", f"agent={option}", poisoned) == first
    assert cartpole(tmp_path / "other", f"agent={option}", "seed=1") != first


@pytest.mark.usefixtures("_kept_global_generators")
def test_22_a_run_leaves_the_global_generators_alone(tmp_path: Path) -> None:
    def states() -> tuple[Any, ...]:
        _, keys, *rest = np.random.get_state()  # noqa: NPY002
        return random.getstate(), keys.tolist(), rest, torch.get_rng_state().tolist()

    before = states()
    cartpole(tmp_path)
    assert states() == before


def test_22_a_run_does_not_depend_on_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    normal = cartpole(tmp_path / "normal")
    now = 0.0

    def leaping() -> float:
        nonlocal now
        now += 3600
        return now

    monkeypatch.setattr(time, "perf_counter", leaping)
    assert cartpole(tmp_path / "leaping") == normal


# 24


def update_steps(run_dir: Path, num_envs: int, **settings: Any) -> list[int]:
    """The env step of each update in a run of 120 env steps."""
    trainer = make_trainer(run_dir, Copies(num_envs), 120, **settings)
    steps: list[int] = []
    learn = trainer.agent.learn

    def spy(batch: Batch, step: int) -> Any:
        steps.append(trainer.step)
        return learn(batch, step)

    trainer.agent.learn = spy
    trainer.train()
    assert trainer.agent.learner.updates == len(steps)
    return steps


@pytest.mark.parametrize("num_envs", [1, 3, 4])
@pytest.mark.parametrize(
    ("train_every", "gradient_steps"), [(1, 1), (1, 2), (2, 1), (4, 1), (4, 3), (6, 1), (12, 12)]
)
def test_24_updates_per_env_step_do_not_depend_on_the_number_of_environments(
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
def test_24_rounds_of_the_warm_up_are_not_made_up_for(
    num_envs: int, train_every: int, tmp_path: Path
) -> None:
    steps = update_steps(tmp_path, num_envs, learning_starts=24, train_every=train_every)
    assert steps.count(24) == 1


def test_24_updates_are_spread_evenly_over_the_env_steps(tmp_path: Path) -> None:
    found = update_steps(tmp_path, 1, learning_starts=100, train_every=5, gradient_steps=2)
    assert found == [100, 100, 105, 105, 110, 110, 115, 115, 120, 120]


def test_24_several_environments_catch_up_at_once(tmp_path: Path) -> None:
    found = update_steps(tmp_path, 4, learning_starts=100, train_every=6)
    assert found == [104, 108, 116, 120]
