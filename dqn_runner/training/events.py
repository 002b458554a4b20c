"""Which events of a run are due: evaluating, logging, saving."""

from __future__ import annotations

from enum import Flag, auto

from dqn_runner.core.state import crossed
from dqn_runner.training.config import TrainingConfig


class Event(Flag):
    """What is due after a training iteration."""

    NONE = 0
    EVALUATE = auto()
    LOG = auto()
    SAVE = auto()


class EventSchedule:
    """Finds the events whose period was crossed since the last ones were handled.

    Positions count training episodes or env steps, as `trainer.frequency_unit` says.
    """

    def __init__(self, config: TrainingConfig) -> None:
        """The periods are the frequencies of `config`."""
        self.last_position = 0
        """Position up to which events were handled."""
        self._periods = {
            Event.EVALUATE: config.eval_frequency,
            Event.LOG: config.log_frequency,
            Event.SAVE: config.checkpoint_frequency,
        }

    def due(self, position: int) -> Event:
        """The events that are due at `position`."""
        due = Event.NONE
        for event, every in self._periods.items():
            if crossed(self.last_position, position, every):
                due |= event
        return due
