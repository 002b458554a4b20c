"""Action masks of environments: where they come from, what is rejected, and that episodes are restored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import EnvSpec
from dqn_runner.envs.base import Vectorization, spec_of
from dqn_runner.envs.checked_env import CheckedEnv
from dqn_runner.envs.gym import GymEnv
from dqn_runner.envs.make_workers import make_worker
from dqn_runner.envs.stored_spaces import load_spaces, store_spaces
from dqn_runner.envs.vector_env import VectorEnv
from dqn_runner.envs.worker import LocalWorker
from dqn_runner.envs.wrappers import observations
from tests.support.masked import NUM_ACTIONS, Guarded
from tests.support.stepped import stepped

GUARDED = "tests.support.masked:Guarded"


def part(**settings: Any) -> GymEnv:
    form = settings.pop("form", "info")
    kwargs = {"form": form, **settings.pop("kwargs", {})}
    return GymEnv(
        id=GUARDED,
        action_mask=settings.pop("source", {"info": "info", "key": "legal"}[form]),
        kwargs=kwargs,
        **settings,
    )


def vector_env(made: GymEnv, limit: int | None = 12) -> VectorEnv:
    workers = [make_worker(made) for _ in range(made.num_envs)]
    return VectorEnv(workers, lambda index, episode: 100 * index + episode, limit)


def allowed(envs: VectorEnv, rng: np.random.Generator) -> list[int]:
    assert envs.masks is not None
    return [int(rng.choice(np.flatnonzero(mask))) for mask in envs.masks]


def play(envs: VectorEnv, steps: int, seed: int = 0) -> list[Any]:
    """Random allowed actions; everything that the environments return, as lists."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(steps):
        result = stepped(envs, allowed(envs, rng))
        found.append([np.asarray(column).tolist() for column in (*result, envs.masks)])
    return found


class TestSources:
    @pytest.mark.parametrize("dtype", ["int8", "bool", "float32", "int64", "uint8", "float64"])
    def test_masks_of_any_numbers_are_accepted(self, dtype: str) -> None:
        found = play(vector_env(part(kwargs={"dtype": dtype})), 30)
        assert found == play(vector_env(part()), 30)

    def test_masks_may_be_lists(self) -> None:
        class Lists(Guarded):
            def _answer(self, terminated: bool) -> Any:
                obs, info = super()._answer(terminated)
                return obs, {name: np.asarray(value).tolist() for name, value in info.items()}

        env = CheckedEnv(GymEnv(id="unused", action_mask="info")._with_wrappers(Lists()))  # pyright: ignore
        env.reset(0)
        assert env.mask is not None
        assert env.mask.dtype == bool

    def test_an_entry_of_the_observation_gives_the_same_masks_and_is_not_observed(self) -> None:
        assert spec_of(part(form="key").make()) == EnvSpec((3,), 5, has_action_mask=True)
        assert play(vector_env(part(form="key")), 30) == play(vector_env(part()), 30)

    @pytest.mark.parametrize("actions", list(NUM_ACTIONS))
    def test_a_mask_has_an_entry_for_each_numbered_action(self, actions: str) -> None:
        """An environment of which an action is not allowed would raise."""
        envs = vector_env(part(kwargs={"actions": actions}, num_envs=2))
        assert envs.masks is not None
        assert envs.masks.shape == (2, NUM_ACTIONS[actions])
        play(envs, 60)

    @pytest.mark.parametrize(
        ("settings", "shape"),
        [
            ({"flatten_observation": True}, (36,)),
            ({"observation_keys": ["sensor"]}, (6, 6)),
            ({"frame_stack": 4}, (4, 6, 6)),
            ({"flatten_observation": True, "frame_stack": 2}, (2, 36)),
            ({"wrappers": ["gymnasium.wrappers.FlattenObservation"]}, (36,)),
            (
                {"wrappers": [{"_target_": "gymnasium.wrappers.FrameStackObservation", "stack_size": 3}]},
                (3, 6, 6),
            ),
            (
                {
                    "wrappers": [
                        {"_target_": "gymnasium.wrappers.TimeLimit", "max_episode_steps": 9},
                        {"_target_": "gymnasium.wrappers.FrameStackObservation", "stack_size": 3},
                        "gymnasium.wrappers.FlattenObservation",
                    ]
                },
                (108,),
            ),
        ],
    )
    def test_no_wrapper_takes_the_mask_for_an_observation(
        self, settings: dict[str, Any], shape: tuple[int, ...]
    ) -> None:
        made = part(form="key", kwargs={"image": True}, **settings)
        spec = spec_of(made.make())
        assert (spec.obs_shape, spec.num_actions, spec.has_action_mask) == (shape, 5, True)
        masks = [row[-1] for row in play(vector_env(made), 20)]
        assert (
            masks == [row[-1] for row in play(vector_env(part(kwargs={"image": True})), 20)]
            or "wrappers" in settings
        )

    def test_a_mask_of_a_terminal_state_allows_everything_and_others_are_those_of_the_env(self) -> None:
        envs, rng = vector_env(part()), np.random.default_rng(1)
        seen = set[str]()
        for _ in range(200):
            result = stepped(envs, allowed(envs, rng))
            assert result.next_masks is not None
            assert envs.masks is not None
            next_mask = result.next_masks[0].tolist()
            if result.terminated[0]:
                assert next_mask == [True] * 5
                seen.add("terminated")
            elif result.truncated[0]:
                seen.add("truncated")
                seen |= {"masked"} if next_mask != [True] * 5 else set()
            else:
                assert next_mask == envs.masks[0].tolist()
        assert seen == {"terminated", "truncated", "masked"}

    def test_without_the_setting_masks_are_ignored(self) -> None:
        envs = vector_env(GymEnv(id=GUARDED))
        assert envs.masks is None
        assert not envs.spec.has_action_mask
        action = int(np.flatnonzero(envs.workers[0].env.env.mask)[0])  # pyright: ignore
        assert stepped(envs, [action]).next_masks is None
        assert "masks" not in envs.state_dict()

    def test_a_checkpoint_says_whether_there_are_masks(self) -> None:
        assert load_spaces(store_spaces(part().make())).has_action_mask
        assert not load_spaces(store_spaces(GymEnv(id="CartPole-v1").make())).has_action_mask


