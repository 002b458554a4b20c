"""Runs a sweep: takes trials from the queue, runs their seeds as jobs, and stores the results."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from dqn_runner.core.exceptions import RunFailedError
from dqn_runner.io.signals import StopSignals
from dqn_runner.sweep.curves import CurveDrawer, LivePage, WritePage, no_page
from dqn_runner.sweep.grid import expected_trials, untried_points
from dqn_runner.sweep.heartbeat import Heartbeat
from dqn_runner.sweep.jobs import OUTPUT, Jobs, print_status
from dqn_runner.sweep.live_table import LiveTable
from dqn_runner.sweep.objectives import aggregate
from dqn_runner.sweep.plan import Plan
from dqn_runner.sweep.pruner import make_pruner
from dqn_runner.sweep.results import summary
from dqn_runner.sweep.results.ranking import completed, ranked
from dqn_runner.sweep.run_executor import RunExecutor
from dqn_runner.sweep.slots import Slots
from dqn_runner.sweep.study import check_sampler, create_study, make_sampler
from dqn_runner.sweep.trial_queue import TrialQueue
from dqn_runner.sweep.trial_record import (
    RunOutcome,
    RunState,
    TrialRecord,
    definition_of,
    store_metrics,
    store_pruner,
    store_reason,
    store_session,
)

SAME_FAILURES = 3
"""The sweep stops if this many trials fail for the same reason before any other trial finishes."""


class SweepRunner:
    """Runs a plan, or resumes it."""

    def __init__(self, plan: Plan, write_page: WritePage = no_page) -> None:
        """Open the study; raises UserError if it was created for another plan.

        `write_page` writes a page about the study, whenever a trial has ended.
        """
        self.plan = plan
        settings = plan.settings
        sampler = make_sampler(settings, plan.space, plan.seed)
        pruner = make_pruner(settings.pruner, settings.directions[0])
        check_sampler(settings, plan.space, plan.config)
        plan.directory.mkdir(parents=True, exist_ok=True)
        self.study: Study = create_study(plan.storage, plan.name, settings, plan.definition(), plan.directory)
        self.study.sampler, self.study.pruner = sampler, pruner
        store_pruner(self.study, settings.pruner)
        n_trials = expected_trials(self.study, settings.n_trials)
        store_session(self.study, {**plan.session(), "n_trials": n_trials})
        self._jobs = Jobs(settings.job_timeout, here=plan.command.launcher == "basic")
        self._waiting = False
        self._heartbeat = Heartbeat(self.study)
        definition = definition_of(self.study)
        assert definition is not None
        space = plan.space.in_order_of(definition["parameters"])  # the command may have another order
        self._trials = TrialQueue(
            self.study, space, plan.config, settings.n_trials, self._heartbeat, plan.directory
        )
        self._trials.check()
        self._curves = CurveDrawer()
        self._page = LivePage(self._curves, lambda: write_page(self.study, plan.directory))
        self._table = LiveTable(self.study, plan)
        self._executor = RunExecutor(self.study, plan, self._trials, self._jobs, self._curves, self._table)

    def run(self) -> None:
        """Run all trials and the validation, write the results, and print them, also if the sweep ends early.

        SIGINT, SIGTERM and SIGHUP let the jobs save their state and end; the same command resumes the sweep.
        Raises NoRoomError if something cannot be stored, and RunFailedError if no trial has completed.
        """
        self._print_left_out()
        slots = Slots(self.plan.settings.n_jobs, self._jobs, self._poll)
        with StopSignals() as signals:
            try:
                self._stop_if_too_many_failed()  # also in an earlier session
                with self._table:
                    slots.run(self._run_trials, signals)
                    self._validate(slots, signals)
                    self._write_results()
            except RunFailedError:
                self._print_results()
                raise
            finally:
                self._page.finish()
                self._curves.close(wait=not self._jobs.stopping.is_set())
                self._heartbeat.leave()
            self._print_results()
            signals.pass_on()
        if not completed(self.study):
            raise RunFailedError(f"no trial has completed: {summary.states(self.study, self.plan)}")

    def _print_left_out(self) -> None:
        """Say if there will be fewer trials than a grid needs."""
        n_trials, untried = self.plan.settings.n_trials, untried_points(self.study)
        needed = len(self._trials.all()) + (untried or 0)
        if untried and needed > n_trials:
            print_status(
                f"hydra.sweeper.n_trials={n_trials} leaves out {needed - n_trials} point(s) of the grid; "
                f"with {needed} every point is tried"
            )

    def _print_results(self) -> None:
        print_status(summary.table(self.study, self.plan))

    def _poll(self) -> None:
        self._heartbeat.record()
        self._table.refresh()

    def _run_trials(self, slot: int) -> None:
        """Run trials in one slot until none is left, also those that other processes abandon."""
        while not self._jobs.stopping.is_set():
            trial = self._trials.next()
            if trial is not None:
                self._run_trial(trial, slot)
            elif not self._wait_for_others():
                return

    def _wait_for_others(self) -> bool:
        """Wait a second for trials that other processes run; False if there are none."""
        elsewhere = self._trials.elsewhere()
        if elsewhere and not self._waiting:
            self._waiting = True
            print_status(f"waiting for {len(elsewhere)} trial(s) of other processes: {elsewhere}")
        return bool(elsewhere) and not self._jobs.stopping.wait(1.0)

    def _run_trial(self, trial: Trial, slot: int) -> None:
        """Run the seeds of a trial one after the other, and finish the trial, unless the sweep is stopped."""
        settings, number = self.plan.settings, trial.number
        runs: list[RunOutcome] = []
        for index in range(settings.seeds):
            run = self._executor.run(self._trials.get(number), index, slot)
            if run is None:
                return
            if run.state is not RunState.FINISHED:
                self._abort_trial(trial, run.state, run.reason)
                return
            runs.append(run)
            if settings.prunes_between_seeds and self._is_worse(trial, index, run):
                self._finish(number, RunState.PRUNED, f"pruned after {index + 1} seeds")
                return
        metrics = {
            name: aggregate([run.metrics[name] for run in runs], settings.aggregate)
            for name in runs[0].metrics
        }
        nan = [name for name in (*settings.objectives, *settings.constraints) if math.isnan(metrics[name])]
        if nan:
            self._abort_trial(trial, RunState.FAILED, f"{' and '.join(nan)} is NaN")
            return
        store_metrics(trial, metrics)
        values = [metrics[name] for name in settings.objectives]
        text = ", ".join(f"{name} {metrics[name]:g}" for name in settings.objectives)
        self._finish(number, RunState.FINISHED, text, values)

    def _write_results(self) -> None:
        self._trials.check()
        summary.write_results(self.study, self.plan)
        self._page.update()
        self._table.results_changed()

    def _abort_trial(self, trial: Trial, state: RunState, reason: str) -> None:
        """Finish a trial that did not complete."""
        store_reason(trial, state, reason)
        self._finish(trial.number, state, reason)

    def _is_worse(self, trial: Trial, index: int, run: RunOutcome) -> bool:
        """Whether the pruner stops a trial after the seed of this index; False after the last seed."""
        if index not in self._trials.get(trial.number).intermediate_values:
            trial.report(run.metrics[self.plan.settings.objectives[0]], index)
        return index + 1 < self.plan.settings.seeds and trial.should_prune()

    def _finish(self, number: int, state: RunState, text: str, values: Sequence[float] | None = None) -> None:
        """Finish a trial in the study and print the progress; raises if the sweep cannot succeed."""
        if not self._trials.tell(number, state.trial_state, values):
            return
        trials = self._trials.all()
        finished = [trial for trial in trials if trial.state.is_finished()]
        label = "complete" if state is RunState.FINISHED else state.value
        ending = text if state is RunState.PRUNED else f"{label}: {text}"
        progress = f"{len(finished)} of {expected_trials(self.study, self.plan.settings.n_trials)} finished"
        print_status(f"trial {number} {ending} | {progress}")
        self._write_results()
        if state is RunState.FAILED:
            self._stop_if_hopeless(finished)

    def _stop_if_hopeless(self, finished: Sequence[FrozenTrial]) -> None:
        """Raise RunFailedError if too many trials have failed.

        By default those are the first ones, for one reason. If a sweep that ended so is repeated, its next
        trial decides: it fails for the same reason, or the cause has been removed.
        """
        self._stop_if_too_many_failed()
        failed = _failure_reasons(finished)
        same = len(failed) == len(finished) >= SAME_FAILURES and len(set(failed)) == 1
        if same and self.plan.settings.max_failure_rate is None:
            raise RunFailedError(
                f"the first {len(failed)} trials all failed for the same reason: {failed[0]} "
                f"(see {OUTPUT} of each trial in {self.plan.directory})"
            )

    def _stop_if_too_many_failed(self) -> None:
        """Raise RunFailedError if more trials of the study have failed than max_failure_rate allows."""
        limit, n_trials = self.plan.settings.max_failure_rate, self.plan.settings.n_trials
        failed = _failure_reasons(self._trials.all())
        if limit is not None and len(failed) > limit * n_trials:
            raise RunFailedError(
                f"{len(failed)} trials failed, more than hydra.sweeper.max_failure_rate={limit:g} of "
                f"{n_trials}; the last one: {failed[-1]}; to continue, raise hydra.sweeper.max_failure_rate, "
                "or choose another hydra.sweep.dir"
            )

    def _validate(self, slots: Slots, signals: StopSignals) -> None:
        """Run the best trial on fresh seeds, in all slots.

        The order is random, so that processes that share the study share this work too.
        """
        settings = self.plan.settings
        best = ranked(self.study, settings)
        if self._jobs.stopping.is_set() or not settings.validate or not best:
            return
        pending = list(range(settings.seeds, settings.seeds + settings.validate))
        random.SystemRandom().shuffle(pending)  # no seed decides: processes must differ

        def work(slot: int) -> None:
            while pending and not self._jobs.stopping.is_set():
                run = self._executor.run(best[0], pending.pop(0), slot)
                if run is not None and run.state is RunState.FAILED:
                    raise RunFailedError(f"the validation of trial {best[0].number} failed: {run.reason}")

        slots.run(work, signals)


def _failure_reasons(trials: Sequence[FrozenTrial]) -> list[str]:
    """Why trials failed, without their directories, so that equal reasons are equal texts."""
    records = [TrialRecord(trial) for trial in trials if trial.state is RunState.FAILED.trial_state]
    return [str(r.reason(RunState.FAILED)).replace(str(r.directory), "…") for r in records]
