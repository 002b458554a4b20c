"""An environment whose answers are checked, so that nothing that learning cannot use goes further."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from dqn_runner.core.exceptions import RunFailedError, UserError
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.core.log import log
from dqn_runner.core.types import Array, BoolArray
from dqn_runner.envs.action_mask_check import ActionMaskCheck
from dqn_runner.envs.actions import action_space
from dqn_runner.envs.base import OLD_GYM, Env, EnvPart, env_name, spec_of
from dqn_runner.envs.env_attributes import EnvAttributes
from dqn_runner.envs.episode_metrics import InfoMetrics
from dqn_runner.envs.generators import OwnGenerators
from dqn_runner.envs.mixed_observations import MixedObservationCheck
from dqn_runner.envs.observation_check import ObservationCheck
from dqn_runner.envs.space_seeds import space_seeder
from dqn_runner.io.signals import as_error

TRACEBACK = "(HYDRA_FULL_ERROR=1 shows its traceback)"
STEP = "step() must return (observation, reward, terminated, truncated, info)"
RESET = "reset(seed=..., options=...) must return (observation, info)"
_NO_ARGUMENT = re.compile(r"unexpected keyword argument '(seed|options)'")


CheckedStep = tuple[Array, float, bool, bool, bool]
"""Observation, reward, terminated, truncated, and whether a life was lost."""
_MOST_REWARD = float(np.finfo(np.float32).max)


class CheckedEnv:
    """Takes the numbers of actions, and returns observations and rewards that fit the spec.

    Training, evaluation and the processes of `env.vectorization=async` use it. Everything that does not
    fit raises a UserError that names the environment, what it declared and what it returned.
    """

    def __init__(self, env: Env, info_metrics: Sequence[str] = ()) -> None:
        """Use `env`; raises UserError if DQN cannot handle its spaces.

        `info_metrics` are the keys of `info` that are metrics beside `info["metrics"]`.
        """
        from dqn_runner.envs.wrappers.action_masks import mask_source

        self.env = env
        self.metrics = InfoMetrics(info_metrics)
        """Metrics of the open episode."""
        self.attributes = EnvAttributes(env)
        """Attributes that callbacks set."""
        self.name = env_name(env)
        self.spec = spec_of(env)
        self._action = action_space(env.action_space, self.name).converter()
        inner = getattr(env, "unwrapped", env)
        spaces = (getattr(inner, name, None) for name in ("action_space", "observation_space"))
        self._seed_spaces = [space_seeder(space) for space in spaces if isinstance(space, gymnasium.Space)]
        self._observation = self._observation_check().check
        source = mask_source(env)
        self._mask = ActionMaskCheck(self.name, source, self.spec.num_actions) if source else None
        self.mask: BoolArray | None = None
        """[actions]: which actions are allowed at the last observation; None without masks."""

    def reset(self, seed: int) -> Array:
        """Reset, and return the first observation [*obs_shape]; the environment may reuse its memory.

        The spaces are seeded too, from which an environment may sample.
        """
        for seed_space in self._seed_spaces:
            seed_space(seed)
        self.metrics.begin_episode()
        try:
            result: Any = self.env.reset(seed=seed)
        except TypeError as error:
            if found := _NO_ARGUMENT.search(str(error)):
                raise self._error(f"reset() does not accept {found[1]}", RESET) from error
            raise
        if _length(result) != 2 or not isinstance(result[1], Mapping):
            raise self._error(f"reset() returned {_describe(result)}", RESET)
        if self._mask is not None:
            self.mask = self._mask.check(result[1], "reset")
        return self._observation(result[0], "reset")

    def step(self, action: int) -> CheckedStep:
        """Take the action of this number, counted from zero."""
        result: Any = self.env.step(self._action(action))
        if result.__class__ is not tuple or len(result) != 5:
            result = self._five(result)
        obs, reward, terminated, truncated, info = result
        if type(reward) is not float or not -_MOST_REWARD <= reward <= _MOST_REWARD:
            reward = self._reward(reward)
        if type(terminated) is not bool:
            terminated = self._flag("terminated", terminated)
        if type(truncated) is not bool:
            truncated = self._flag("truncated", truncated)
        if type(info) is not dict and not isinstance(info, Mapping):
            raise self._error(f"step() returned {_describe(info)} as info, not a dictionary", STEP)
        if self._mask is not None:
            self.mask = self._mask.all_allowed if terminated else self._mask.check(cast("Any", info), "step")
        life_lost = cast("Any", info).get("life_lost", False)
        if type(life_lost) is not bool:
            life_lost = life_lost is not None and self._flag('info["life_lost"]', life_lost)
        if "metrics" in info or self.metrics.keys:
            self.metrics.add(cast("Any", info))
        return self._observation(obs, "step"), reward, terminated, truncated, life_lost

    def close(self) -> None:
        """Close the environment; an error is only reported, because the run does not need it any more."""
        close_env(self.env)

    def _observation_check(self) -> ObservationCheck | MixedObservationCheck:
        space, layout = self.env.observation_space, self.spec.layout
        if layout is not None:
            return MixedObservationCheck(self.name, space, layout)
        return ObservationCheck(self.name, space, self.spec)

    def _five(self, result: Any) -> Any:
        if _length(result) == 5:
            return result
        if _length(result) == 4:
            raise self._error(
                "step() returned 4 values, as in the old gym",
                f"{STEP}; an old environment can be wrapped: {OLD_GYM}",
            )
        raise self._error(f"step() returned {_describe(result)}", STEP)

    def _reward(self, reward: Any) -> float:
        """A finite number, also from an array of one number."""
        found = f"step() returned {_describe(reward)} as reward"
        if (number := _one_number(reward)) is None:
            raise self._error(found, "it must be one finite number")
        if abs(number) > _MOST_REWARD:
            raise self._error(found, "it must be a number that float32 can hold")
        return number

    def _flag(self, which: str, value: Any) -> bool:
        """A truth value, also from an array of one."""
        number = _one_number(value)
        if number not in (0.0, 1.0):
            raise self._error(f"step() returned {_describe(value)} as {which}", "it must be True or False")
        return bool(number)

    def _error(self, found: str, expected: str) -> UserError:
        return UserError(f"{self.name}: {found}; {expected}")


def make_env(part: EnvPart, seed: int, training: bool = True, render: bool | str = False) -> Env:
    """Return a new environment of `part`; `seed` determines what its creation draws from global generators.

    Raises UserError if the part says what is wrong, RunFailedError if creating the environment raises.
    """
    try:
        with OwnGenerators(seed):
            return part.make(training=training, render=render)
    except UserError:
        raise
    except BaseException as raised:
        error = as_error(raised)
        name = getattr(part, "id", None) or type(part).__name__
        raise RunFailedError(
            f"the environment {name} could not be created: {type(error).__name__}: {error} {TRACEBACK}"
        ) from error


def close_env(env: Env) -> None:
    """Close an environment; an error is only reported, so that it does not hide what ended the run."""
    try:
        env.close()
    except BaseException as raised:  # an environment may even call sys.exit()
        error = as_error(raised)
        log.warning("%s: close() raised %s: %s", env_name(env), type(error).__name__, error)


def _length(result: Any) -> int | None:
    """The number of values that a method returned; None if it is not a tuple or list of them."""
    return len(result) if isinstance(result, tuple | list) else None  # pyright: ignore[reportUnknownArgumentType]


def _one_number(value: Any) -> float | None:
    """The finite number that `value` is, or holds as its only element; None if it is none."""
    if isinstance(value, (str, bytes)):
        return None
    try:
        array = np.asarray(value)
        number = (
            float(array.reshape(()).item()) if array.size == 1 and array.dtype.kind in "fiub" else math.nan
        )
    except Exception:
        return None
    return number if math.isfinite(number) else None


def _describe(value: Any) -> str:
    """A value in a few words, for messages."""
    if isinstance(value, np.ndarray):
        return (
            f"an array of shape {value.shape}" if value.size != 1 else f"an array of {value.reshape(-1)[0]}"
        )
    if (length := _length(value)) is not None:
        return f"{length} values ({', '.join(type(item).__name__ for item in value[:6])})"
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"a {type(value).__name__}"
