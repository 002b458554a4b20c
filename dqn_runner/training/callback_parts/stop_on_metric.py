"""Ends a run when a metric of its evaluations reaches a value."""

from __future__ import annotations

from dataclasses import dataclass

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.log import log
from dqn_runner.core.registry import option
from dqn_runner.core.settings import check_settings, setting
from dqn_runner.core.state import State
from dqn_runner.training.callbacks import Run
from dqn_runner.training.evaluator import Evaluation


@option("callbacks", "stop_on_metric", package="callbacks.stop_on_metric")
@dataclass(kw_only=True)
class StopOnMetric:
    """End the run when a metric of the evaluations reaches a value."""

    metric: str = "return_mean"
    """A metric that the environment reports (`success` for `eval/metrics/success`), or `return_mean`,
    `return_min`, `length_mean` and others of `eval/`."""
    at_least: float | None = None
    """End when the metric is at least this."""
    at_most: float | None = None
    """End when the metric is at most this."""
    in_a_row: int = setting(1, at_least=1)
    """Evaluations in a row that must reach the value."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        check_settings(self)
        if (self.at_least is None) == (self.at_most is None):
            raise UserError("callbacks.stop_on_metric needs one of at_least and at_most")
        self._reached = 0
        self._has_warned = False

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> None:
        """Count the evaluation; request the end of the run if that is the last one it takes."""
        values = {**evaluation.metrics.means, **evaluation.summary()}
        value = values.get(self.metric)
        if value is None:
            self._warn(list(values))
            return
        over = self.at_least is not None and value >= self.at_least
        under = self.at_most is not None and value <= self.at_most
        self._reached = self._reached + 1 if over or under else 0
        if self._reached >= self.in_a_row:
            limit = f"at least {self.at_least:g}" if over else f"at most {self.at_most:g}"
            run.request_stop(f"{self.metric} is {value:g}, {limit} (callbacks.stop_on_metric)")

    def state_dict(self) -> State:
        """The evaluations in a row that reached the value."""
        return {"reached": self._reached}

    def load_state_dict(self, state: State) -> None:
        """Restore the count."""
        self._reached = state["reached"]

    def _warn(self, names: list[str]) -> None:
        if not self._has_warned:
            log.warning(
                "callbacks.stop_on_metric: the evaluation has no metric %s; it has %s",
                self.metric,
                ", ".join(names),
            )
        self._has_warned = True
