"""A replay of the user's own: checked when it is built; a checkpoint stores whatever it keeps."""

from __future__ import annotations

from typing import Any, cast

from dqn_runner.checkpointing.user_state import check_user_state, marked_state, restored_state
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.registry import import_path
from dqn_runner.core.state import State
from dqn_runner.replay.buffer import Replay

_METHODS = ("add", "sample", "update", "truncate", "__len__", "state_dict", "load_state_dict")


class OwnReplay:
    """What a class of the user's own built.

    Its state has no structure that is known here. It is restored with arrays of numpy where it had them.
    """

    def __init__(self, part: object, replay: Replay, capacity: int, num_frames: int) -> None:
        """`part` built `replay` for `capacity` transitions; `num_frames` is that of `ReplayConfig.build`.

        Raises UserError if the replay lacks a method, or if a checkpoint cannot store its state.
        """
        self._name = f"agent.replay={import_path(type(part))}"
        self._replay = replay
        self._size = {"capacity": capacity, "num_frames": num_frames}
        if missing := [name for name in _METHODS if not callable(getattr(replay, name, None))]:
            raise UserError(
                f"{self._name}: the {type(replay).__name__} that its build() returned has no method "
                f"{missing[0]}(); the methods of a replay are those of dqn_runner.replay.buffer.Replay"
            )
        self.add, self.sample = replay.add, replay.sample
        self.update, self.truncate = replay.update, replay.truncate
        check_user_state(self._name, self._own_state())

    def __len__(self) -> int:
        """Number of transitions that can be drawn."""
        return len(self._replay)

    def state_dict(self) -> State:
        """The state of the replay, restorable with its types; raises UserError if that is impossible."""
        return {**self._size, "own": marked_state(self._name, self._own_state())}

    def load_state_dict(self, state: State) -> None:
        """Restore the replay; raises UserError if it rejects the state."""
        try:
            self._replay.load_state_dict(restored_state(state["own"]))
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{self._name}: its replay cannot load its stored state: {type(error).__name__}: {error}"
            ) from error

    def _own_state(self) -> State:
        """What the replay returns as its state; raises UserError if it is not a dictionary."""
        state: Any = self._replay.state_dict()
        if not isinstance(state, dict):
            found = "nothing" if state is None else f"a {type(state).__name__}"
            raise UserError(
                f"{self._name}: state_dict() of its replay returned {found}, not a dictionary; a checkpoint "
                "stores it, and load_state_dict() gets it when the run is resumed"
            )
        return cast("State", state)
