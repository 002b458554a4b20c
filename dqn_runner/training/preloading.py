"""Fills the replay with recorded transitions before the first env step, and remembers where they are from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.log import log
from dqn_runner.core.state import State
from dqn_runner.core.types import Array, EnvSpec
from dqn_runner.envs.actions import action_space
from dqn_runner.envs.base import Env, EnvPart, env_name
from dqn_runner.io.entries import is_file
from dqn_runner.replay.buffer import Replay
from dqn_runner.replay.demonstrations import ReplayWithDemonstrations
from dqn_runner.replay.frame_store import count_frames
from dqn_runner.replay.offline.minari_dataset import PREFIX, digest_of, files_of, read_minari
from dqn_runner.replay.offline.npz_file import read_npz
from dqn_runner.replay.offline.recording import Origin, Recording, checked
from dqn_runner.training.resources import available_memory, format_bytes

_CHUNK = 4096
"""Observations whose statistics are computed together."""


class Preload:
    """The recording that a run begins with. A resumed run has it in its checkpoints and does not read it."""

    def __init__(self, agent: DQNAgent, env: Env, part: EnvPart, spec: EnvSpec, replay: Replay) -> None:
        """`env` is an environment of `part`, and `spec` its shapes; nothing is read yet."""
        config = agent.config.replay
        self.origin: Origin | None = None
        """Where the transitions are from; None before they are loaded, and without a recording."""
        self._agent, self._env, self._part, self._spec, self._replay = agent, env, part, spec, replay
        self._source: str | None = getattr(config, "preload", None)  # a replay of the user's has no recording
        self._where = f"agent.replay.preload={self._source}"

    @property
    def demonstrations(self) -> int:
        """The number of transitions that the replay keeps beside its own."""
        if self.origin is None or not self._agent.config.replay.demonstrations:
            return 0
        return self.origin["transitions"]

    def fill(self) -> None:
        """Read the recording, if there is one, and put its transitions into the replay, once.

        Raises UserError, before the replay changes, if it cannot be read or does not fit the environment.
        """
        if self._source is None or self.origin is not None:
            return
        recording, digest = self._read()
        self._require_room(len(recording))
        try:
            self._put(recording, self._target(recording))
        except MemoryError as error:
            raise UserError(
                f"{self._where}: its {len(recording)} transitions do not fit into memory"
            ) from error
        for first in range(0, len(recording), _CHUNK):
            self._agent.observe(recording.observations[recording.at[first : first + _CHUNK]])
        self.origin = Origin(
            source=self._source, sha256=digest, transitions=len(recording), episodes=recording.episodes
        )

    def changed(self) -> Iterator[str]:
        """One line if the recording is not the one that the run began with; none if it does not exist."""
        if self.origin is None:
            return
        if (found := self._digest()) is not None and found != self.origin["sha256"]:
            yield (
                f"{self._where} has changed since this run began. The run continues with the "
                "transitions that it began with, which are in its checkpoints (resume=never starts over with "
                "the new ones)"
            )

    def log(self) -> None:
        """Log where the transitions are from, if there is a recording."""
        if (origin := self.origin) is None:
            return
        share: float = self._agent.config.replay.demonstrations
        use = f"{share:.0%} of each batch" if share else "ordinary transitions of the replay"
        log.info(
            "the replay began with %d transitions of %d episodes from %s (sha256 %s): %s",
            *(origin["transitions"], origin["episodes"], origin["source"], origin["sha256"][:12], use),
        )

    def state_dict(self) -> State:
        """Where the transitions are from; nothing for a run without a recording."""
        if self._source is None:
            return {}
        empty = Origin(source=self._source, sha256="", transitions=0, episodes=0)
        return {"preloaded": dict(self.origin or empty)}

    def load_state_dict(self, state: State) -> None:
        """Restore it; the transitions are part of the state of the replay."""
        if self._source is not None:
            self.origin = Origin(**state["preloaded"])

    def _read(self) -> tuple[Recording, str]:
        assert self._source is not None
        from dqn_runner.envs.wrappers.action_masks import mask_source

        if self._source.startswith(PREFIX):
            dataset = self._source.removeprefix(PREFIX)
            raw, digest = read_minari(dataset, self._where, mask_source(self._env))
        else:
            raw, digest = read_npz(Path(self._source).expanduser(), self._where)
        actions = action_space(self._env.action_space, env_name(self._env))
        return checked(raw, self._spec, actions, self._agent.config.n_step, self._where), digest

    def _digest(self) -> str | None:
        """SHA-256 of the recording as it is now; None if it cannot be read."""
        from hashlib import file_digest

        assert self._source is not None
        try:
            if self._source.startswith(PREFIX):
                directory = files_of(self._source.removeprefix(PREFIX))
                return digest_of(directory) if directory.is_dir() else None
            path = Path(self._source).expanduser()
            if not is_file(path):
                return None
            with path.open("rb") as file:
                return file_digest(file, "sha256").hexdigest()
        except OSError:
            return None

    def _require_room(self, transitions: int) -> None:
        config = self._agent.config.replay
        if not config.demonstrations:
            if transitions > config.capacity:
                raise UserError(
                    f"{self._where} has {transitions} transitions, more than agent.replay.capacity="
                    f"{config.capacity}; raise the capacity, or set agent.replay.demonstrations to keep them "
                    "beside it"
                )
            return
        needed = dataclasses.replace(config, capacity=transitions).num_bytes(self._spec)
        if needed > available_memory():
            raise UserError(
                f"{self._where}: its {transitions} transitions need {format_bytes(needed)} of memory, but "
                f"{format_bytes(available_memory())} are free"
            )

    def _target(self, recording: Recording) -> Replay:
        """The replay that takes the transitions."""
        if not isinstance(self._replay, ReplayWithDemonstrations):
            return self._replay
        frames = count_frames(_in_order(recording), self._spec) if self._spec.frame_stack > 1 else 1
        return self._replay.reserve(len(recording), frames)

    def _put(self, recording: Recording, replay: Replay) -> None:
        """Add the steps as those of an environment, with the rewards that the agent learns from."""
        learning_reward = self._part.learning_reward
        for index in range(len(recording)):
            obs, action, reward, *rest = recording.step(index)
            replay.add(0, obs, action, learning_reward(reward), *rest)
        masks = () if recording.masks is None else (recording.masks[recording.next_at[-1]],)
        replay.truncate(0, recording.observations[recording.next_at[-1]], *masks)


def _in_order(recording: Recording) -> Iterator[Array]:
    """The observations of a recording in the order in which a replay gets them."""
    for first, last in zip(recording.at, recording.next_at, strict=True):
        yield recording.observations[first]
        yield recording.observations[last]
