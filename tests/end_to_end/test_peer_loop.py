"""The whole loop of training equals that of stable-baselines3 on one stream of experience.

stable-baselines3 trains. After each of its rollouts, dqn_runner's collector, replay, learner and target
updates follow: they get what its environment returned, its actions and the indices that it sampled. This
covers what lies between single updates: the order of collecting, learning and target updates, when learning
starts, the ends of episodes, epsilon, and a replay that wraps around. Ours then takes their weights and
moments, so that rounding does not add up.

One difference is known: if a target update and updates are due in the same rollout, stable-baselines3 updates
the target network first, dqn_runner last (as Mnih et al. 2015, Algorithm 1). The target is then the online
network of one rollout later; `target_first` makes ours do as theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.networks.architectures import Mlp
from dqn_runner.agent.schedules import Linear
from dqn_runner.core.types import Array
from dqn_runner.replay.uniform import UniformReplay
from tests.support.recorded import Playback, Record

pytestmark = pytest.mark.slow  # stable-baselines3 takes seconds to import


@dataclass(kw_only=True)
class Settings:
    """Settings of both libraries."""

    steps: int
    """A multiple of `train_every`: they finish a rollout."""
    hidden: list[int]
    learning_starts: int
    train_every: int
    gradient_steps: int
    target_every: int
    capacity: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    explore: float = 0.5
    final_epsilon: float = 0.1
    target_first: bool = False
    """Whether ours updates the target network before the updates of a rollout."""


@dataclass
class Comparison:
    """What both did; differences are the largest of a weight, relative to the largest weight."""

    online: list[float] = field(default_factory=list[float])
    """After each rollout with updates."""
    target: list[float] = field(default_factory=list[float])
    """Before its first update."""
    epsilon: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Ours and theirs, at each env step."""


