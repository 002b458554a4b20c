"""The objectives of a run, and their aggregate over several seeds."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep.objectives import OBJECTIVES, Aggregate, aggregate, check_objectives, run_metrics
from dqn_runner.training.stats import TrainingStats

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=13)


def stats_with(returns: list[float], objective: float) -> TrainingStats:
    return TrainingStats(
        reason="over",
        pruned=False,
        steps=1200,
        episodes=34,
        best_mean=max(returns, default=math.nan),
        best_step=800,
        training_time=5.5,
        objective=objective,
        history={"evaluations": {"return_mean": returns}},
    )


class TestRunMetrics:
    def test_run_metrics_come_from_the_training_stats(self):
        assert run_metrics(stats_with([1.0, 9.0, 5.0], 9.0), 4610) == {
            "return": 9.0,
            "final_return": 5.0,
            "mean_return": 5.0,
            "env_steps": 1200.0,
            "seconds": 5.5,
            "parameters": 4610.0,
        }

    def test_run_metrics_have_every_documented_objective(self):
        assert list(run_metrics(stats_with([1.0], 1.0), 1)) == list(OBJECTIVES)

    def test_run_without_evaluations_has_nan_for_evaluation_objectives(self):
        metrics = run_metrics(stats_with([], 17.0), 1)
        assert metrics["return"] == 17.0
        assert math.isnan(metrics["final_return"])
        assert math.isnan(metrics["mean_return"])


class TestAggregate:
    @given(VALUES)
    def test_aggregate_mean_is_the_arithmetic_mean(self, values: list[float]):
        assert aggregate(values, Aggregate.mean) == pytest.approx(statistics.fmean(values), abs=1e-6)

    @given(VALUES)
    def test_iqm_of_values_repeated_four_times_is_the_mean_of_the_middle_half(self, values: list[float]):
        fourfold = sorted(values * 4)
        middle = fourfold[len(values) : 3 * len(values)]
        assert aggregate(values, Aggregate.iqm) == pytest.approx(statistics.fmean(middle), abs=1e-6)

    @given(
        st.sampled_from([4, 8, 12]).flatmap(lambda n: st.lists(st.floats(-1e6, 1e6), min_size=n, max_size=n))
    )
    def test_iqm_equals_the_trimmed_mean_of_rliable_for_multiples_of_four(self, values: list[float]):
        from scipy.stats import trim_mean  # late: its import takes a second

        assert aggregate(values, Aggregate.iqm) == pytest.approx(trim_mean(values, 0.25), abs=1e-6)

    def test_iqm_weights_the_outermost_values_by_their_remaining_part(self):
        assert aggregate([3.0], Aggregate.iqm) == 3.0
        assert aggregate([3.0, 5.0], Aggregate.iqm) == 4.0
        assert aggregate([9.0, 0.0, 3.0], Aggregate.iqm) == pytest.approx((0.25 * 0 + 3 + 0.25 * 9) / 1.5)

    def test_iqm_ignores_infinite_outliers(self):
        assert aggregate([-math.inf, 1.0, 3.0, 1e9], Aggregate.iqm) == 2.0

    @pytest.mark.parametrize("how", Aggregate)
    def test_aggregate_with_a_nan_is_nan(self, how: Aggregate):
        assert math.isnan(aggregate([1.0, 2.0, 3.0, 4.0, math.nan], how))


class TestCheckObjectives:
    @pytest.mark.parametrize(
        ("names", "directions"),
        [(["return"], ["maximize"]), (["return", "seconds"], ["maximize", "minimize"]), ([], [])],
    )
    def test_valid_objectives_and_directions_are_accepted(self, names: list[str], directions: list[str]):
        check_objectives(names, directions)

    @pytest.mark.parametrize(
        ("names", "directions", "message"),
        [
            (["retrun"], ["maximize"], "unknown objective 'retrun'; did you mean return?"),
            (["xyz"], ["maximize"], "unknown objective 'xyz' (available: return, final_return"),
            (["return"], ["up"], "a direction must be maximize or minimize, got 'up'"),
            (["return", "seconds"], ["maximize"], "hydra.sweeper.direction=[maximize,maximize]"),
            (["return", "return"], ["maximize", "minimize"], "return is given twice"),
            ([], ["maximize"], "hydra.sweeper.objective is empty"),
        ],
    )
    def test_invalid_objectives_and_directions_are_rejected(
        self, names: list[str], directions: list[str], message: str
    ):
        with pytest.raises(UserError) as caught:
            check_objectives(names, directions)
        assert message in str(caught.value)
