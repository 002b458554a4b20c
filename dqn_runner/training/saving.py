"""When the state of a run is saved, under which names, and the events that follow."""

from __future__ import annotations

from collections.abc import Callable

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.unstored_state import UnstoredState
from dqn_runner.checkpointing.names import BEST, numbered_name
from dqn_runner.core.exceptions import DivergedError, UserError
from dqn_runner.core.log import log
from dqn_runner.core.state import State
from dqn_runner.run.directory import RunDirectory
from dqn_runner.training import divergence
from dqn_runner.training.callbacks import Run

_UNSTORED = (
    "changes during the run, but no checkpoint stores it: a resumed run begins with that of a new object; "
    "add state_dict() and load_state_dict(state) to the class (docs/howto/own-loss.md)"
)


class StateSaver:
    """Saves the state of a run as latest.pt, and as a numbered checkpoint or best.pt where that is due."""

    def __init__(
        self,
        directory: RunDirectory,
        agent: DQNAgent,
        state_dict: Callable[[], State],
        run: Run,
    ) -> None:
        """`state_dict` returns the state of the whole run; callbacks get `run`."""
        self.improved = False
        """Whether the next checkpoint is the best one."""
        self.file = directory.latest_checkpoint
        """The newest checkpoint of this process, or the one that it resumed from."""
        self._directory = directory
        self._agent = agent
        self._state_dict = state_dict
        self._unstored = UnstoredState(agent)
        self._callbacks, self._run = run.callbacks, run

    def save(self, step: int, numbered: bool, last: bool, previous_best: str | None) -> None:
        """Save if a numbered checkpoint is due, if the state is the best so far, or if it is the last one.

        The best.pt that is replaced is kept under the name `previous_best`, if that is given. Raises
        DivergedError if a weight is not finite.
        """
        names = [numbered_name(step)] if numbered else []
        names += [BEST] if self.improved else []
        self.improved = False
        if names or last:
            self._write(step, names, previous_best)

    def call_owed(self, finished: str | None) -> bool:
        """Call the events that follow the checkpoint once it is on the disk; returns whether there are any.

        `finished` is why the run is over.
        """
        callbacks = self._callbacks
        if not callbacks.owed:
            return False
        self._directory.wait_for_checkpoint()
        arguments = {"on_checkpoint": self.file, "on_run_end": finished}
        while callbacks.owed:
            event = callbacks.owed[0]
            callbacks.call(event, self._run, arguments[event])
            callbacks.owed.pop(0)
        return True

    def save_after_error(self, step: int) -> None:
        """Save the state after an exception; a second failure must not hide the first."""
        try:
            self._write(step, [], None)
            self._directory.wait_for_checkpoint()
            if not self._directory.checkpoint_failed:
                log.info("the state was saved to %s", self._directory.latest_checkpoint)
        except UserError as error:
            log.error("the state could not be saved: %s", error)
        except Exception:
            log.exception("the state could not be saved")

    def _write(self, step: int, names: list[str], previous_best: str | None) -> None:
        if not self._agent.is_finite():
            raise DivergedError(f"the weights are not finite at step {step}; {divergence.ADVICE}")
        for attribute in self._unstored.changed():
            log.warning("agent.%s %s", attribute, _UNSTORED)
        self._directory.save(self._state_dict(), step, names, previous_best)
        self.file = self._directory.latest_checkpoint
