"""One run in the store of MLflow, with its parent if it belongs to a sweep."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dqn_runner.core.log import log
from dqn_runner.core.secrets import redact

STEPS = "dqn_runner.steps"
"""Tag with the env steps up to which the store has the records of each kind, as JSON: a resumed run does not
send them again."""
SWEEP = "dqn_runner.sweep"
"""Tag of the parent of the runs of a sweep: the name that they share."""
_PARENT = "mlflow.parentRunId"
_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100


class Value(NamedTuple):
    """One number of a record."""

    kind: str
    """Kind of its record."""
    key: str
    value: float
    time: int
    """Milliseconds since 1970."""
    step: int


class MlflowRun:
    """Creates or continues a run, and stores what is logged. Each method may be repeated after an error."""

    def __init__(
        self,
        connect: Callable[[], Any],
        experiment: str | None,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        config: Mapping[str, Any],
        group: str | None,
        run_id: str | None,
    ) -> None:
        """`connect` returns an MlflowClient.

        `group` is the name of a sweep, `run_id` that of a run to continue.
        """
        self.run_id = run_id
        self._connect = connect
        self._client: Any = None
        self._experiment, self._name = experiment, name
        self._group = None if group is None else group.replace("'", "")  # quotes end a text of a query
        self._tags, self._params, self._config = dict(tags), dict(params), dict(config)
        self._steps: dict[str, int] = {}
        self._stores_no_files = False

    def open(self) -> None:
        """Create the run, or continue it; store its parameters."""
        client = self._client = self._connect()
        if self.run_id is None and self._group is None:
            self.run_id = os.environ.get("MLFLOW_RUN_ID")
        if self.run_id is None:
            experiment = self._experiment_id()
            tags = dict(self._tags)
            if self._group is not None:
                tags[_PARENT] = self._parent_id(experiment)
            self.run_id = client.create_run(experiment, run_name=self._name, tags=tags).info.run_id
        else:
            client.update_run(self.run_id, status="RUNNING")
        run = client.get_run(self.run_id)
        self._steps = json.loads(run.data.tags.get(STEPS, "{}"))
        self._store_params(run.data.params)

    def store_values(self, values: list[Value]) -> None:
        """Store the numbers of records that the store does not have yet."""
        from mlflow.entities import Metric, RunTag

        new = [v for v in values if v.step > self._steps.get(v.kind, -1) and math.isfinite(v.value)]
        metrics = [Metric(value.key, value.value, value.time, value.step) for value in new]
        after = self._steps | {value.kind: value.step for value in new}
        for start in range(0, len(metrics), _METRICS_PER_CALL):
            part = metrics[start : start + _METRICS_PER_CALL]
            is_last = start + len(part) == len(metrics)
            self._client.log_batch(
                self.run_id, part, (), [RunTag(STEPS, json.dumps(after))] if is_last else []
            )
        self._steps = after

    def store_config(self) -> None:
        """Store the whole configuration, whose long values the parameters do not have."""
        self._store(lambda: self._client.log_dict(self.run_id, self._config, "config.json"))

    def store_file(self, path: Path, folder: str | None = None) -> None:
        """Store a copy of a file."""
        self._store(lambda: self._client.log_artifact(self.run_id, str(path), folder))

    def _store(self, call: Callable[[], None]) -> None:
        """Store a file, or report why not: the store of files is often another one than that of numbers."""
        try:
            call()
        except Exception as error:
            if not self._stores_no_files:
                reason = " ".join(redact(f"{type(error).__name__}: {error}").split())
                log.warning(
                    "MLflow cannot store files (%.300s); check the artifact location of its experiment; "
                    "numbers are still sent",
                    reason,
                )
            self._stores_no_files = True

    def end(self, failed: bool) -> None:
        """Note that this session has ended."""
        self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")

    def _experiment_id(self) -> str:
        """The id of the experiment, which is created if it does not exist."""
        client, environ = self._client, os.environ
        if self._experiment is None and environ.get("MLFLOW_EXPERIMENT_ID"):
            return environ["MLFLOW_EXPERIMENT_ID"]
        name = self._experiment or environ.get("MLFLOW_EXPERIMENT_NAME") or "dqn_runner"
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return client.create_experiment(name)
            except Exception:  # another job may have created it
                found = client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id

    def _parent_id(self, experiment: str) -> str:
        """The run that is the parent of all runs of the sweep; the oldest, if several jobs create one."""
        if (found := self._oldest_parent(experiment)) is not None:
            return found
        client = self._client
        mine: str = client.create_run(experiment, run_name=self._group, tags={SWEEP: self._group}).info.run_id
        client.set_terminated(mine)
        oldest = self._oldest_parent(experiment) or mine
        if oldest != mine:
            client.delete_run(mine)
        return oldest

    def _oldest_parent(self, experiment: str) -> str | None:
        runs = self._client.search_runs([experiment], f"tags.`{SWEEP}` = '{self._group}'")
        ids = sorted((run.info.start_time, run.info.run_id) for run in runs)
        return ids[0][1] if ids else None

    def _store_params(self, stored: Mapping[str, str]) -> None:
        """Store settings. MLflow never changes one, so a resume with another value stores it as a tag."""
        from mlflow.entities import Param

        new = [Param(key, value) for key, value in self._params.items() if key not in stored]
        for start in range(0, len(new), _PARAMS_PER_CALL):
            self._client.log_batch(self.run_id, (), new[start : start + _PARAMS_PER_CALL], ())
        for key, value in self._params.items():
            if key in stored and stored[key] != value:
                self._client.set_tag(self.run_id, f"changed.{key}", value)
