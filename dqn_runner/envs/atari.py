"""Atari games of the Arcade Learning Environment, under the two protocols that papers report results with."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import Enum

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_module
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.core.registry import option
from dqn_runner.core.settings import setting
from dqn_runner.envs.base import Env, EnvConfig, render_mode

NOOP_MAX = 30
STICKY_ACTION_PROB = 0.25


class AtariProtocol(Enum):
    """Source of randomness in the deterministic emulator, and what learning treats as terminal."""

    sticky = "sticky"
    noop = "noop"


@option("env", "atari")
@dataclass(kw_only=True)
class Atari(EnvConfig):
    """A game of the Arcade Learning Environment (Bellemare et al. 2013): uint8 [4, 84, 84], newest last.

    `protocol=sticky` is that of Machado et al. 2018 and of Dopamine: the emulator repeats the last action
    with probability 0.25, and only the end of the game is terminal. `protocol=noop` is that of Mnih et al.
    2015: games start with 1 to 30 no-op frames, and in training a lost life counts as terminal.
    Both truncate episodes after 108,000 frames: `trainer.max_steps_per_episode=27000`.
    """

    game: str = "Breakout"
    """Name of the game, for example `Breakout` or `SpaceInvaders`."""
    protocol: AtariProtocol = AtariProtocol.sticky
    """Evaluation protocol of the published results to compare with."""
    episodic_life: bool | None = None
    """In training, do not bootstrap past a lost life; the game continues. null follows the protocol."""
    frame_skip: int = setting(4, at_least=1, largest=10_000)
    """Frames per action; the observation is the pixel-wise maximum of the last two."""
    frame_stack: int = setting(4, at_least=1, largest=10_000)
    """Number of most recent observations that are stacked into one."""
    full_action_space: bool = False
    """Use all 18 joystick actions instead of only those that the game uses."""
    reward_clip: float | None = setting(1.0, above=0)
    """Clip the scaled rewards that the agent learns from to [-reward_clip, reward_clip]; reported returns are
    not clipped. null disables clipping."""

    def make(self, training: bool = True, render: bool | str = False) -> Env:
        """Return a new game; it reports lost lives only in training.

        Raises UserError if the game does not exist or `ale_py` or `cv2` is not installed.
        """
        from dqn_runner.envs.wrappers import lost_lives, observations

        why = f"env.game={self.game}"
        ale_py = import_module("ale_py", why, extra="atari")
        import_module("cv2", why, extra="atari")
        sticky = self.protocol is AtariProtocol.sticky
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # otherwise each game prints a banner
        env: Env = ale_py.AtariEnv(
            game=self._rom(),
            obs_type="grayscale",
            frameskip=1,
            repeat_action_probability=STICKY_ACTION_PROB if sticky else 0.0,
            full_action_space=self.full_action_space,
            render_mode=render_mode(render),
        )
        env = gymnasium.wrappers.AtariPreprocessing(
            env, noop_max=0 if sticky else NOOP_MAX, frame_skip=self.frame_skip
        )
        episodic_life = not sticky if self.episodic_life is None else self.episodic_life
        if training and episodic_life:
            env = lost_lives.LostLives(env)
        return observations.stack_frames(env, self.frame_stack)

    def _rom(self) -> str:
        """Return the ROM id of the game in ALE, for example `space_invaders`."""
        roms = import_module("ale_py.roms", f"env.game={self.game}", extra="atari").get_all_rom_ids()
        games = {rom.replace("_", ""): rom for rom in roms}
        name = self.game.replace("_", "").lower()
        if name in games:
            return games[name]
        camel = {key: rom.title().replace("_", "") for key, rom in games.items()}
        close = difflib.get_close_matches(name, camel, n=1)
        hint = f"; did you mean {camel[close[0]]}?" if close else ""
        raise UserError(
            f"env.game={self.game} is not a game of the Arcade Learning Environment{hint} "
            f"(available: {', '.join(sorted(camel.values()))})"
        )
