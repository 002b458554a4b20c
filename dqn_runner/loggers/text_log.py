"""Human-readable lines of metrics, and a logger that writes them to a logging handler."""

from __future__ import annotations

import logging
import math
from datetime import timedelta

from dqn_runner.core.log import log
from dqn_runner.core.records import Record
from dqn_runner.core.state import State

_OWN = "metrics/"
"""Of the keys of the environment's metrics."""
_SHOWN = 8
"""Metrics of the environment in a line."""


def format_record(record: Record) -> str:
    """Format a record as one human-readable line."""
    shown = ("return", "return_mean", "return_std", "return_mean_100", "loss", "q_mean", "epsilon")
    names = {
        "return_mean_100": "return",
        "return_mean": "mean return",
        "return_std": "std",
        "q_mean": "Q",
    }
    values = {key.partition("/")[2]: value for key, value in record.values.items()}
    parts = [f"{names.get(key, key)} {values[key]:.4g}" for key in shown if key in values]
    if "steps_per_second" in values:
        parts.append(f"{values['steps_per_second']:,.0f} steps/s")
    own = [(key, value) for key, value in values.items() if key.startswith(_OWN)]
    parts += [f"{key.removeprefix(_OWN)} {value:.4g}" for key, value in own[:_SHOWN]]
    if math.isfinite(values.get("eta", math.nan)):
        parts.append(f"ETA {timedelta(seconds=round(values['eta']))}")
    return f"{record.kind:5s} step {record.step:,} episode {record.episode:,}: {', '.join(parts)}"


class TextLog:
    """Logger that writes messages and records to a logging handler; records of episodes are left out."""

    def __init__(self, handler: logging.Handler) -> None:
        """Add `handler` to the logger of the package, until `close`."""
        self._handler = handler
        log.addHandler(handler)

    def write(self, record: Record) -> None:
        """Write the line of a record, unless it is of an episode."""
        if record.kind != "episode":
            text = format_record(record)
            self._handler.handle(log.makeRecord(log.name, logging.INFO, "", 0, text, (), None))

    def state_dict(self) -> State:
        """Return an empty state: text is appended and never truncated."""
        return {}

    def close(self, failed: bool) -> None:
        """Remove and close the handler."""
        log.removeHandler(self._handler)
        self._handler.close()
