"""When the state of a run is saved, and under which names."""

from __future__ import annotations

from collections.abc import Callable

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.checkpointing.checkpointer import BEST, numbered_name
from dqn_runner.core.exceptions import DivergedError
from dqn_runner.core.log import log
from dqn_runner.core.state import State
from dqn_runner.run.directory import RunDirectory
from dqn_runner.training import divergence


class StateSaver:
    """Saves the state of a run as latest.pt, and as a numbered checkpoint or best.pt where that is due."""

    def __init__(self, directory: RunDirectory, agent: DQNAgent, state_dict: Callable[[], State]) -> None:
        """`state_dict` returns the state of the whole run."""
        self.improved = False
        """Whether the next checkpoint is the best one."""
        self._directory = directory
        self._agent = agent
        self._state_dict = state_dict

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

    def save_after_error(self, step: int) -> None:
        """Save the state after an exception; a second failure must not hide the first."""
        try:
            self._write(step, [], None)
            self._directory.wait_for_checkpoint()
            if not self._directory.checkpoint_failed:
                log.info("the state was saved to %s", self._directory.latest_checkpoint)
        except Exception:
            log.exception("the state could not be saved")

    def _write(self, step: int, names: list[str], previous_best: str | None) -> None:
        if not self._agent.is_finite():
            raise DivergedError(f"the weights are not finite at step {step}; {divergence.ADVICE}")
        self._directory.save(self._state_dict(), step, names, previous_best)
