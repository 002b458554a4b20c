"""A table of a running sweep on a terminal, below its messages; elsewhere there are only the messages.

It reads what the runs write anyway, and asks the study only when a trial has ended.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from optuna.study import Study
from optuna.trial import FrozenTrial

from dqn_runner.config.overrides import parse_overrides
from dqn_runner.core.log import log
from dqn_runner.io.terminal import can_redraw, printable, terminal
from dqn_runner.run.last_records import LastRecords, read_last_records
from dqn_runner.sweep.grid import expected_trials
from dqn_runner.sweep.plan import Plan
from dqn_runner.sweep.results.ranking import counts, ranked, validation_runs
from dqn_runner.sweep.trial_record import TrialRecord

if TYPE_CHECKING:
    from rich.live import Live

    from dqn_runner.sweep.live_view import BestView, RunView

INTERVAL = 1.0
"""Seconds between two drawings, at least."""
LARGEST_SHARE = 0.004
"""The share of a core that drawing takes at most; more time lies between drawings that take long."""
ENOUGH = 0.05
"""Runs that a session must have done before the time left can be estimated."""


@dataclass(frozen=True)
class _ActiveRun:
    """A run whose job is running."""

    trial: int
    index: int
    seed: int
    directory: Path
    settings: str
    budget: tuple[int | None, int | None]
    """Env steps and episodes."""
    first_share: float
    """What earlier sessions have done of it."""


class LiveTable:
    """Shows a sweep while it is entered; every method may be called without a terminal too."""

    def __init__(self, study: Study, plan: Plan) -> None:
        """Nothing is shown yet."""
        self._study = study
        self._plan = plan
        self._active: dict[Path, _ActiveRun] = {}
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._handlers: list[tuple[logging.StreamHandler[Any], Any]] = []
        self._changed = True
        self._total = 0
        """Trials that the study will have."""
        self._counts: Mapping[str, int] = {}
        self._best: Sequence[BestView] = ()
        self._left = 0.0
        """Runs of the trials that have not ended, and of the validation."""
        self._worked = 0.0
        """Runs that ended in this session, less what earlier ones did of them."""
        self._started = self._next = 0.0

    def __enter__(self) -> LiveTable:
        """Show the table if there is a terminal, unless the command asks for plain lines."""
        self._started = time.monotonic()
        settings = self._plan
        verbose = OmegaConf.select(settings.config, "hydra.verbose", default=False)
        wanted = OmegaConf.select(settings.job, "logging.console.progress_bar", default=True)
        if can_redraw() and wanted and not verbose:
            self._open()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the table from the terminal."""
        self._close()

    @contextmanager
    def running(self, trial: FrozenTrial, index: int, directory: Path) -> Generator[None]:
        """Within the block, a job runs this seed of the trial in `directory`."""
        overrides = TrialRecord(trial).overrides
        budget = _budget(self._plan, overrides)
        before = _share(read_last_records(directory), budget) or 0.0
        settings = " ".join(map(_shortened, overrides))
        seed = self._plan.seed + index
        active = _ActiveRun(trial.number, index, seed, directory, settings, budget, before)
        with self._lock:
            self._active[directory] = active
        try:
            yield
        finally:
            with self._lock:
                del self._active[directory]
                self._worked += 1.0 - before
                self._changed = True

    def results_changed(self) -> None:
        """Read the results of the study again before the next drawing."""
        self._changed = True

    def refresh(self) -> None:
        """Draw the table again, if it is time; called several times a second by the thread that opened it.

        An error ends the table, and not the sweep.
        """
        if self._live is None or time.monotonic() < self._next:
            return
        started = time.thread_time()
        try:
            self._live.update(self._render(self._live.console.size), refresh=True)
        except Exception as error:
            self._close()
            log.warning("the table of the sweep ends: %s: %s", type(error).__name__, error)
        self._next = time.monotonic() + max(INTERVAL, (time.thread_time() - started) / LARGEST_SHARE)

    def _open(self) -> None:
        from rich.live import Live

        console = terminal()
        streams = (sys.stdout, sys.stderr)
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stderr=sys.stderr is not None and sys.stderr.isatty(),
            vertical_overflow="crop",
        )
        self._live.start()
        console.show_cursor(True)  # so that it is not missing after kill -9
        for old, new in zip(streams, (sys.stdout, sys.stderr), strict=True):
            for handler in _handlers_of(old) if new is not old else ():
                handler.setStream(new)
                self._handlers.append((handler, old))

    def _close(self) -> None:
        if self._live is None:
            return
        for handler, stream in self._handlers:
            handler.setStream(stream)
        self._handlers.clear()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # an incomplete line, which the table would lose
        live, self._live = self._live, None
        live.stop()

    def _render(self, size: tuple[int, int]) -> Any:
        """The table of this moment, for a terminal of this width and height."""
        from dqn_runner.sweep.live_view import SweepView, live_table

        if self._changed:
            self._changed = False
            self._read_results()
        with self._lock:
            active, worked = list(self._active.values()), self._worked
        elapsed = time.monotonic() - self._started
        views = [_view(run, read_last_records(run.directory), self._plan) for run in active]
        shares = [view.share or 0.0 for view in views]
        worked += sum(max(0.0, share - run.first_share) for share, run in zip(shares, active, strict=True))
        left = self._left - sum(shares) - sum(run.index for run in active if not self._validates(run))
        eta = None if worked < ENOUGH else max(0.0, left) * elapsed / worked
        etas = [view.eta for view in views if view.eta is not None]
        view = SweepView(
            self._plan.name,
            self._total,
            self._counts,
            views,
            self._best,
            elapsed,
            eta if eta is None else max(eta, *etas, 0.0),
        )
        return live_table(view, *size)

    def _validates(self, run: _ActiveRun) -> bool:
        return run.index >= self._plan.settings.seeds

    def _read_results(self) -> None:
        from dqn_runner.sweep.live_view import MOST_BEST, BestView

        settings = self._plan.settings
        self._total = expected_trials(self._study, settings.n_trials)
        self._counts = counts(self._study, settings.n_trials)
        best = ranked(self._study, settings)
        self._best = [
            BestView(
                trial.number,
                ", ".join(f"{n} {v:.6g}" for n, v in zip(settings.objectives, trial.values, strict=True)),
                " ".join(map(_shortened, TrialRecord(trial).overrides)),
            )
            for trial in best[:MOST_BEST]
        ]
        over = sum(count for state, count in self._counts.items() if state not in ("running", "waiting"))
        validated = len(validation_runs(self._study, best[0], settings)) if best and settings.validate else 0
        self._left = max(0, self._total - over) * settings.seeds + max(0, settings.validate - validated)


