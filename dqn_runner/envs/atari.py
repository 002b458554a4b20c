"""The games of the Arcade Learning Environment, under the two protocols that results are published with."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import Enum

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_module
from dqn_runner.core.lazy_imports import gymnasium
from dqn_runner.core.registry import option
from dqn_runner.envs.base import Env, EnvConfig

NOOP_MAX = 30
STICKY_ACTION_PROB = 0.25


class AtariProtocol(Enum):
    """Where the randomness of a deterministic machine comes from, and what ends an episode for learning."""

    sticky = "sticky"
    noop = "noop"


@option("env", "atari")
@dataclass(kw_only=True)
class Atari(EnvConfig):
    """A game of the Arcade Learning Environment (Bellemare et al. 2013): uint8 [4, 84, 84], newest last.

    `protocol=sticky` is that of Machado et al. 2018, and Dopamine's: the machine repeats the last action
    with probability 0.25, and only the end of the game ends an episode. `protocol=noop` is that of Mnih et
    al. 2015: games begin with 1 to 30 idle frames, and in training a lost life counts as an end for learning.
    Both cut episodes after 108,000 frames: `trainer.max_steps_per_episode=27000`.
    """

    game: str = "Breakout"
    """As in `Breakout` or `SpaceInvaders`."""
    protocol: AtariProtocol = AtariProtocol.sticky
    """What the results are to be compared with."""
    episodic_life: bool | None = None
    """In training, what follows a lost life is worth nothing, though the game goes on; null: by protocol."""
    frame_skip: int = 4
    """Frames that each action lasts; the observation is the brightest of the last two."""
    frame_stack: int = 4
    """Observations that the agent sees at once."""
    full_action_space: bool = False
    """All 18 actions of the joystick instead of those that the game uses."""
    reward_clip: float | None = 1.0
    """Learning sees rewards between minus and plus this; returns stay as they are. null for no limit."""

    def __post_init__(self) -> None:
        """Refuse a game without frames."""
        super().__post_init__()
        for name in ("frame_skip", "frame_stack"):
            if (value := getattr(self, name)) < 1:
                raise UserError(f"env.{name} must be at least 1, got {value}")

    def make(self, training: bool = True, render: bool = False) -> Env:
        """A new game; lost lives are told only in training."""
        from dqn_runner.envs.wrappers import lost_lives, observations

        why = f"env.game={self.game}"
        ale_py = import_module("ale_py", why, extra="atari")
        import_module("cv2", why, extra="atari")
        sticky = self.protocol is AtariProtocol.sticky
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # or each game prints a banner
        env: Env = ale_py.AtariEnv(
            game=self._rom(),
            obs_type="grayscale",
            frameskip=1,
            repeat_action_probability=STICKY_ACTION_PROB if sticky else 0.0,
            full_action_space=self.full_action_space,
            render_mode="rgb_array" if render else None,
        )
        env = gymnasium.wrappers.AtariPreprocessing(
            env, noop_max=0 if sticky else NOOP_MAX, frame_skip=self.frame_skip
        )
        episodic_life = not sticky if self.episodic_life is None else self.episodic_life
        if training and episodic_life:
            env = lost_lives.LostLives(env)
        return observations.stack_frames(env, self.frame_stack)

    def _rom(self) -> str:
        """The name of the game in ALE, which writes `space_invaders`."""
        roms = import_module("ale_py.roms", f"env.game={self.game}", extra="atari").get_all_rom_ids()
        games = {rom.replace("_", ""): rom for rom in roms}
        name = self.game.replace("_", "").lower()
        if name in games:
            return games[name]
        camel = {key: rom.title().replace("_", "") for key, rom in games.items()}
        close = difflib.get_close_matches(name, camel, n=1)
        hint = f"; did you mean {camel[close[0]]}?" if close else ""
        raise UserError(
            f"env.game={self.game} is no game of the Arcade Learning Environment{hint} "
            f"(there are: {', '.join(sorted(camel.values()))})"
        )
