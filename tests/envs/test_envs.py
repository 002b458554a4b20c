"""Environment parts: what they show, what learning sees of rewards, and episodes that come back."""

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
from dqn_runner.core.types import EnvSpec, StepResult
from dqn_runner.envs.atari import Atari, AtariProtocol
from dqn_runner.envs.base import EnvPart, spec_of
from dqn_runner.envs.gym import GymEnv
from dqn_runner.envs.minatar import MinAtar
from dqn_runner.envs.subprocess_worker import launch
from dqn_runner.envs.vector_env import VectorEnv
from tests.support.probes import compose_run

HERE = __name__


class Grid(gymnasium.Env[Any, Any]):
    """Shows what MiniGrid shows: an image, a direction and a mission."""

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
        return self._see(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self._see(), float(action == 2), self.t == 9, False, {}

    def _see(self) -> Any:
        image = self.np_random.integers(0, 11, (7, 7, 3)).astype(np.uint8)
        return {"image": image, "direction": self.t % 4, "mission": "reach"}


class Film(gymnasium.Env[Any, Any]):
    """Frames full of the number of the step from 1 on, of the shape `shape`; ends after `length` steps.

    All observations are one buffer, as simulators hand them out.
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


class Negative(gymnasium.ObservationWrapper[Any, Any, Any]):
    """A user's wrapper."""

    def observation(self, observation: Any) -> Any:
        return {**observation, "direction": 3 - observation["direction"]}


def batch(part: EnvPart, seed: int = 0, limit: int | None = 12) -> VectorEnv:
    workers = [launch(part) for _ in range(part.num_envs)]
    return VectorEnv(workers, lambda index, episode: seed_for(seed, "env", index, episode), limit)


def equal(one: StepResult, two: StepResult) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


class TestDictObservations:
    def test_one_entry_is_shown_as_it_is(self):
        env = GymEnv(id=f"{HERE}:Grid", observation_keys=["image"]).make()
        assert spec_of(env) == EnvSpec((7, 7, 3), 7, "uint8")
        assert env.reset(seed=3)[0].tolist() == Grid().reset(seed=3)[0]["image"].tolist()

    def test_several_entries_are_joined_in_the_order_given(self):
        env = GymEnv(id=f"{HERE}:Grid", observation_keys=["direction", "image"]).make()
        assert spec_of(env) == EnvSpec((4 + 147,), 7)
        raw = Grid().reset(seed=3)[0]
        obs = env.reset(seed=3)[0]
        assert obs.dtype == np.float32
        assert obs in env.observation_space
        assert obs.tolist() == [1, 0, 0, 0, *raw["image"].ravel().tolist()]

    def test_the_users_wrappers_come_first(self):
        part = GymEnv(id=f"{HERE}:Grid", wrappers=[f"{HERE}:Negative"], observation_keys=["direction"])
        part.flatten_observation = True
        assert part.make().reset(seed=3)[0].tolist() == [0, 0, 0, 1]

    def test_without_a_choice_the_answer_names_both_ways_and_the_keys(self):
        with pytest.raises(UserError, match=r"observation_keys=\[\.\.\.\] selects some of direction, image,"):
            spec_of(GymEnv(id=f"{HERE}:Grid").make())
        with pytest.raises(UserError, match=r"env\.flatten_observation=true makes one vector"):
            spec_of(GymEnv(id=f"{HERE}:Grid").make())

    def test_a_key_that_is_not_there(self):
        with pytest.raises(UserError, match="there is no picture; there are direction, image, mission"):
            GymEnv(id=f"{HERE}:Grid", observation_keys=["picture", "image"]).make()

    def test_an_entry_that_is_no_vector_yet_can_be_flattened(self):
        part = GymEnv(id=f"{HERE}:Grid", observation_keys=["direction"])
        with pytest.raises(UserError, match=r"has Discrete\(4\)\. env\.flatten_observation=true"):
            spec_of(part.make())

    def test_discrete_observations_become_one_hot(self):
        env = GymEnv(id="FrozenLake-v1", flatten_observation=True).make()
        assert spec_of(env) == EnvSpec((16,), 4)
        assert env.reset(seed=0)[0].tolist() == [1] + 15 * [0]

    def test_what_has_no_fixed_length_is_refused(self):
        env = gymnasium.Wrapper(Film())
        env.observation_space = spaces.Sequence(spaces.Discrete(2))
        from dqn_runner.envs.wrappers import observations

        with pytest.raises(UserError, match="cannot be flattened into a vector of fixed length"):
            observations.flatten(env)


class TestFrameStacks:
    def test_grey_frames_become_channels_the_newest_last_and_blank_ones_before(self):
        env = GymEnv(id=f"{HERE}:Film", frame_stack=3).make()
        assert spec_of(env) == EnvSpec((3, 3, 4), 2, "uint8", frame_stack=3)
        seen = [env.reset(seed=0)[0], *(env.step(0)[0] for _ in range(3)), env.reset(seed=0)[0]]
        assert [obs[:, 0, 0].tolist() for obs in seen] == [
            [0, 0, 1],
            [0, 1, 2],
            [1, 2, 3],
            [2, 3, 4],
            [0, 0, 1],
        ]

    def test_vectors_are_stacked_too(self):
        assert spec_of(GymEnv(frame_stack=2).make()) == EnvSpec((2, 4), 2, frame_stack=2)

    def test_channel_images_are_refused(self):
        with pytest.raises(UserError, match=r"env\.frame_stack=4 stacks vectors and grey images"):
            GymEnv(id=f"{HERE}:Film", kwargs={"shape": (3, 4, 3)}, frame_stack=4).make()

    def test_other_environments_are_no_stacks(self):
        assert spec_of(MinAtar().make()).frame_stack == 1


class TestRewards:
    @given(st.floats(-1e6, 1e6), st.floats(0.01, 100), st.floats(0.01, 100) | st.none())
    def test_learning_sees_them_scaled_then_clipped(self, reward: float, scale: float, clip: float | None):
        seen = GymEnv(reward_scale=scale, reward_clip=clip).learning_reward(reward)
        assert seen == (reward * scale if clip is None else np.clip(reward * scale, -clip, clip))

    def test_an_undefined_one_stays_undefined(self):
        assert np.isnan(GymEnv(reward_clip=1.0).learning_reward(float("nan")))

    def test_returns_and_evaluations_are_those_of_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("dqn_runner.plots.draw_training_curves", lambda _: None)
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


def test_an_observation_buffer_that_the_environment_writes_over():
    envs = batch(GymEnv(id=f"{HERE}:Film", kwargs={"length": 2}))
    envs.step([0])
    end = envs.step([0])
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
def test_what_goes_on_from_its_state_is_the_same(name: str) -> None:
    part = PARTS[name]
    rng = np.random.default_rng(0)
    whole = batch(part)
    actions = rng.integers(whole.spec.num_actions, size=(30, part.num_envs)).tolist()
    for row in actions[:17]:
        whole.step(row)
    resumed = batch(part)
    resumed.load_state_dict(whole.state_dict())
    for row in actions[17:]:
        assert equal(whole.step(row), resumed.step(row))
    whole.close()
    resumed.close()