def _view(run: _ActiveRun, last: LastRecords, plan: Plan) -> RunView:
    from dqn_runner.sweep.live_view import RunView

    seeds = plan.settings.seeds
    return RunView(
        trial=run.trial,
        seed=run.seed if seeds > 1 or run.index >= seeds else None,
        validates=run.index >= seeds,
        share=_share(last, run.budget),
        step=last.step,
        training_return=last.training_return,
        score=last.score,
        eta=last.eta,
        settings=run.settings,
    )


def _budget(plan: Plan, overrides: Sequence[str]) -> tuple[int | None, int | None]:
    """The budget of a run in env steps and in episodes."""
    given = {o.key_or_group: o.value() for o in parse_overrides(overrides)}
    found = [
        given.get(key, OmegaConf.select(plan.job, key, default=None))
        for key in ("trainer.max_steps", "trainer.max_episodes")
    ]
    steps, episodes = (int(value) if isinstance(value, int | float) else None for value in found)
    return steps, episodes


def _share(last: LastRecords, budget: tuple[int | None, int | None]) -> float | None:
    """The used fraction of the budget; None before the first record."""
    counts = zip((last.step, last.episode), budget, strict=True)
    return min(1.0, max(done / of if of else 0.0 for done, of in counts)) if last.step else None


def _shortened(override: str) -> str:
    """An override by the last part of its key, with a number of four digits."""
    key, _, value = override.partition("=")
    with suppress(ValueError):
        value = f"{float(value):.4g}" if "." in value else value
    return printable(f"{key.rpartition('.')[2]}={value}")


def _handlers_of(stream: Any) -> Iterator[logging.StreamHandler[Any]]:
    """The handlers of all loggers that write to a stream."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.getLogger().manager.loggerDict)]
    for logger in loggers:
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                yield handler
