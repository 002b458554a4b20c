"""Draws the training curves of the runs of a sweep, so that its jobs need not import a library for that."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dqn_runner.core.log import log
from dqn_runner.io.json_io import METRICS


class CurveDrawer:
    """Draws in a thread of the sweep, one picture after the other, while jobs run."""

    def __init__(self) -> None:
        """Nothing is imported before the first picture."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="curves")

    def draw(self, run_dir: Path) -> None:
        """Draw the curves of a run that has ended, as soon as the thread is free."""
        self._thread.submit(_draw, run_dir)

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
