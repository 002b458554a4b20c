"""What a run comes to as numbers, and how those of several seeds become one."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean

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


class TestMetrics:
    def test_each_objective_has_its_number(self):
        assert run_metrics(stats_with([1.0, 9.0, 5.0], 9.0), 4610) == {
            "return": 9.0,
            "final_return": 5.0,
            "mean_return": 5.0,
            "env_steps": 1200.0,
            "seconds": 5.5,
            "parameters": 4610.0,
        }

    def test_there_is_one_for_each_documented_name(self):
        assert list(run_metrics(stats_with([1.0], 1.0), 1)) == list(OBJECTIVES)

    def test_without_an_evaluation_only_what_is_about_training_is_known(self):
        metrics = run_metrics(stats_with([], 17.0), 1)
        assert metrics["return"] == 17.0
        assert math.isnan(metrics["final_return"])
        assert math.isnan(metrics["mean_return"])


class TestAggregate:
    @given(VALUES)
    def test_mean(self, values: list[float]):
        assert aggregate(values, Aggregate.mean) == pytest.approx(statistics.fmean(values), abs=1e-6)

    @given(VALUES)
    def test_iqm_is_the_middle_half_when_each_value_is_there_four_times(self, values: list[float]):
        fourfold = sorted(values * 4)
        middle = fourfold[len(values) : 3 * len(values)]
        assert aggregate(values, Aggregate.iqm) == pytest.approx(statistics.fmean(middle), abs=1e-6)

    @given(
        st.sampled_from([4, 8, 12]).flatmap(lambda n: st.lists(st.floats(-1e6, 1e6), min_size=n, max_size=n))
    )
    def test_iqm_is_that_of_rliable_where_quarters_are_whole(self, values: list[float]):
        assert aggregate(values, Aggregate.iqm) == pytest.approx(trim_mean(values, 0.25), abs=1e-6)

    def test_iqm_of_few_values_and_of_fractions(self):
        assert aggregate([3.0], Aggregate.iqm) == 3.0
        assert aggregate([3.0, 5.0], Aggregate.iqm) == 4.0
        assert aggregate([9.0, 0.0, 3.0], Aggregate.iqm) == pytest.approx((0.25 * 0 + 3 + 0.25 * 9) / 1.5)

    def test_iqm_does_not_see_an_outlier_that_is_cut_off(self):
        assert aggregate([-math.inf, 1.0, 3.0, 1e9], Aggregate.iqm) == 2.0

    @pytest.mark.parametrize("how", Aggregate)
    def test_a_run_without_a_number_leaves_none(self, how: Aggregate):
        assert math.isnan(aggregate([1.0, 2.0, 3.0, 4.0, math.nan], how))


class TestCheck:
    @pytest.mark.parametrize(
        ("names", "directions"),
        [(["return"], ["maximize"]), (["return", "seconds"], ["maximize", "minimize"]), ([], [])],
    )
    def test_good_ones_pass(self, names: list[str], directions: list[str]):
        check_objectives(names, directions)

    @pytest.mark.parametrize(
        ("names", "directions", "said"),
        [
            (["retrun"], ["maximize"], "no objective 'retrun'; did you mean return?"),
            (["xyz"], ["maximize"], "no objective 'xyz' (there are: return, final_return"),
            (["return"], ["up"], "a direction is maximize or minimize, not 'up'"),
            (["return", "seconds"], ["maximize"], "hydra.sweeper.direction=[maximize,maximize]"),
            (["return", "return"], ["maximize", "minimize"], "return is named twice"),
            ([], ["maximize"], "hydra.sweeper.objective names nothing"),
        ],
    )
    def test_bad_ones_are_refused(self, names: list[str], directions: list[str], said: str):
        with pytest.raises(UserError) as caught:
            check_objectives(names, directions)
        assert said in str(caught.value)