def flat(params: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([param.detach().reshape(-1) for param in params])


def in_their_order(agent: DQNAgent, weights: torch.Tensor) -> list[torch.Tensor]:
    """Views of a flat vector with weights as [outputs, inputs]; hidden layers store them transposed."""
    *hidden, weight, bias = agent.network.views(weights)
    return [*(view.T if view.dim() == 2 else view for view in hidden), weight, bias]


def distance(agent: DQNAgent, ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((flat(in_their_order(agent, ours)) - theirs).abs().max() / theirs.abs().max())


def make_theirs(record: Record, settings: Settings) -> Any:
    from stable_baselines3 import DQN

    return DQN(
        "MlpPolicy",
        record,
        learning_rate=settings.learning_rate,
        buffer_size=settings.capacity,
        learning_starts=settings.learning_starts,
        batch_size=settings.batch_size,
        train_freq=settings.train_every,
        gradient_steps=settings.gradient_steps,
        target_update_interval=settings.target_every,
        exploration_fraction=settings.explore,
        exploration_final_eps=settings.final_epsilon,
        policy_kwargs={"net_arch": settings.hidden},
        seed=0,
        device="cpu",
    )


def make_ours(record: Record, settings: Settings, directory: Path) -> Trainer:
    schedule = Linear(end=settings.final_epsilon, steps=round(settings.explore * settings.steps))
    config = DQNConfig(
        state_dim=list(record.observation_space.shape or ()),
        action_dim=int(record.action_space.n),  # type: ignore[attr-defined]
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        learning_starts=settings.learning_starts + 1,  # they learn after more than that many steps
        train_every=settings.train_every,
        gradient_steps=settings.train_every if settings.gradient_steps == -1 else settings.gradient_steps,
        target_update_every=settings.target_every,
        max_grad_norm=10.0,
        network=Mlp(hidden=settings.hidden),
        exploration=EpsilonGreedy(schedule=schedule),
        replay=UniformReplay(capacity=settings.capacity),
    )
    training = TrainingConfig(max_steps=settings.steps, max_steps_per_episode=10**6)
    agent, playback = DQNAgent(config), Playback(record)
    return Trainer(agent, playback, training, output_dir=directory, eval_env=Playback(record))


class Follower:
    """Ours, which does after each of their rollouts what they did."""

    def __init__(self, model: Any, trainer: Trainer, record: Record, settings: Settings) -> None:
        self.found = Comparison()
        self.samples: deque[Array] = deque()
        """Indices that they sampled."""
        self.agent = trainer.agent
        self._model, self._trainer, self._settings = model, trainer, settings
        self._target = torch.empty(0)
        self._learn, self._sync = self.agent.learn, self.agent.sync_target
        self._weight = torch.full((settings.batch_size,), 1 / settings.batch_size)
        self._actions = record.actions
        vars(self.agent).update(act=self._their_action, learn=self._checked_learn)
        if settings.target_first:
            vars(self.agent).update(sync_target=self._no_sync)
        vars(trainer.replay)["_sampler"].sample = self._their_sample
        self._copy_weights()

    def follow(self, target: torch.Tensor) -> None:
        """Do the rollout that they have done; `target` [weights] are those that their updates used."""
        agent, loop, settings = self.agent, self._trainer.loop, self._settings
        self._target = target
        while loop.step < self._model.num_timesteps:
            start = loop.step
            if settings.target_first and (start + settings.train_every) // settings.target_every > (
                start // settings.target_every
            ):
                self._sync(1)
            loop.advance(settings.steps, None)
        assert not self.samples
        self.found.online.append(distance(agent, agent.learner.online, flat(self._model.q_net.parameters())))
        self._copy_weights()

    def _their_action(self, _: Array, step: int, *__: Any) -> Array:
        return np.array([self._actions[step]])

    def _their_sample(self, _: int, __: int) -> tuple[Array, torch.Tensor]:
        return self.samples.popleft(), self._weight

    def _no_sync(self, _: int) -> None:
        """`follow` has done it."""

    def _checked_learn(self, *arguments: Any) -> Any:
        if self._target.numel():
            self.found.target.append(distance(self.agent, self.agent.learner.target, self._target))
            self._target = torch.empty(0)
        return self._learn(*arguments)

    def _copy_weights(self) -> None:
        """Copy their online weights and moments, and at the start the target weights."""
        learner, theirs = self.agent.learner, list(self._model.q_net.parameters())
        moments = self._model.policy.optimizer.state
        copies = [(learner.online, theirs)]
        if not moments:
            copies += [(learner.target, theirs)]
        else:
            copies += [
                (learner.moments[ours], [moments[param][name] for param in theirs])
                for ours, name in (("first", "exp_avg"), ("second", "exp_avg_sq"))
            ]
        with torch.no_grad():
            for vector, values in copies:
                for view, value in zip(in_their_order(self.agent, vector), values, strict=True):
                    view.copy_(value)


def compare(env: gymnasium.Env[Any, Any], settings: Settings, directory: Path) -> Comparison:
    """Train both; see `Comparison`."""
    record = Record(env)
    model = make_theirs(record, settings)
    followers: list[Follower] = []  # made when their environment was reset and they have not learned
    epsilon: list[float] = []
    sample_action, get, train = model._sample_action, model.replay_buffer._get_samples, model.train

    def watched_action(*arguments: Any) -> Any:
        epsilon.append(model.exploration_rate)
        return sample_action(*arguments)

    def watched_samples(indices: Array, **options: Any) -> Any:
        followers[0].samples.append(indices)
        return get(indices, **options)

    def followed_train(*arguments: Any, **options: Any) -> None:
        if not followers:
            trainer = make_ours(record, settings, directory)
            followers.append(Follower(model, trainer, record, settings))
        target = flat(model.q_net_target.parameters())
        train(*arguments, **options)
        followers[0].follow(target)

    model._sample_action, model.train = watched_action, followed_train
    model.replay_buffer._get_samples = watched_samples
    model.learn(settings.steps)
    follower = followers[0]
    follower.found.epsilon = [
        (follower.agent.epsilon(step), theirs)
        for step, theirs in enumerate(epsilon)
        if step
        > settings.learning_starts  # they start with the first action after the warm-up, at 0 without one
    ]
    return follower.found


class Walk(gymnasium.Env[Any, Any]):
    """Random observations and rewards; episodes end after 9 steps on average, in either way."""

    observation_space = gymnasium.spaces.Box(-10, 10, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        return self._obs(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        end = self.np_random.integers(18)
        return self._obs(), float(self.np_random.normal(3)), end == 0, end == 1, {}

    def _obs(self) -> Array:
        return self.np_random.normal(size=4).astype(np.float32)


LUNAR_LANDER = {"learning_starts": 0, "train_every": 4, "gradient_steps": -1, "target_every": 250}
CART_POLE = {"learning_starts": 300, "train_every": 256, "gradient_steps": 128, "target_every": 10}
MOUNTAIN_CAR = {"learning_starts": 300, "train_every": 16, "gradient_steps": 8, "target_every": 600}
"""The periods of rl-baselines3-zoo, with shorter warm-ups."""


@pytest.mark.parametrize(
    ("periods", "target_first"),
    [(LUNAR_LANDER, True), (CART_POLE, False), (MOUNTAIN_CAR, True)],
    ids=["LunarLander", "CartPole", "MountainCar"],
)
def test_weights_after_each_rollout_are_those_of_stable_baselines3(
    periods: dict[str, int], target_first: bool, tmp_path: Path
) -> None:
    settings = Settings(steps=768, hidden=[32, 24], capacity=400, target_first=target_first, **periods)
    found = compare(Walk(), settings, tmp_path)
    rollouts = (settings.steps - settings.learning_starts) // settings.train_every
    assert len(found.online) == len(found.target) >= rollouts
    assert max(found.online) < 1e-4
    assert max(found.target) < 1e-6
    for ours, theirs in found.epsilon:
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_only_the_order_of_target_update_and_updates_differs(tmp_path: Path) -> None:
    """The target network of ours is theirs with the updates of one rollout more."""
    settings = Settings(steps=600, hidden=[32, 24], capacity=700, **LUNAR_LANDER)
    found = compare(Walk(), settings, tmp_path)
    after_first = 252 // settings.train_every  # the rollout in which the first target update is due
    assert max(found.target[: after_first - 1]) == 0
    assert 0 < found.target[after_first] < 0.05
