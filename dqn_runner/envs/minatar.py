"""Environments: parts that make them, and their shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_module
from dqn_runner.core.registry import option
from dqn_runner.envs.base import Env, EnvConfig


@option("env", "minatar")
@dataclass(kw_only=True)
class MinAtar(EnvConfig):
    """One of the five games of MinAtar (Young & Tian 2019): 10x10 images, one channel per kind of object."""

    game: str = "breakout"
    """asterix, breakout, freeway, seaquest or space_invaders."""
    minimal_actions: bool = True
    """Only the actions that the game uses (v1); false gives all six (v0), as in the paper's results."""
    sticky_action_prob: float = 0.1
    """Probability that the game repeats the last action instead of the chosen one."""
    difficulty_ramping: bool = True
    """The game becomes faster as it goes on."""

    def make(self, training: bool = True, render: bool = False) -> Env:
        """A new game."""
        minatar = import_module("minatar.gym", f"env.game={self.game}", extra="minatar")
        try:
            game = minatar.BaseEnv(
                game=self.game,
                use_minimal_action_set=self.minimal_actions,
                sticky_action_prob=self.sticky_action_prob,
                difficulty_ramping=self.difficulty_ramping,
                render_mode="rgb_array" if render else None,
            )
        except ModuleNotFoundError as error:
            games = "asterix, breakout, freeway, seaquest, space_invaders"
            raise UserError(f"env.game={self.game} is no MinAtar game; there are {games}") from error
        return forget_last_action(game)


def forget_last_action(env: Env) -> Env:
    """MinAtar's reset keeps the last action, which sticky actions would carry into the next episode."""
    reset = env.reset

    def fresh_reset(**kwargs: Any) -> Any:
        env.game.last_action = 0
        return reset(**kwargs)

    env.reset = fresh_reset
    return env
