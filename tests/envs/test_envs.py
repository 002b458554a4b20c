"""Environment parts: observations, the rewards that learning sees, and episodes that are restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from dqn_runner.config.build import build_trainer
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.rng import seed_for
from dqn_runner.core.types import EnvSpec
from dqn_runner.envs.atari import Atari, AtariProtocol
from dqn_runner.envs.base import EnvPart, spec_of
from dqn_runner.envs.gym import GymEnv
from dqn_runner.envs.make_workers import make_worker
from dqn_runner.envs.minatar import MinAtar
from dqn_runner.envs.vector_env import VectorEnv
from dqn_runner.envs.wrappers import observations
from dqn_runner.run import plots
from tests.support.probes import compose_run
from tests.support.stepped import Stepped, stepped

HERE = __name__


class Grid(gymnasium.Env[Any, Any]):
    """The observations of MiniGrid: an image, a direction and a mission."""

    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (7, 7, 3), np.uint8),
            "direction": spaces.Discrete(4),
            "mission": spaces.Text(12),
        }
    )
    action_space = spaces.Discrete(7)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self._observation(), float(action == 2), self.t == 9, False, {}

    def _observation(self) -> Any:
        image = self.np_random.integers(0, 11, (7, 7, 3)).astype(np.uint8)
        return {"image": image, "direction": self.t % 4, "mission": "reach"}


class Film(gymnasium.Env[Any, Any]):
    """Frames of `shape`, filled with the number of the step, from 1; episodes end after `length` steps.

    All observations are one buffer that each step overwrites, as in many simulators.
    """

    action_space = spaces.Discrete(2)

    def __init__(self, shape: tuple[int, ...] = (3, 4), length: int = 6) -> None:
        self.length = length
        self.observation_space = spaces.Box(0, 255, tuple(shape), np.uint8)
        self.screen = np.zeros(tuple(shape), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.screen.fill(1)
        return self.screen, {}

    def step(self, action: Any) -> Any:
        self.screen += 1
        return self.screen, float(self.screen.flat[0]), bool(self.screen.flat[0] > self.length), False, {}


class Mirrored(gymnasium.ObservationWrapper[Any, Any, Any]):
    """A wrapper of a user."""

    def observation(self, observation: Any) -> Any:
        return {**observation, "direction": 3 - observation["direction"]}


def vector_env(part: EnvPart, seed: int = 0, limit: int | None = 12) -> VectorEnv:
    workers = [make_worker(part) for _ in range(part.num_envs)]
    return VectorEnv(workers, lambda index, episode: seed_for(seed, "env", index, episode), limit)


def are_equal(one: Stepped, two: Stepped) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


class TestDictObservations:
    def test_one_observation_key_gives_that_entry_unchanged(self):
        env = GymEnv(id=f"{HERE}:Grid", observation_keys=["image"]).make()
        assert spec_of(env) == EnvSpec((7, 7, 3), 7, "uint8")
        assert env.reset(seed=3)[0].tolist() == Grid().reset(seed=3)[0]["image"].tolist()

    def test_several_observation_keys_are_concatenated_in_the_given_order(self):
        env = GymEnv(id=f"{HERE}:Grid", observation_keys=["direction", "image"]).make()
        assert spec_of(env) == EnvSpec((4 + 147,), 7)
        raw = Grid().reset(seed=3)[0]
        obs = env.reset(seed=3)[0]
        assert obs.dtype == np.float32
        assert obs in env.observation_space
        assert obs.tolist() == [1, 0, 0, 0, *raw["image"].ravel().tolist()]

    def test_wrappers_of_the_user_are_applied_before_observation_settings(self):
        part = GymEnv(id=f"{HERE}:Grid", wrappers=[f"{HERE}:Mirrored"], observation_keys=["direction"])
        part.flatten_observation = True
        assert part.make().reset(seed=3)[0].tolist() == [0, 0, 0, 1]

    def test_dict_observation_without_a_setting_gets_an_error_that_names_the_settings_and_keys(self):
        with pytest.raises(
            UserError, match=r"mission \(Text\); leave them out by env.observation_keys=\[direction,image\]"
        ):
            spec_of(GymEnv(id=f"{HERE}:Grid").make())

    def test_unknown_observation_key_is_rejected(self):
        with pytest.raises(UserError, match="has no picture; it has direction, image, mission"):
            GymEnv(id=f"{HERE}:Grid", observation_keys=["picture", "image"]).make()

    def test_discrete_entry_gets_an_error_that_names_flatten_observation(self):
        part = GymEnv(id=f"{HERE}:Grid", observation_keys=["direction"])
        with pytest.raises(UserError, match=r"has Discrete\(4\)\. env\.flatten_observation=true"):
            spec_of(part.make())

    def test_flattened_discrete_observations_are_one_hot(self):
        env = GymEnv(id="FrozenLake-v1", flatten_observation=True).make()
        assert spec_of(env) == EnvSpec((16,), 4)
        assert env.reset(seed=0)[0].tolist() == [1] + 15 * [0]

    def test_observations_without_a_fixed_length_cannot_be_flattened(self):
        env = gymnasium.Wrapper(Film())
        env.observation_space = spaces.Sequence(spaces.Discrete(2))
        with pytest.raises(UserError, match="cannot be flattened into a vector of fixed length"):
            observations.flatten(env)


class TestFrameStacks:
    def test_frame_stack_has_the_newest_frame_last_and_zeros_before_the_first(self):
        env = GymEnv(id=f"{HERE}:Film", frame_stack=3).make()
        assert spec_of(env) == EnvSpec((3, 3, 4), 2, "uint8", frame_stack=3)
        frames = [env.reset(seed=0)[0], *(env.step(0)[0] for _ in range(3)), env.reset(seed=0)[0]]
        assert [obs[:, 0, 0].tolist() for obs in frames] == [
            [0, 0, 1],
            [0, 1, 2],
            [1, 2, 3],
            [2, 3, 4],
            [0, 0, 1],
        ]

    def test_frame_stack_accepts_vectors(self):
        assert spec_of(GymEnv(frame_stack=2).make()) == EnvSpec((2, 4), 2, frame_stack=2)

    def test_frame_stack_rejects_images_with_channels(self):
        with pytest.raises(UserError, match=r"env\.frame_stack=4 stacks vectors and grey images"):
            GymEnv(id=f"{HERE}:Film", kwargs={"shape": (3, 4, 3)}, frame_stack=4).make()

    def test_env_without_frame_stack_has_a_stack_size_of_one(self):
        assert spec_of(MinAtar().make()).frame_stack == 1


class TestRewards:
    @given(st.floats(-1e6, 1e6), st.floats(0.01, 100), st.floats(0.01, 100) | st.none())
    def test_learning_reward_is_scaled_then_clipped(self, reward: float, scale: float, clip: float | None):
        found = GymEnv(reward_scale=scale, reward_clip=clip).learning_reward(reward)
        assert found == (reward * scale if clip is None else np.clip(reward * scale, -clip, clip))

    def test_learning_reward_of_nan_is_nan(self):
        assert np.isnan(GymEnv(reward_clip=1.0).learning_reward(float("nan")))

    def test_returns_and_evaluations_are_neither_scaled_nor_clipped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)
        run = compose_run(
            [
                "env=gym",
                f"env.id={HERE}:Film",
                "env.kwargs.length=6",
                "env.reward_scale=0.5",
                "env.reward_clip=2",
                "agent/network=mlp",
                "agent.batch_size=8",
                "agent.learning_starts=10",
                "trainer.max_steps=24",
                "trainer.eval_episodes=1",
                "agent.exploration.schedule.steps=1",
                "logging=[]",
            ]
        )
        trainer = build_trainer(run, tmp_path, {}, None)
        stats = trainer.train()
        rewards = trainer.replay.state_dict()["rows"].all()["reward"]
        assert rewards[:6].tolist() == [1.0, 1.5, 2.0, 2.0, 2.0, 2.0]
        assert stats.history["episodes"]["return"] == 4 * [2.0 + 3 + 4 + 5 + 6 + 7]
        assert stats.best_mean == 27.0


def test_final_observation_is_not_overwritten_by_the_reset():
    envs = vector_env(GymEnv(id=f"{HERE}:Film", kwargs={"length": 2}))
    envs.step([0])
    end = stepped(envs, [0])
    assert (end.terminated, end.next_obs[0, 0, 0], end.obs[0, 0, 0]) == ([True], 3, 1)


PARTS: dict[str, EnvPart] = {
    "cartpole": GymEnv(num_envs=3),
    "acrobot": GymEnv(id="Acrobot-v1"),
    "mountaincar": GymEnv(id="MountainCar-v0"),
    "lunarlander": GymEnv(id="LunarLander-v3"),
    "frozen lake": GymEnv(id="FrozenLake-v1", flatten_observation=True, num_envs=2),
    "grid": GymEnv(id=f"{HERE}:Grid", observation_keys=["image", "direction"]),
    "frame stack": GymEnv(id=f"{HERE}:Film", frame_stack=4),
    "asterix": MinAtar(game="asterix"),
    "breakout": MinAtar(game="breakout", num_envs=2),
    "freeway": MinAtar(game="freeway"),
    "seaquest": MinAtar(game="seaquest"),
    "space invaders": MinAtar(game="space_invaders"),
    "atari": Atari(),
    "atari with no-ops": Atari(game="Pong", protocol=AtariProtocol.noop),
}


@pytest.mark.parametrize("name", PARTS)
def test_envs_restored_from_a_state_continue_identically(name: str) -> None:
    part = PARTS[name]
    rng = np.random.default_rng(0)
    whole = vector_env(part)
    actions = rng.integers(whole.spec.num_actions, size=(30, part.num_envs)).tolist()
    for row in actions[:17]:
        whole.step(row)
    resumed = vector_env(part)
    resumed.load_state_dict(whole.state_dict())
    for row in actions[17:]:
        assert are_equal(stepped(whole, row), stepped(resumed, row))
    whole.close()
    resumed.close()
