"""Atari under its two protocols; named after the list of mistakes that DQN code makes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import EnvSpec, IntArray
from dqn_runner.envs.atari import Atari, AtariProtocol
from dqn_runner.envs.base import spec_of
from dqn_runner.envs.subprocess_worker import launch
from dqn_runner.envs.vector_env import VectorEnv
from dqn_runner.training.collector import Collector, Progress
from dqn_runner.training.evaluator import Evaluator

STICKY, NOOP = AtariProtocol.sticky, AtariProtocol.noop


class Player:
    """An agent that presses buttons in a fixed order, which begins anew when `begin` is called."""

    def __init__(self, num_actions: int) -> None:
        self.num_actions = num_actions
        self.begin()

    def begin(self) -> None:
        self.rng = np.random.default_rng(1)

    def act(self, obs: Any, step: int = 0, rng: Any = None) -> IntArray:
        return self.rng.integers(self.num_actions, size=len(obs))


class Memory:
    """A replay that writes down what it is given, as (reward, terminated, truncated)."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, bool, bool]] = []

    def add(
        self, env: int, obs: Any, action: int, reward: float, terminated: bool, truncated: bool, next_obs: Any
    ) -> None:
        self.steps.append((reward, terminated, truncated))


def batch(part: Atari, limit: int | None = None) -> VectorEnv:
    return VectorEnv([launch(part)], lambda _, episode: episode, limit)


def test_10_lost_lives_and_clipping_leave_evaluation_and_returns_alone() -> None:
    part = Atari(game="SpaceInvaders", protocol=NOOP)
    player, memory = Player(6), Memory()
    envs = batch(part)
    progress = Progress(0)
    Collector(envs, 0, part.learning_reward).collect(player, memory, progress, 10**6, 1)  # type: ignore[arg-type]
    (episode,) = progress.ended

    rewards = [reward for reward, _, _ in memory.steps]
    assert set(rewards) == {0.0, 1.0}, "learning sees clipped rewards"
    assert sum(terminated for _, terminated, _ in memory.steps) == 3, "and three lives"
    assert memory.steps[-1][1]
    assert not any(truncated for _, _, truncated in memory.steps)
    assert episode.length == len(memory.steps), "which are one episode"

    player.begin()
    evaluation = Evaluator(part.make(training=False), lambda _: 0, None).run(player.act, 1)
    assert evaluation.returns == [episode.episode_return]
    assert evaluation.lengths == [episode.length]
    assert episode.episode_return > 5 * sum(rewards) - 1, "Space Invaders pays from 5 to 30 points"


def test_15_frames_before_an_episode_are_blank_and_the_last_frame_is_kept() -> None:
    envs = batch(Atari(game="Pong"), limit=6)
    first = envs.obs[0].copy()
    assert not first[:3].any()
    assert first[3].any()
    for _ in range(5):
        before = envs.obs[0].copy()
        result = envs.step([0])
        assert np.array_equal(result.next_obs[0][:3], before[1:]), "stacks share all but the newest frame"
    before = envs.obs[0].copy()
    end = envs.step([0])
    assert end.truncated == [True]
    assert np.array_equal(end.next_obs[0][:3], before[1:])
    assert end.next_obs[0][3].any()
    assert not end.obs[0][:3].any(), "nothing of the last episode is seen in the next"


def test_25_no_operation_is_slipped_in_where_a_life_is_lost() -> None:
    env = Atari(protocol=NOOP).make()
    _, info = env.reset(seed=0)
    frame, lost, alive = info["episode_frame_number"], 0, True
    while alive:
        _, _, terminated, _, info = env.step(1)
        lost += info["life_lost"]
        alive = not terminated
        assert info["episode_frame_number"] == frame + 4 or not alive
        frame = info["episode_frame_number"]
    assert lost == 5
    assert env.reset(seed=1)[1]["lives"] == 5
    assert not env.step(1)[4]["life_lost"], "a new game has lost none"


class TestProtocols:
    @pytest.mark.parametrize("protocol", [STICKY, NOOP])
    def test_observations(self, protocol: AtariProtocol):
        spec = spec_of(Atari(protocol=protocol).make())
        assert spec == EnvSpec((4, 84, 84), 4, "uint8", frame_stack=4)

    @pytest.mark.parametrize(("protocol", "probability"), [(STICKY, 0.25), (NOOP, 0.0)])
    def test_actions_stick_or_do_not(self, protocol: AtariProtocol, probability: float):
        ale = Atari(protocol=protocol).make().unwrapped.ale
        assert ale.getFloat("repeat_action_probability") == probability

    def test_games_begin_at_once_or_with_no_ops_of_the_seed(self):
        def idle(env: Any, seed: int) -> int:
            return env.reset(seed=seed)[1]["episode_frame_number"]

        sticky, noop = Atari(game="Pong").make(), Atari(game="Pong", protocol=NOOP).make()
        assert {idle(sticky, seed) for seed in range(4)} == {0}
        counts = [idle(noop, seed) for seed in range(8)]
        assert len(set(counts)) > 3
        assert 1 <= min(counts) <= max(counts) <= 30
        assert [idle(noop, seed) for seed in range(8)] == counts

    @pytest.mark.parametrize(
        ("part", "training", "told"),
        [
            (Atari(protocol=NOOP), True, True),
            (Atari(protocol=NOOP), False, False),
            (Atari(protocol=NOOP, episodic_life=False), True, False),
            (Atari(), True, False),
            (Atari(episodic_life=True), True, True),
            (Atari(episodic_life=True), False, False),
        ],
    )
    def test_lost_lives_are_told_in_training(self, part: Atari, training: bool, told: bool):
        env = part.make(training=training)
        env.reset(seed=0)
        assert ("life_lost" in env.step(0)[4]) == told

    def test_rewards_are_clipped_unless_one_does_not_want_it(self):
        assert [Atari().learning_reward(reward) for reward in (-7.0, 0.0, 4.0)] == [-1.0, 0.0, 1.0]
        assert Atari(reward_clip=None).learning_reward(4.0) == 4.0

    def test_all_buttons_of_the_joystick(self):
        assert spec_of(Atari(full_action_space=True).make()).num_actions == 18


class TestGames:
    @pytest.mark.parametrize("game", ["SpaceInvaders", "space_invaders"])
    def test_are_found_by_either_name(self, game: str):
        assert Atari(game=game)._rom() == "space_invaders"

    def test_that_do_not_exist_suggest_the_nearest(self):
        with pytest.raises(UserError, match=r"env\.game=Brakeout is no game .*; did you mean Breakout\?"):
            Atari(game="Brakeout").make()

    def test_without_the_emulator_one_is_told_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "ale_py", None)
        with pytest.raises(UserError, match=r"pip install 'dqn_runner\[atari\]'"):
            Atari().make()

    def test_print_no_banner(self, capfd: pytest.CaptureFixture[str]):
        import ale_py

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Info)
        Atari().make().reset(seed=0)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("name", ["frame_skip", "frame_stack"])
    def test_need_frames(self, name: str):
        with pytest.raises(UserError, match=rf"env\.{name} must be at least 1, got 0"):
            Atari(**{name: 0})

    def test_can_be_drawn(self):
        env = Atari().make(training=False, render=True)
        env.reset(seed=0)
        assert env.render().shape == (210, 160, 3)
