"""Pictures of the runs of a sweep and its page, drawn in a thread of the sweep instead of in its jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from dqn_runner.core.log import log
from dqn_runner.io.json_io import METRICS

if TYPE_CHECKING:
    from optuna.study import Study

WritePage = Callable[["Study", Path], None]
"""Writes a page about a study into a directory."""


def no_page(study: Study, directory: Path) -> None:
    """Write no page."""


LARGEST_SHARE = 0.05
"""The share of the time in which a page is written, but for the last one."""


class CurveDrawer:
    """Draws in a thread of the sweep, one picture after the other, while jobs run."""

    def __init__(self) -> None:
        """Nothing is imported before the first picture."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="curves")

    def draw(self, run_dir: Path) -> None:
        """Draw the curves of a run that has ended, as soon as the thread is free."""
        self._thread.submit(_draw, run_dir)

    def submit(self, task: Callable[[], None]) -> None:
        """Call `task` when the thread is free."""
        self._thread.submit(task)

    def close(self, wait: bool) -> None:
        """Finish the pictures that are waiting, or leave them out: then `dqn_runner.run.plots` draws them."""
        self._thread.shutdown(wait=True, cancel_futures=not wait)


def _draw(run_dir: Path) -> None:
    """Errors are logged and not raised: a picture must not end a sweep."""
    from dqn_runner.run import plots

    if not (run_dir / METRICS).exists():  # a run of another machine, or one that did not start
        return
    try:
        plots.draw_training_curves(run_dir)
    except Exception as error:
        log.warning("the curves of %s could not be drawn: %s: %s", run_dir, type(error).__name__, error)


class LivePage:
    """The page of a sweep: written when something has changed, but not so often that it costs much."""

    def __init__(self, drawer: CurveDrawer, write: Callable[[], None]) -> None:
        """`write` is called in the thread of `drawer`; its errors are logged."""
        self._drawer = drawer
        self._write = write
        self._waiting = False
        self._not_before = 0.0

    def update(self) -> None:
        """Write the page soon, unless that is to happen anyway or has happened just now."""
        if not self._waiting and time.monotonic() >= self._not_before:
            self._waiting = True
            self._drawer.submit(self._run)

    def finish(self) -> None:
        """Write the page once more, with the end of the sweep."""
        self._drawer.submit(self._run)

    def _run(self) -> None:
        self._waiting = False  # a change from now on needs another page
        started = time.monotonic()
        try:
            self._write()
        except Exception as error:
            log.warning("the page of the sweep could not be written: %s: %s", type(error).__name__, error)
        taken = time.monotonic() - started
        self._not_before = time.monotonic() + taken / LARGEST_SHARE
