"""The games of MinAtar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_module
from dqn_runner.core.registry import option
from dqn_runner.core.settings import setting
from dqn_runner.envs.base import Env, EnvConfig, render_mode


@option("env", "minatar")
@dataclass(kw_only=True)
class MinAtar(EnvConfig):
    """One of the five games of MinAtar (Young & Tian 2019): bool images [10, 10, channels], one channel per
    type of object."""

    game: str = "breakout"
    """Name of the game: asterix, breakout, freeway, seaquest or space_invaders."""
    minimal_actions: bool = True
    """Use only the actions that affect the game (v1); false uses all six (v0), as in the paper."""
    sticky_action_prob: float = setting(0.1, at_least=0, at_most=1)
    """Probability that the game repeats the last action instead of the chosen one."""
    difficulty_ramping: bool = True
    """Make the game faster over time."""

    def make(self, training: bool = True, render: bool | str = False) -> Env:
        """Return a new game; raises UserError if it does not exist or `minatar` is not installed."""
        minatar = import_module("minatar.gym", f"env.game={self.game}", extra="minatar")
        try:
            game = minatar.BaseEnv(
                game=self.game,
                use_minimal_action_set=self.minimal_actions,
                sticky_action_prob=self.sticky_action_prob,
                difficulty_ramping=self.difficulty_ramping,
                render_mode=render_mode(render),
            )
        except ModuleNotFoundError as error:
            games = "asterix, breakout, freeway, seaquest, space_invaders"
            raise UserError(f"env.game={self.game} is not a MinAtar game; available: {games}") from error
        return clear_last_action_on_reset(game)


def clear_last_action_on_reset(env: Env) -> Env:
    """Make `reset` of a MinAtar environment clear the last action; returns `env`.

    MinAtar's own `reset` keeps it, so that a sticky action could carry it into the next episode.
    """
    reset = env.reset

    def clear_and_reset(**kwargs: Any) -> Any:
        env.game.last_action = 0
        return reset(**kwargs)

    env.reset = clear_and_reset
    return env
