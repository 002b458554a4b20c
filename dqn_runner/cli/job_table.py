"""The table of jobs with which a plain `-m` sweep ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from dqn_runner.io.terminal import terminal
from dqn_runner.report.listing import Listing
from dqn_runner.report.terminal import table, with_what_differs

_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


class JobTable(Callback):
    """Hydra calls it (`hydra.callbacks` in conf/config.yaml)."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print directory, state, score and settings of each job; a sweep with Optuna has its own table."""
        hydra = config.hydra
        if hydra.sweeper._target_ != _BASIC:
            return
        entries = with_what_differs(Listing(Path(hydra.sweep.dir)).entries())
        if entries:
            console = terminal()
            console.print(f"\nruns in {hydra.sweep.dir}:")
            console.print(table(entries, console.width))
