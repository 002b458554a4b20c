"""The order of events in a run: when to train, evaluate, log, save and stop."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.own_parts import unchanged_states
from dqn_runner.checkpointing.names import best_name
from dqn_runner.core.exceptions import DirectoryLostError, DivergedError, UserError
from dqn_runner.core.log import log
from dqn_runner.core.rng import seed_for
from dqn_runner.core.state import State
from dqn_runner.envs.base import Env, EnvPart
from dqn_runner.envs.generators import OwnGenerators
from dqn_runner.envs.user_env import as_part
from dqn_runner.io.forks import ending_forks
from dqn_runner.io.signals import StopSignals, as_error
from dqn_runner.loggers.base import LoggerPart
from dqn_runner.training import assembly
from dqn_runner.training.callbacks import Callbacks, Run, StopReason, named, settings_of
from dqn_runner.training.config import TrainingConfig
from dqn_runner.training.evaluator import Evaluation, EvaluationStopped
from dqn_runner.training.events import Event, EventSchedule
from dqn_runner.training.experience_loop import ExperienceLoop
from dqn_runner.training.preloading import Preload
from dqn_runner.training.process_lock import only_training_thread
from dqn_runner.training.recorder import Recorder
from dqn_runner.training.resources import estimate_resources
from dqn_runner.training.run_state import RunState
from dqn_runner.training.saving import StateSaver
from dqn_runner.training.stats import TrainingStats
from dqn_runner.training.stopping import Stopping
from dqn_runner.training.video import VideoRecorder


class Trainer:
    """Runs training: owns the order of events, and leaves each of them to a part."""

    @ending_forks()
    def __init__(
        self,
        agent: DQNAgent,
        env: Env | EnvPart,
        config: TrainingConfig,
        output_dir: str | Path,
        *,
        eval_env: Env | None = None,
        loggers: Mapping[str, LoggerPart] | None = None,
        source: Mapping[str, Any] | None = None,
        group: str | None = None,
        allow_inexact_resume: bool = False,
        callbacks: Mapping[str, Any] | Sequence[Any] | None = None,
        pruner: Any = None,
    ) -> None:
        """`env` is a gymnasium.Env or an env part; evaluation uses `eval_env` or a copy of `env`.

        `source` is stored in every checkpoint and identifies the run; by default it holds the settings of
        `agent`, `config` and `env`. `group` is shared by the runs of a sweep. With `allow_inexact_resume`, a
        resume truncates an episode that its environment does not reproduce. `callbacks` are objects with
        methods of `callbacks.EVENTS`, and `pruner` is one that may prune the run. Raises UserError for
        settings that do not fit each other or the env.
        """
        assembly.check_types(agent, config, output_dir)
        self.output_dir = Path(output_dir).absolute()  # an environment may change the working directory
        agent.config = assembly.fitted_config(agent.config, config.max_steps, self.output_dir)
        self.agent, self.config = agent, config
        self._generators = OwnGenerators(seed_for(agent.config.seed, "global generators"))
        with self._generators, assembly.make_first_watchdog(config):
            part = as_part(env, eval_env)
            self.collector = assembly.make_collector(agent, part, config, allow_inexact_resume)
        spec = self.collector.envs.spec
        assembly.check_settings(agent, config, spec, self.output_dir)
        self.evaluator = assembly.make_evaluator(part, config, spec)
        self.replay = assembly.make_replay(agent.config, spec, part.num_envs)
        self.preload = Preload(agent, self.evaluator.env, part, spec, self.replay)
        self.directory = assembly.make_directory(
            self.output_dir, loggers, agent, config, part, source, self.evaluator.env
        )
        self.recorder = Recorder(self.directory.loggers)
        videos = VideoRecorder(part, config, agent.greedy, self.directory.loggers)
        own = named(callbacks)
        settings = self.directory.config.get("callbacks", settings_of(own))
        self.stopping = Stopping(config, settings, pruner is not None)
        self.callbacks = Callbacks(assembly.all_callbacks(self.stopping, pruner, videos, own))
        self.run = Run(self, self.callbacks)
        self.loop = ExperienceLoop(agent, self.collector, self.replay, self.recorder, self.run)
        self._schedule = EventSchedule(config)
        self._state = RunState(self, self._schedule, self._generators)
        self._saver = StateSaver(self.directory, agent, self.state_dict, self.run)
        self._group = group
        self.failed = False
        """Whether an error ended the training of this session."""
        self._prepared = self._has_ended = False
        self._signals = StopSignals()

    @property
    def step(self) -> int:
        """Env steps of the run."""
        return self.loop.step

    @property
    def episode(self) -> int:
        """Training episodes that ended."""
        return self.recorder.episode

    @property
    def finished_reason(self) -> str | None:
        """Why the resumed run is over; None if it can continue under the present settings."""
        return self._state.finished.reason if self._state.finished is not None else None

    def train(self) -> TrainingStats:
        """Run until a budget, the target return, patience or a callback ends the run.

        Resumes a run that the output directory already holds. SIGINT, SIGTERM, SIGHUP and SIGUSR1/2 take
        effect after the current iteration, once the state is saved. Raises UserError if the directory holds
        another run, another thread trains, or this Trainer has ended; NoRoomError if the last checkpoint
        was not written; DirectoryLostError and DivergedError.
        """
        if self._has_ended:
            raise UserError(
                "this Trainer has ended, and its environments are closed; make a new Trainer with the same "
                f"output directory, which continues the run in {self.output_dir}"
            )
        watchdog = assembly.make_watchdog(self.directory, self.config)
        with (
            only_training_thread(),
            ending_forks(),
            StopSignals() as self._signals,
            watchdog,
            self._generators,
        ):
            failed, self._has_ended = False, True
            try:
                if not self._prepared:
                    self.prepare()
                info = assembly.run_info(self.directory, self.config, self._group)
                self.directory.open(self.step, self.episode, info, self.preload.origin)
                spec, beside = self.collector.envs.spec, self.preload.demonstrations
                self.agent.choose_update(spec.obs_dtype, self.config.max_steps, spec.has_action_mask)
                self.preload.log()
                self.recorder.start(self.step)  # compiling is not part of the speed
                size = self.agent.num_bytes()
                log.info("%s", estimate_resources(self.agent.config, self.config, spec, size, beside))
                reason = self._run()
            except Exception:
                failed = True
                raise
            finally:
                self.directory.wait_for_checkpoint()
                try:  # before the session ends: the next one notices a close() that calls os._exit
                    self.collector.envs.close()
                    self.evaluator.close()
                finally:
                    self.directory.close(failed)
        self.directory.check_saved()
        if self._signals.is_received():  # while the run ended; no other run of a sweep may start
            self._signals.pass_on()
        return self.recorder.stats(self.step, self.stopping.early_stopping, reason, self._state.pruned)

    def prepare(self, checkpoint: Path | None = None) -> None:
        """Lock the directory, and load `checkpoint`, the run that it holds, or recorded transitions."""
        self.directory.lock()
        if checkpoint is not None:
            self.resume(checkpoint)
        elif self.directory.has_resumable_run():
            self.resume(self.output_dir)
            self.directory.notices += self.preload.changed()
        else:
            self.directory.notices += assembly.trained_agent_notices(self.agent)
            self.preload.fill()
            if beside := self.preload.demonstrations:
                spec = self.collector.envs.spec
                assembly.check_settings(self.agent, self.config, spec, self.output_dir, beside)
        self._prepared = True

    def resume(self, path: str | Path) -> None:
        """Load a checkpoint, or the latest one of a run directory.

        If it is damaged, loads the newest valid one before it; `directory.notices` reports it.
        """
        directory = self.directory
        file = directory.resume(Path(path), self.load_state_dict)
        lost = self.collector.envs.truncated_episodes
        directory.notices += [f"{episode.reason}; the episode is truncated there" for episode in lost]
        directory.restore_checkpoints(file, self.stopping.early_stopping.best_step)
        self._saver.file = file
        self._prepared = True

    def state_dict(self) -> State:
        """Everything that a run needs to continue."""
        return self._state.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Restore a run (`RunState.load_state_dict`)."""
        self._state.load_state_dict(state)

    def _run(self) -> str:
        """The event loop, and the files that a run leaves whether it ends or fails."""
        try:
            self._state.progress()  # rejects what a checkpoint could not store
            self.loop.truncate_lost_episodes()
            reason = self._event_loop()
        except (DivergedError, DirectoryLostError) as error:
            log.error("%s", error)
            self._write_report()
            raise
        except BaseException as raised:
            error = as_error(raised)
            self.failed, trace = True, not isinstance(error, UserError)
            log.error("training failed at step %d, episode %d", self.step, self.episode, exc_info=trace)
            if self.loop.is_between_states or self.callbacks.is_running or self.directory.loggers.is_writing:
                log.info("no state is saved in the middle of an iteration; the last checkpoint stays")
            else:
                self._saver.save_after_error(self.step)
            self._write_report()
            raise error from (None if error is raised else raised)
        self._write_report()
        return reason

    def _event_loop(self) -> str:
        """One pass per training iteration; the last pass handles the end of the run by the same code."""
        if (ended := self._state.finished) is not None and not self.callbacks.owed:
            log.info("nothing to do: this run has ended (%s)", ended.reason)
            return ended.reason
        self.run.over = ended and StopReason(ended.reason, ended.pruned)
        self.callbacks.call("on_run_start", self.run)
        self._saver.call_owed(self.finished_reason)
        if ended is not None:
            return self._conclude(ended.reason, changed=True)
        while True:
            # After whole iterations only: a budget that ends within one changes nothing for a continued run.
            whole, position = self.loop.at_iteration_end, self.config.position(self.step, self.episode)
            due = self._schedule.due(position) if whole else Event.NONE
            self.run.over = self.stopping.check_budget(self.step, self.episode)
            stop = self.run.over or self.callbacks.request
            try:
                evaluation = self._evaluate() if Event.EVALUATE in due or stop else None
            except EvaluationStopped:  # by a signal, before anything was recorded: to be repeated
                self._saver.save(self.step, False, True, None)
                self._stop_for(self._signals.received)
                continue
            if Event.EVALUATE in due and evaluation is not None:
                self._record(evaluation)
                stop = stop or self.callbacks.request
            if Event.LOG in due:
                self._log()
            if whole:
                self._schedule.last_position = position
            self.callbacks.owe("on_checkpoint", Event.SAVE in due or self._saver.improved)
            previous_best = self._finish(stop, due, evaluation) if stop else None
            received = self._signals.received
            self._saver.save(self.step, Event.SAVE in due, bool(stop or received), previous_best)
            owed = self._saver.call_owed(self.finished_reason)
            if stop:
                return self._conclude(stop.text, changed=owed)
            if received:
                if owed:  # the checkpoint with the signal was written before them
                    self._saver.save(self.step, False, True, None)
                self._stop_for(received)
            if not self.callbacks.request:  # such as one of on_checkpoint
                self.loop.advance(self.config.max_steps, self.config.max_episodes)

    def _finish(self, reason: StopReason, due: Event, evaluation: Evaluation | None) -> str | None:
        """Record and log what was not due; return a name for the best.pt that this replaces.

        The state from before is stored with the finished run.
        """
        before, best = self._state.progress_before_end(), self.stopping.early_stopping
        previous_mean, previous_step = best.best_mean, best.best_step
        if Event.EVALUATE not in due and evaluation is not None:
            self._record(evaluation)
            self.callbacks.owe("on_checkpoint", self._saver.improved)
        if Event.LOG not in due:
            with unchanged_states(self.agent.config):  # a run that continues later has no such line
                self._log()
        self._state.finish(reason, before)
        self.callbacks.owe("on_run_end", True)
        replaced = self._saver.improved and Event.EVALUATE not in due and math.isfinite(previous_mean)
        return best_name(previous_step) if replaced else None

    def _conclude(self, reason: str, changed: bool) -> str:
        """Wait for the last checkpoint; write another if callbacks `changed` their state after it."""
        if changed:
            self._saver.save(self.step, False, True, None)
        self.directory.wait_for_checkpoint()
        log.info("at step %d, episode %d: %s", self.step, self.episode, reason)
        return reason

    def _evaluate(self) -> Evaluation:
        """Evaluate the greedy policy, which changes no state; raises EvaluationStopped after a signal."""
        stops = self._signals.is_received
        return self.evaluator.run(self.agent.greedy, self.config.eval_episodes, stops=stops)

    def _record(self, evaluation: Evaluation) -> None:
        self.recorder.add_evaluation(self.step, evaluation)
        if self.stopping.early_stopping.update(evaluation.mean, self.step, self.config.min_delta):
            self._saver.improved = True
        self.callbacks.call("on_evaluation", self.run, evaluation)

    def _log(self) -> None:
        done = self.config.fraction_done(self.step, self.episode)
        self.recorder.log(self.step, self.agent.epsilon(self.step), done)

    def _stop_for(self, number: signal.Signals | None) -> None:
        """Write what a run leaves, and let the signal take effect, which usually ends the process."""
        assert number is not None
        self.directory.wait_for_checkpoint()
        self._write_report()
        where = (self.step, self.episode, number.name, self.output_dir)
        log.info("at step %d, episode %d: stopped by %s; continue with resume=%s", *where)
        self._signals.pass_on()
        log.info("the handler of %s lets the run continue", number.name)

    def _write_report(self) -> None:
        best = self.stopping.early_stopping
        done = self.config.fraction_done(self.step, self.episode)
        self.directory.write_report(self.recorder.report(self.step, best, self.finished_reason, done))
