"""Atari games under the sticky and the no-op protocol. Numbered tests are those of docs/pitfalls.md."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import EnvSpec, IntArray
from dqn_runner.envs.atari import Atari, AtariProtocol
from dqn_runner.envs.base import spec_of
from dqn_runner.envs.make_workers import make_worker
from dqn_runner.envs.vector_env import VectorEnv
from dqn_runner.training.collector import Collector, Progress
from dqn_runner.training.evaluator import Evaluator
from tests.support.stepped import stepped

STICKY, NOOP = AtariProtocol.sticky, AtariProtocol.noop


class FixedPolicy:
    """An agent whose actions are a fixed random sequence; `restart` starts it from its first action."""

    def __init__(self, num_actions: int) -> None:
        self.num_actions = num_actions
        self.restart()

    def restart(self) -> None:
        self.rng = np.random.default_rng(1)

    def act(self, obs: Any, step: int = 0, rng: Any = None, masks: Any = None) -> IntArray:
        return self.rng.integers(self.num_actions, size=len(obs))


class RecordingReplay:
    """A replay that only records (reward, terminated, truncated) of each step."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, bool, bool]] = []

    def add(
        self, env: int, obs: Any, action: int, reward: float, terminated: bool, truncated: bool, next_obs: Any
    ) -> None:
        self.steps.append((reward, terminated, truncated))


def vector_env(part: Atari, limit: int | None = None) -> VectorEnv:
    return VectorEnv([make_worker(part)], lambda _, episode: episode, limit)


def test_pitfall_10_lost_lives_and_reward_clipping_do_not_affect_evaluation_and_returns() -> None:
    part = Atari(game="SpaceInvaders", protocol=NOOP)
    policy, replay = FixedPolicy(6), RecordingReplay()
    envs = vector_env(part)
    progress = Progress(0)
    Collector(envs, 0, part.learning_reward).collect(policy, replay, progress, 10**6, 1)  # type: ignore[arg-type]
    (episode,) = progress.ended

    rewards = [reward for reward, _, _ in replay.steps]
    assert set(rewards) == {0.0, 1.0}, "learning sees clipped rewards"
    terminations = sum(terminated for _, terminated, _ in replay.steps)
    assert terminations == 3, "each of the three lives is terminal in learning"
    assert replay.steps[-1][1]
    assert not any(truncated for _, _, truncated in replay.steps)
    assert episode.length == len(replay.steps), "three lives are one episode"

    policy.restart()
    evaluation = Evaluator(part.make(training=False), lambda _: 0, None).run(policy.act, 1)
    assert evaluation.returns == [episode.episode_return]
    assert evaluation.lengths == [episode.length]
    assert episode.episode_return > 5 * sum(rewards) - 1, "rewards of Space Invaders are 5 to 30 points"


def test_pitfall_15_frame_stacks_start_with_zeros_and_keep_the_final_frame() -> None:
    envs = vector_env(Atari(game="Pong"), limit=6)
    first = envs.obs[0].copy()
    assert not first[:3].any()
    assert first[3].any()
    for _ in range(5):
        before = envs.obs[0].copy()
        result = stepped(envs, [0])
        assert np.array_equal(result.next_obs[0][:3], before[1:]), "stacks share all but the newest frame"
    before = envs.obs[0].copy()
    end = stepped(envs, [0])
    assert end.truncated == [True]
    assert np.array_equal(end.next_obs[0][:3], before[1:])
    assert end.next_obs[0][3].any()
    assert not end.obs[0][:3].any(), "an episode starts without frames of the one before"


def test_pitfall_25_no_extra_action_is_taken_when_a_life_is_lost() -> None:
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
    assert not env.step(1)[4]["life_lost"], "a new game starts with no life lost"


class TestProtocols:
    @pytest.mark.parametrize("protocol", [STICKY, NOOP])
    def test_atari_observations_are_four_stacked_84x84_uint8_frames(self, protocol: AtariProtocol):
        spec = spec_of(Atari(protocol=protocol).make())
        assert spec == EnvSpec((4, 84, 84), 4, "uint8", frame_stack=4)

    @pytest.mark.parametrize(("protocol", "probability"), [(STICKY, 0.25), (NOOP, 0.0)])
    def test_only_the_sticky_protocol_has_sticky_actions(self, protocol: AtariProtocol, probability: float):
        ale = Atari(protocol=protocol).make().unwrapped.ale
        assert ale.getFloat("repeat_action_probability") == probability

    def test_only_the_noop_protocol_starts_games_with_a_seeded_number_of_noops(self):
        def frames_at_reset(env: Any, seed: int) -> int:
            return env.reset(seed=seed)[1]["episode_frame_number"]

        sticky, noop = Atari(game="Pong").make(), Atari(game="Pong", protocol=NOOP).make()
        assert {frames_at_reset(sticky, seed) for seed in range(4)} == {0}
        counts = [frames_at_reset(noop, seed) for seed in range(8)]
        assert len(set(counts)) > 3
        assert 1 <= min(counts) <= max(counts) <= 30
        assert [frames_at_reset(noop, seed) for seed in range(8)] == counts

    @pytest.mark.parametrize(
        ("part", "training", "reported"),
        [
            (Atari(protocol=NOOP), True, True),
            (Atari(protocol=NOOP), False, False),
            (Atari(protocol=NOOP, episodic_life=False), True, False),
            (Atari(), True, False),
            (Atari(episodic_life=True), True, True),
            (Atari(episodic_life=True), False, False),
        ],
    )
    def test_lost_lives_are_reported_only_in_training_with_episodic_life(
        self, part: Atari, training: bool, reported: bool
    ):
        env = part.make(training=training)
        env.reset(seed=0)
        assert ("life_lost" in env.step(0)[4]) == reported

    def test_rewards_are_clipped_unless_reward_clip_is_none(self):
        assert [Atari().learning_reward(reward) for reward in (-7.0, 0.0, 4.0)] == [-1.0, 0.0, 1.0]
        assert Atari(reward_clip=None).learning_reward(4.0) == 4.0

    def test_full_action_space_has_18_actions(self):
        assert spec_of(Atari(full_action_space=True).make()).num_actions == 18


class TestGames:
    @pytest.mark.parametrize("game", ["SpaceInvaders", "space_invaders"])
    def test_game_names_may_be_camel_case_or_snake_case(self, game: str):
        assert Atari(game=game)._rom() == "space_invaders"

    def test_unknown_game_gets_an_error_that_suggests_the_closest_name(self):
        with pytest.raises(UserError, match=r"env\.game=Brakeout is not a game .*; did you mean Breakout\?"):
            Atari(game="Brakeout").make()

    def test_missing_ale_py_gets_an_error_with_the_install_command(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "ale_py", None)
        with pytest.raises(UserError, match=r"pip install 'dqn_runner\[atari\]'"):
            Atari().make()

    def test_games_print_no_banner(self, capfd: pytest.CaptureFixture[str]):
        import ale_py

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Info)
        Atari().make().reset(seed=0)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("name", ["frame_skip", "frame_stack"])
    def test_number_of_frames_must_be_positive(self, name: str):
        with pytest.raises(UserError, match=rf"env\.{name} must be at least 1, got 0"):
            Atari(**{name: 0})

    def test_rendered_frames_are_rgb(self):
        env = Atari().make(training=False, render=True)
        env.reset(seed=0)
        assert env.render().shape == (210, 160, 3)
