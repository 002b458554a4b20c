"""A sweep: takes trials, runs their seeds as jobs, and tells the study what came of them."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from dqn_runner.config.overrides import quote
from dqn_runner.core.exceptions import NoRoomError, RunFailedError, UserError
from dqn_runner.io.signals import StopSignals
from dqn_runner.sweep.heartbeat import Heartbeat
from dqn_runner.sweep.jobs import NO_ROOM, OUTPUT, Jobs, say
from dqn_runner.sweep.objectives import aggregate
from dqn_runner.sweep.plan import Plan
from dqn_runner.sweep.results import summary
from dqn_runner.sweep.results.ranking import ranked
from dqn_runner.sweep.slots import Slots
from dqn_runner.sweep.study import create_study, names_of_studies, set_sampler_and_pruner, validation_key
from dqn_runner.sweep.trial_queue import DIRECTORY, OVERRIDES, TrialQueue

FAILED, STOPPED = "failed", "stopped"
TRIAL_STATES = {"pruned": TrialState.PRUNED, "diverged": TrialState.PRUNED, FAILED: TrialState.FAIL}
"""What a run that did not finish makes of its trial."""

SAME_FAILURES = 3
"""So many trials that fail for one reason, before any does not, stop the sweep."""


class SweepRunner:
    """Runs a plan to its end, or goes on with it."""

    def __init__(self, plan: Plan) -> None:
        """Open the study; raises UserError where it was made for another plan."""
        self.plan = plan
        settings = plan.settings
        plan.directory.mkdir(parents=True, exist_ok=True)
        self.study: Study = create_study(plan.storage, plan.name, settings, plan.definition())
        _refuse_foreign(plan, self.study)
        set_sampler_and_pruner(self.study, settings, plan.space, plan.seed)
        self._jobs = Jobs()
        self._waiting = False
        self._workers = Heartbeat(self.study)
        self._trials = TrialQueue(
            self.study, plan.space, plan.config, settings.n_trials, self._workers, plan.directory
        )

    def run(self) -> None:
        """Run all trials, then the validation; prints the results and leaves them in the directory.

        SIGINT and SIGTERM let the jobs save and end; the same command goes on.
        """
        slots = Slots(self.plan.settings.n_jobs, self._jobs, self._workers.record)
        with StopSignals() as signals:
            try:
                slots.run(self._work, signals)
                self._validate(slots, signals)
            finally:
                self._workers.leave()
                summary.write_results(self.study, self.plan)
            signals.pass_on()
        say(summary.table(self.study, self.plan))

    def _work(self, slot: int) -> None:
        """One slot: trial after trial, and those that other processes leave behind."""
        while not self._jobs.stopping.is_set():
            trial = self._trials.next()
            if trial is not None:
                self._run_trial(trial, slot)
            elif not self._wait_for_others():
                return

    def _wait_for_others(self) -> bool:
        """Wait a moment for trials that other processes run; False if there are none."""
        elsewhere = self._trials.elsewhere()
        if elsewhere and not self._waiting:
            self._waiting = True
            say(f"waiting for {len(elsewhere)} trial(s) of other processes: {elsewhere}")
        return bool(elsewhere) and not self._jobs.stopping.wait(1.0)

    def _run_trial(self, trial: Trial, slot: int) -> None:
        """Run the seeds of a trial one after the other, and finish it, unless the sweep is stopped."""
        settings, number = self.plan.settings, trial.number
        found: list[dict[str, float]] = []
        for index in range(settings.seeds):
            state, message = self._run_seed(self._trials.get(number), index, slot)
            if state == STOPPED:
                return
            if state in TRIAL_STATES:
                self._give_up(trial, state, message)
                return
            found.append(self._trials.get(number).user_attrs[f"run_{index}"]["metrics"])
            if settings.prunes_between_seeds and self._is_worse(trial, index, found[-1]):
                self._finish(number, TrialState.PRUNED, f"pruned after {index + 1} seeds")
                return
        metrics = {name: aggregate([run[name] for run in found], settings.aggregate) for name in found[0]}
        if lost := [n for n in (*settings.objectives, *settings.constraints) if math.isnan(metrics[n])]:
            self._give_up(trial, FAILED, f"{' and '.join(lost)} came to no number")
            return
        trial.set_user_attr("metrics", metrics)
        values = [metrics[name] for name in settings.objectives]
        said = ", ".join(f"{name} {metrics[name]:g}" for name in settings.objectives)
        self._finish(number, TrialState.COMPLETE, said, values)

    def _give_up(self, trial: Trial, state: str, why: str) -> None:
        """Finish a trial that did not complete."""
        trial.set_user_attr("error" if state == FAILED else state, why)
        self._finish(trial.number, TRIAL_STATES[state], why)

    def _is_worse(self, trial: Trial, index: int, metrics: dict[str, float]) -> bool:
        """Whether the pruner gives a trial up after the seed of this index, if there are more."""
        if index not in self._trials.get(trial.number).intermediate_values:
            trial.report(metrics[self.plan.settings.objectives[0]], index)
        return index + 1 < self.plan.settings.seeds and trial.should_prune()

    def _run_seed(self, trial: FrozenTrial, index: int, slot: int) -> tuple[str, str]:
        """Run a seed of a trial, again where a signal killed it; how it ended, and why.

        One whose outcome the study knows already is not run again.
        """
        settings, seed = self.plan.settings, self.plan.seed + index
        only = settings.seeds == 1 and index == 0
        directory = Path(trial.user_attrs[DIRECTORY], *([] if only else [f"seed_{seed}"]))
        link = {
            "storage": quote(self.plan.storage_for_jobs),
            "name": quote(self.plan.name),
            "trial": trial.number,
            "seed_index": index,
        }
        own = [f"seed={seed}", *(f"study.{key}={value}" for key, value in link.items())]
        arguments = self.plan.command.job([*trial.user_attrs[OVERRIDES], *own], directory)
        said = ""
        with self._jobs.alone(directory):
            for _ in range(settings.max_restarts + 1):
                if (known := self._outcome(trial.number, index)) is not None:
                    return known
                if self._jobs.stopping.is_set():
                    return STOPPED, ""
                outcome = self._jobs.run(arguments, directory, self._environment(slot))
                said = outcome.message
                if outcome.status == NO_ROOM:
                    raise NoRoomError(f"trial {trial.number} waits for room, and the sweep ends: {said}")
                if 0 <= outcome.status < 128:
                    break
                said = f"killed by signal {outcome.status % 128 if outcome.status > 0 else -outcome.status}"
                if not self._jobs.stopping.is_set():
                    say(f"trial {trial.number}, seed {seed}: {said}")
            if (known := self._outcome(trial.number, index)) is not None:
                return known
            return (STOPPED, "") if self._jobs.stopping.is_set() else (FAILED, said)

    def _outcome(self, number: int, index: int) -> tuple[str, str] | None:
        """How a run told the study that it ended, and why."""
        run = self._trials.get(number).user_attrs.get(f"run_{index}")
        run = run or self.study.user_attrs.get(validation_key(number, index))
        return run and (run["state"], run["reason"])

    def _environment(self, slot: int) -> dict[str, str]:
        """Environment variables of the jobs in a slot: one thread, and one device where there are some."""
        variables = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        if gpus := self.plan.settings.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = str(gpus[slot % len(gpus)])
        return variables

    def _finish(
        self, number: int, state: TrialState, said: str, values: Sequence[float] | None = None
    ) -> None:
        """Tell the study how a trial ended, and the user how the sweep stands; raises if it is hopeless."""
        if not self._trials.tell(number, state, values):
            return
        trials = self._trials.all()
        finished = sum(trial.state.is_finished() for trial in trials)
        standing = f"{finished} of {self.plan.settings.n_trials} finished"
        ending = said if said.startswith("pruned") else f"{state.name.lower()}: {said}"
        say(f"trial {number} {ending} | {standing}")
        summary.write_results(self.study, self.plan)
        if state is TrialState.FAIL:
            self._stop_if_hopeless([trial for trial in trials if trial.state.is_finished()])

    def _stop_if_hopeless(self, finished: Sequence[FrozenTrial]) -> None:
        limit, failed = self.plan.settings.max_failure_rate, _errors(finished)
        if limit is not None:
            if len(failed) > limit * self.plan.settings.n_trials:
                raise RunFailedError(
                    f"{len(failed)} trials failed, more than hydra.sweeper.max_failure_rate={limit:g} of "
                    f"{self.plan.settings.n_trials}; the last one: {failed[-1]}"
                )
        elif len(failed) == len(finished) >= SAME_FAILURES and len(set(failed)) == 1:
            raise RunFailedError(
                f"the first {len(failed)} trials all failed for the same reason: {failed[0]} "
                f"(each {OUTPUT} in {self.plan.directory} has the whole story)"
            )

    def _validate(self, slots: Slots, signals: StopSignals) -> None:
        """Run the best trial on fresh seeds, in all slots.

        In any order, so that processes that share the study share this work too.
        """
        settings = self.plan.settings
        best = ranked(self.study, settings)
        if self._jobs.stopping.is_set() or not settings.validate or not best:
            return
        pending = random.sample(range(settings.seeds, settings.seeds + settings.validate), settings.validate)

        def work(slot: int) -> None:
            while pending and not self._jobs.stopping.is_set():
                state, message = self._run_seed(best[0], pending.pop(0), slot)
                if state == FAILED:
                    raise RunFailedError(f"the validation of trial {best[0].number} failed: {message}")

        slots.run(work, signals)


def _refuse_foreign(plan: Plan, study: Study) -> None:
    """Raise where the directory holds trials of another study: jobs would take their runs for their own."""
    there = {int(path.name) for path in plan.directory.iterdir() if path.is_dir() and path.name.isdecimal()}
    known = {trial.number for trial in study.get_trials(deepcopy=False) if DIRECTORY in trial.user_attrs}
    if there <= known:
        return
    others = [name for name in names_of_studies(study) if name != plan.name]
    hint = f", or go on with it by hydra.sweeper.study_name={' or '.join(others)}" if others else ""
    raise UserError(
        f"{plan.directory} holds runs that the study {plan.name} does not know, such as "
        f"{min(there - known)}; choose another hydra.sweep.dir{hint}"
    )


def _errors(trials: Sequence[FrozenTrial]) -> list[str]:
    """Why trials failed, without what names only one of them."""
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    return [
        str(trial.user_attrs.get("error")).replace(str(trial.user_attrs.get(DIRECTORY)), "…")
        for trial in failed
    ]