class Answer(gymnasium.Env[Any, Any]):
    """Returns given masks after the reset and the steps."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, infos: list[Any], terminated: bool = False, truncated: bool = False) -> None:
        self.infos, self.ends = list(infos), (terminated, truncated)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.zeros(2, np.float32), self.infos.pop(0)

    def step(self, action: Any) -> Any:
        return np.zeros(2, np.float32), 0.0, *self.ends, self.infos.pop(0)


def masked(env: Any, source: str = "info", **settings: Any) -> Any:
    return GymEnv(id="unused", action_mask=source, **settings)._with_wrappers(env)  # pyright: ignore


GOOD = {"action_mask": [1, 0, 1]}
TERMINAL = "only a state returned with terminated=True can have none"


class TestErrors:
    @pytest.mark.parametrize("method", ["reset", "step"])
    @pytest.mark.parametrize(
        ("info", "message"),
        [
            ({}, "no action mask in info['action_mask'], which env.action_mask=info needs; info has nothing"),
            (
                {"prob": 1, "t": 2},
                "no action mask in info['action_mask'], which env.action_mask=info needs; info has prob, t",
            ),
            (
                {"action_mask": [1, 0]},
                "an array of shape (2,) as action mask; it must be 3 numbers 0 or 1",
            ),
            ({"action_mask": [[1, 0, 1]]}, "an array of shape (1, 3) as action mask"),
            ({"action_mask": 1}, "an array of shape () as action mask"),
            ({"action_mask": None}, "a NoneType as action mask"),
            ({"action_mask": "101"}, "a str as action mask"),
            ({"action_mask": ([1, 0], [1])}, "a tuple as action mask"),
            ({"action_mask": np.array(["a", "b", "c"])}, "a ndarray as action mask"),
            ({"action_mask": [1, 2, 0]}, "2 for action 1 as action mask"),
            ({"action_mask": [1, 0, -1]}, "-1 for action 2 as action mask"),
            ({"action_mask": [0.5, 0, 1]}, "0.5 for action 0 as action mask"),
            ({"action_mask": [1, np.nan, 1]}, "nan for action 1 as action mask"),
            ({"action_mask": [0, 0, 0]}, f"an action mask that allows no action; {TERMINAL}"),
            ({"action_mask": np.zeros(3, bool)}, "an action mask that allows no action"),
        ],
    )
    def test_what_is_no_mask_is_one_line_that_names_the_env(
        self, info: Any, message: str, method: str
    ) -> None:
        env = CheckedEnv(masked(Answer([info] if method == "reset" else [GOOD, info])))
        if method == "step":
            env.reset(0)
        with pytest.raises(UserError) as error:
            env.reset(0) if method == "reset" else env.step(0)
        assert str(error.value).startswith(f"Answer: {method}() returned {message}")
        assert "\n" not in str(error.value)

    def test_a_truncated_state_needs_a_mask_and_a_terminal_one_does_not(self) -> None:
        for info in ({}, {"action_mask": [0, 0, 0]}, {"action_mask": "nonsense"}):
            env = CheckedEnv(masked(Answer([GOOD, info], terminated=True, truncated=True)))
            env.reset(0)
            env.step(0)
            assert env.mask is not None
            assert env.mask.tolist() == [True] * 3
            env = CheckedEnv(masked(Answer([GOOD, info], truncated=True)))
            env.reset(0)
            with pytest.raises(UserError, match=r"^Answer: step\(\) returned"):
                env.step(0)

    @pytest.mark.parametrize(
        ("env", "source", "message"),
        [
            (
                lambda: Answer([]),
                "legal",
                "legal is a key of a Dict observation, but observations are Box.*info takes",
            ),
            (lambda: Guarded("key"), "mask", "has no mask; it has legal, sensor"),
            (lambda: Guarded("key"), "sensor", r"sensor is Box.*; a mask has 5 entries, one for each action"),
        ],
    )
    def test_a_key_that_is_no_mask_is_rejected_when_the_env_is_made(
        self, env: Callable[[], Any], source: str, message: str
    ) -> None:
        with pytest.raises(UserError, match=rf"^env\.action_mask.*{message}") as error:
            masked(env(), source)
        assert "\n" not in str(error.value)

    def test_contradicting_settings_are_rejected(self) -> None:
        with pytest.raises(UserError, match="names legal, which is the action mask; leave it out"):
            GymEnv(action_mask="legal", observation_keys=["sensor", "legal"])
        with pytest.raises(UserError, match=r"^env\.action_mask must be info, the key"):
            GymEnv(action_mask="")

    def test_an_entry_that_an_observation_lacks_is_named(self) -> None:
        class Forgets(Guarded):
            def step(self, action: Any) -> Any:
                obs, reward, *_ = super().step(action)
                return {"sensor": obs["sensor"]}, reward, False, False, {}

        env = CheckedEnv(observations.select_entries(masked(Forgets("key"), "legal"), ["sensor"]))
        env.reset(0)
        assert env.mask is not None
        with pytest.raises(
            UserError, match=r"^Forgets: step\(\) returned no action mask in the entry legal of"
        ):
            env.step(int(np.flatnonzero(env.mask)[0]))

    def test_a_dict_with_a_mask_is_not_flattened_without_a_hint(self) -> None:
        class Board(Answer):
            observation_space = spaces.Dict(
                {"observation": spaces.Box(0, 1, (4,)), "action_mask": spaces.MultiBinary(3)}
            )

        with pytest.raises(UserError, match=r"env\.action_mask=action_mask takes the action mask from it"):
            spec_of(Board([]))


class TestResume:
    @pytest.mark.parametrize("form", ["info", "key"])
    def test_restored_environments_have_the_same_masks_and_continue_alike(self, form: str) -> None:
        first, second = vector_env(part(form=form, num_envs=3)), vector_env(part(form=form, num_envs=3))
        play(first, 37)
        second.load_state_dict(first.state_dict())
        assert first.masks is not None
        assert second.masks is not None
        assert first.masks.tolist() == second.masks.tolist()
        assert play(first, 30, seed=1) == play(second, 30, seed=1)

    def test_an_env_whose_masks_are_not_repeated_is_reported(self) -> None:
        """Its observations are; the mask depends on the number of resets."""
        infos: list[Any] = [{"action_mask": [1, 1, place % 2]} for place in range(9)]
        made = [VectorEnv([LocalWorker(masked(Answer(infos)), 0)], lambda *_: 0, None) for _ in range(2)]
        made[0].step([0])
        with pytest.raises(UserError, match=r"the observation or its action mask of the reset differs\. Its"):
            made[1].load_state_dict(made[0].state_dict())

    def test_environments_in_processes_give_the_same_masks(self) -> None:
        envs = vector_env(part(num_envs=2, vectorization=Vectorization["async"]))
        try:
            assert play(envs, 40) == play(vector_env(part(num_envs=2)), 40)
        finally:
            envs.close()

    def test_an_env_that_raised_is_replaced_with_its_mask(self) -> None:
        class Fails(Guarded):
            broken = True

            def step(self, action: Any) -> Any:
                if type(self).broken and self.np_random.bit_generator.state["state"]["state"] % 7 == 3:
                    type(self).broken = False
                    raise RuntimeError("once")
                return super().step(action)

        def make(_: int) -> LocalWorker:
            return LocalWorker(masked(Fails()), 0)

        envs = VectorEnv([make(0)], lambda _, episode: episode, None, make)
        expected = vector_env(part(), None)
        assert play(envs, 60) == play(expected, 60)
        assert not Fails.broken
