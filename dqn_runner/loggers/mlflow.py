"""MLflow logger."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

from dqn_runner.core.imports import import_module
from dqn_runner.core.records import Record, RunInfo
from dqn_runner.core.registry import option
from dqn_runner.core.settings import check_settings
from dqn_runner.core.state import State
from dqn_runner.loggers.base import Logger
from dqn_runner.loggers.mlflow_run import MlflowRun, Value
from dqn_runner.loggers.sender import Sender

ARTIFACTS = ("training_curves.png", "metrics.json")
"""Files of the run directory that are stored with the run at its end."""
PARAM_LENGTH = 500
"""Longer values of settings are cut; older servers reject them, and config.json has them."""
_WAIT = 30.0
"""Seconds to wait for the server when a run begins, and when it ends."""


@option("logging", "mlflow", package="logging.mlflow")
@dataclass(kw_only=True)
class Mlflow:
    """MLflow; one MLflow run per run directory, which a resume continues."""

    state_type: ClassVar[type] = dict[str, str | None]

    tracking_uri: str | None = None
    """Server or database; null: MLFLOW_TRACKING_URI, else `mlflow.db` (SQLite) in the working directory."""
    experiment: str | None = None
    """MLflow experiment; null: MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME, else `dqn_runner`."""
    name: str | None = None
    """Name of the MLflow run; null: the name of the run directory."""
    tags: dict[str, str] = field(default_factory=dict[str, str])
    """Tags of the MLflow run."""

    __post_init__ = check_settings

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Logger:
        """Open an MLflow run. A server that does not answer is tried again while the run continues."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        tracking: Any = import_module("mlflow.tracking", "logging=mlflow", extra="mlflow")
        if "MLFLOW_LOGGING_LEVEL" not in os.environ:
            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.ERROR)
        default = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        uri = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default
        run = MlflowRun(
            lambda: tracking.MlflowClient(tracking_uri=uri),
            experiment=self.experiment,
            name=self.name or info.name,
            tags=self.tags,
            params=_params(info.config),
            config=info.config,
            group=info.group,
            run_id=None if state is None else state["id"],
        )
        return _Mlflow(run_dir, run)


class _Mlflow:
    def __init__(self, run_dir: Path, run: MlflowRun) -> None:
        self._run_dir, self._run = run_dir, run
        self._values: list[Value] = []
        self._sender = Sender("MLflow", run.open)
        self._sender.wait(_WAIT)
        self._sender.put(run.store_config)

    def write(self, record: Record) -> None:
        now, kind, step = round(time.time() * 1000), record.kind, record.step
        if len(self._values) > 1000 and self._values[-1].step != step:  # never between records of one step
            self._send()
        self._values += [Value(kind, key, value, now, step) for key, value in record.values.items()]
        if record.kind != "episode":
            self._send()

    def write_video(self, path: Path, step: int) -> None:
        self._sender.put(lambda: self._run.store_file(path, "videos"))

    def state_dict(self) -> State:
        return {"id": self._run.run_id}

    def close(self, failed: bool) -> None:
        self._send()
        for name in ARTIFACTS:
            if (path := self._run_dir / name).is_file():
                self._sender.put(lambda path=path: self._run.store_file(path))
        self._sender.put(lambda: self._run.end(failed))
        self._sender.close(_WAIT)

    def _send(self) -> None:
        if self._values:
            values, self._values = self._values, []
            self._sender.put(lambda: self._run.store_values(values))


def _params(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings as flat texts that every server accepts."""
    found: dict[str, str] = {}
    for key, value in _leaves(config):
        text = str(value)
        found[key[:250]] = text if len(text) <= PARAM_LENGTH else text[: PARAM_LENGTH - 1] + "…"
    return found


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(cast("Mapping[str, Any]", value), f"{prefix}{key}.")
        else:
            yield "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in f"{prefix}{key}"), value
