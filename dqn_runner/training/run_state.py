"""The state of a whole run: what its checkpoints store, and how a resume restores it."""

from __future__ import annotations

from typing import Any

from dqn_runner.agent.own_parts import is_ours
from dqn_runner.checkpointing.user_state import pack_user_state, restored_state
from dqn_runner.core.state import State
from dqn_runner.envs.generators import OwnGenerators
from dqn_runner.envs.stored_spaces import check_same_spaces, load_spaces, store_spaces
from dqn_runner.training.callbacks import StopReason
from dqn_runner.training.events import EventSchedule
from dqn_runner.training.stopping import FinishedRun, ProgressState
from dqn_runner.training.stored_state import check_state


class RunState:
    """Collects the state of every part of a run, and restores it."""

    def __init__(self, trainer: Any, schedule: EventSchedule, generators: OwnGenerators) -> None:
        """Collect from `trainer`, a Trainer; `generators` are in effect while environments are restored."""
        self.finished: FinishedRun | None = None
        """Why the run is over, if it is."""
        self._spec = trainer.collector.envs.spec
        self._loop, self._recorder, self._schedule = trainer.loop, trainer.recorder, schedule
        self._agent, self._preload = trainer.agent, trainer.preload
        self._stopping, self._callbacks = trainer.stopping, trainer.callbacks
        self._loggers = trainer.directory.loggers
        self._generators = generators
        self._spaces = store_spaces(trainer.evaluator.env)
        self._empty: State | None = None

    @property
    def pruned(self) -> bool:
        """Whether the run is over because it was pruned."""
        return self.finished is not None and self.finished.pruned

    def finish(self, reason: StopReason, before: ProgressState) -> None:
        """Note that the run is over, and its progress from before its conclusion."""
        self.finished = self._stopping.finish(reason, before)

    def state_dict(self) -> State:
        """Everything that a run needs to continue."""
        return {
            **self._loop.state_dict(),
            **self._recorder.state_dict(),
            **self._preload.state_dict(),
            "spaces": self._spaces,
            "global_generators": self._generators.state_dict(),
            "progress": self.progress().state_dict(),
            "finished": self.finished and self.finished.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore a run; one that ended, but has a larger budget now, from before its final evaluation.

        Raises ValueError if it cannot be the state of such a run.
        """
        if self._empty is None:  # once: a state that turns out to be damaged is loaded in part
            self._empty = self.state_dict()
        load_spaces(state["spaces"])  # raises ValueError if they are not
        check_same_spaces(state["spaces"], self._spaces)  # first: they explain why other arrays do not fit
        check_state(state, self._empty, self._spec, not is_ours(self._agent.config.optimizer))
        progress, finished = ProgressState(**state["progress"]), None
        if state["finished"] is not None:
            finished = FinishedRun.from_state(state["finished"])
            if not self._stopping.still_ends(finished):
                progress, finished = finished.before, None
        self.finished = finished
        self._callbacks.load_state_dict(progress.callbacks)
        with self._generators:
            self._loop.load_state_dict(state)  # replays open episodes, which draw from the generators
            self._generators.load_state_dict(state["global_generators"])
        self._recorder.load_state_dict(state)
        self._preload.load_state_dict(state)
        self._schedule.last_position = progress.last_event
        self._stopping.early_stopping.load_state_dict(progress.early_stopping)
        self._recorder.metrics.load_state_dict(progress.metrics)
        self._loggers.load_state_dict({name: restored_state(each) for name, each in progress.loggers.items()})

    def progress(self) -> ProgressState:
        """What the events of the run have changed so far.

        Raises UserError if a checkpoint cannot store the state of a callback or a logger.
        """
        loggers = self._loggers.state_dict()
        return ProgressState(
            last_event=self._schedule.last_position,
            early_stopping=self._stopping.early_stopping.state_dict(),
            metrics=self._recorder.metrics.state_dict(),
            loggers={name: pack_user_state(f"logging.{name}", state) for name, state in loggers.items()},
            callbacks=self._callbacks.state_dict(),
        )

    def progress_before_end(self) -> ProgressState:
        """The same without the request that ends the run: a run that continues later did not get it."""
        request, self._callbacks.request = self._callbacks.request, None
        try:
            return self.progress()
        finally:
            self._callbacks.request = request
