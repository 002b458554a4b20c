"""The order of events in a run: when to act, learn, evaluate, log, save and stop."""

from __future__ import annotations

import dataclasses
import math
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.checkpointing.checkpointer import BEST, best_name, numbered_name
from dqn_runner.core.exceptions import DivergedError, NoRoomError
from dqn_runner.core.log import log
from dqn_runner.core.records import Record, RunInfo
from dqn_runner.core.registry import to_plain
from dqn_runner.core.rng import eval_seeds, seed_for, stream
from dqn_runner.core.state import State, crossed
from dqn_runner.envs.base import Env, EnvPart
from dqn_runner.envs.subprocess_worker import launch, relauncher
from dqn_runner.envs.user_env import as_part
from dqn_runner.envs.vector_env import VectorEnv
from dqn_runner.io.signals import StopSignals
from dqn_runner.loggers.base import LoggerPart
from dqn_runner.loggers.logger_group import default_loggers
from dqn_runner.run.directory import RunDirectory
from dqn_runner.training import divergence
from dqn_runner.training.checks import check
from dqn_runner.training.collector import Collector, Episode, Progress
from dqn_runner.training.config import FrequencyUnit, TrainingConfig
from dqn_runner.training.evaluator import Evaluator
from dqn_runner.training.metrics import METRIC_KEYS, Metrics
from dqn_runner.training.resources import check_disk, estimate_resources
from dqn_runner.training.stats import TrainingStats
from dqn_runner.training.stopping import Best, StopCallback
from dqn_runner.training.stopwatch import Stopwatch


class Trainer:
    """Runs training; owns the counters and the order of events, and touches no tensor."""

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
        stop_callback: StopCallback | None = None,
    ) -> None:
        """`env` is a gymnasium.Env or an env part; evaluation uses `eval_env` or a second one like it.

        `source` is kept in every checkpoint, for whoever wants to build the run again from it. With
        `allow_inexact_resume`, a resume truncated_episodes an episode short that the environment does not bring back. `stop_callback` is asked
        after each evaluation that is due whether the run shall go on.
        """
        part = as_part(env, eval_env)
        seed, limit = agent.config.seed, config.max_steps_per_episode
        envs = VectorEnv(
            [launch(part) for _ in range(part.num_envs)],
            lambda index, episode: seed_for(seed, "env", index, episode),
            limit,
            remake=relauncher(part) if config.retry_env else None,
            allow_inexact_resume=allow_inexact_resume,
        )
        check(agent.config, agent.spec, config, envs.spec)
        self.agent = agent
        self.config = config
        self.output_dir = Path(output_dir)
        check_disk(self.output_dir, agent.config, config, envs.spec, agent.num_bytes())
        self.collector = Collector(envs, seed, part.learning_reward)
        self.evaluator = Evaluator(part.make(training=False), eval_seeds("eval"), limit)
        agent_config = agent.config
        self.replay = agent_config.replay.build(
            envs.spec,
            part.num_envs,
            agent_config.gamma,
            agent_config.n_step,
            stream(seed, "replay"),
        )
        self.metrics = Metrics()
        self.best = Best()
        self.step = 0
        self.episode = 0
        self._handled = 0
        self._improved = False
        self._finished: State | None = None
        self._learning = False
        """In the middle of a round of learning, from where nobody could go on exactly."""
        self.directory = RunDirectory(
            self.output_dir,
            default_loggers() if loggers is None else loggers,
            config.keep_last,
            source or {"agent": to_plain(agent.config), "trainer": to_plain(config)},
        )
        self._group = group
        self._judge = stop_callback
        self._signals = StopSignals()
        self._elapsed_before = 0.0
        self._watch = Stopwatch()

    def train(self) -> TrainingStats:
        """Run until a budget, the target or patience ends it; the state is saved in any case.

        An output directory that holds this run already is gone on with. SIGINT, SIGTERM and SIGUSR1/2 let
        the step finish and the state be saved, and then have their effect. Raises DivergedError when learning
        gives numbers that are not finite.
        """
        self.directory.lock()
        with StopSignals() as self._signals:
            failed = False
            try:
                if self.directory.has_resumable_run():
                    self.resume(self.output_dir)
                self._watch.start(self._elapsed_before, self.step)
                self.directory.open(self.step, self.episode, self._run_info())
                spec, state = self.collector.envs.spec, self.agent.num_bytes()
                log.info("%s", estimate_resources(self.agent.config, self.config, spec, state))
                reason = self._run()
            except Exception:
                failed = True
                raise
            finally:
                self.directory.close(failed)
                self.collector.envs.close()
                self.evaluator.close()
        if self.directory.checkpoint_failed:
            raise NoRoomError(
                f"the end of the run could not be saved to {self.output_dir}; its log says why. Make room, "
                "and the same command goes on"
            )
        return self._stats(reason)

    def resume(self, path: str | Path) -> None:
        """Go on from a checkpoint, or from the latest one of a run directory.

        Where it is damaged the newest valid one before it is taken, and `directory.notices` says so.
        """
        directory = self.directory
        file = directory.resume(Path(path), self.load_state_dict)
        directory.notices += [
            f"{c.reason}; the episode is cut short there" for c in self.collector.envs.truncated_episodes
        ]
        directory.restore_checkpoints(file, self.best.step)

    def _run_info(self) -> RunInfo:
        return RunInfo(
            name=self.output_dir.resolve().name,
            config=self.directory.config,
            unit=self.config.frequency_unit.value,
            total=self.config.total,
            metric_keys=METRIC_KEYS,
            group=self._group,
        )

    @property
    def ended(self) -> str | None:
        """Why the run that was taken up is over, if nothing that is set now lets it go on."""
        return self._finished["reason"] if self._finished is not None else None

    def state_dict(self) -> State:
        """Everything a run needs to go on."""
        return {
            **self._accounts(),
            "step": self.step,
            "episode": self.episode,
            "elapsed": self._watch.elapsed,
            "finished": self._finished,
            "agent": self.agent.state_dict(),
            "replay": self.replay.state_dict(),
            "collector": self.collector.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from `state`; a run that had ended, but has a larger budget now, from before its end."""
        finished = state["finished"]
        if finished is not None and not self._is_over(finished):
            state, finished = {**state, **finished["before"]}, None
        self.step, self.episode = state["step"], state["episode"]
        self._handled = state["handled"]
        self._elapsed_before = state["elapsed"]
        self._finished = finished
        self.best = Best(**state["best"])
        self.agent.load_state_dict(state["agent"])
        self.replay.load_state_dict(state["replay"])
        self.collector.load_state_dict(state["collector"])
        self.metrics.load_state_dict(state["metrics"])
        self.directory.loggers.load_state_dict(state["sinks"])

    def _is_over(self, finished: State) -> bool:
        """Whether a run that had ended stays so: as its budget is the same, or a stop_callback had enough of it."""
        if finished["pruned"]:
            return self._judge is not None
        return finished["stopping"] == self.config.stopping()

    def _accounts(self) -> State:
        """What evaluating and logging change."""
        return {
            "handled": self._handled,
            "best": dataclasses.asdict(self.best),
            "metrics": self.metrics.state_dict(),
            "sinks": self.directory.loggers.state_dict(),
        }

    def _cut_episodes(self) -> None:
        """End the episodes that could not be brought back, as truncated."""
        for cut, episode in self.collector.truncate_lost_episodes(self.step):
            self.replay.truncate(cut.env, cut.obs)
            if episode.length:
                self._count(episode)

    def _run(self) -> str:
        """The loop, and what it leaves behind whether it ends or fails."""
        try:
            self._cut_episodes()
            reason = self._loop()
        except DivergedError as error:
            log.error("%s", error)
            self._leave_report()
            raise
        except Exception:
            log.exception("training failed at step %d, episode %d", self.step, self.episode)
            self._rescue()
            self._leave_report()
            raise
        self._leave_report()
        return reason

    def _rescue(self) -> None:
        """Save after an exception; a second failure must not hide the first."""
        if self._learning:
            log.info("no state is saved from the middle of learning; the last checkpoint stays")
            return
        try:
            self._write_checkpoint([])
            self.directory.wait_for_checkpoint()
            if not self.directory.checkpoint_failed:
                log.info("the state was saved to %s", self.directory.latest_checkpoint)
        except Exception:
            log.exception("the state could not be saved")

    def _loop(self) -> str:
        """One pass per round of learning; the last pass does what is due at the end, by the same code."""
        if self.ended is not None:
            log.info("nothing to do: this run has ended (%s)", self.ended)
            return self.ended
        while True:
            end, pruned = self.config.budget_ends(self.step, self.episode), False
            due = self._is_between_rounds()
            evaluated = due and self._due(self.config.eval_frequency)
            logged = due and self._due(self.config.log_frequency)
            numbered = due and self._due(self.config.checkpoint_frequency)
            if evaluated:
                self._evaluate()
                mean: float = self.metrics.eval["return_mean"][-1]
                end = end or self.config.evaluation_ends(mean, self.best.waited)
                if end is None and self._judge is not None:
                    end = self._judge(self._clock(), mean)
                    pruned = end is not None
            if logged:
                self._log()
            if due:
                self._handled = self._clock()
            aside = self._conclude(end, pruned, evaluated, logged) if end else None
            stopped = self._signals.received
            self._save(numbered, bool(end or stopped), aside)
            if end:
                self.directory.wait_for_checkpoint()
                log.info("at step %d, episode %d: %s", self.step, self.episode, end)
                return end
            if stopped:
                self._stop(stopped)
            self._advance()

    def _conclude(self, reason: str, pruned: bool, evaluated: bool, logged: bool) -> str | None:
        """A last evaluation and log line where none was due; returns a name for the best.pt from before.

        A run that is given a larger budget later goes on from before these, as if it had not ended here.
        """
        before, best = self._accounts(), self.best.step
        if not evaluated:
            self._evaluate()
        if not logged:
            self._log()
        stopping = self.config.stopping()
        self._finished = {"reason": reason, "pruned": pruned, "stopping": stopping, "before": before}
        replaced = self._improved and not evaluated and math.isfinite(before["best"]["mean"])
        return best_name(best) if replaced else None

    def _is_between_rounds(self) -> bool:
        """Whether events happen at this step: only after whole rounds, wherever a budget may end."""
        num_envs = len(self.collector.envs.envs)
        return self.step == 0 or crossed(self.step - num_envs, self.step, self.agent.config.train_every)

    def _advance(self) -> None:
        """Collect until the next round of learning, then learn and update the target where due."""
        config, agent, previous = self.agent.config, self.agent, self.step
        self._collect()
        if self.step < config.learning_starts or len(self.replay) == 0:
            return
        before = max(previous, config.learning_starts - 1)  # rounds of the warm-up are not made up for
        rounds = self.step // config.train_every - before // config.train_every
        self._learning = True
        for _ in range(rounds * config.gradient_steps):
            batch = self.replay.sample(config.batch_size, self.step)
            priority, info = agent.learn(batch, self.step)
            if not math.isfinite(info.sum().item()):
                raise divergence.diagnose(self.output_dir, self.step, agent, batch, info, self.metrics.last)
            self.replay.update(batch.indices, priority)
            self.metrics.add_update(info)
        every = config.target_update_every
        if times := self.step // every - previous // every:
            agent.sync_target(times)
        self._learning = False

    def _collect(self) -> None:
        """Act until the next round of learning or the end of a budget, and report the episodes that ended."""
        every = self.agent.config.train_every
        until = min((self.step // every + 1) * every, self.config.max_steps or 2**63)
        episodes_left = (self.config.max_episodes or 2**63) - self.episode
        progress = Progress(self.step)
        try:
            self.collector.collect(self.agent, self.replay, progress, until, episodes_left)
        finally:  # an environment that raises has not undone the steps before
            self.step = progress.step
            for episode in progress.ended:
                self._count(episode)

    def _count(self, episode: Episode) -> None:
        self.episode += 1
        self.metrics.add_episode(episode)
        values = {"train/return": episode.episode_return, "train/length": float(episode.length)}
        self.directory.loggers.write(Record("episode", episode.step, self.episode, values))

    def _evaluate(self) -> None:
        evaluation = self.evaluator.run(self.agent.greedy, self.config.eval_episodes)
        values = self.metrics.add_evaluation(self.step, self.episode, evaluation)
        self.directory.loggers.write(Record("eval", self.step, self.episode, values))
        if self.best.take(evaluation.mean, self.step, self.config.min_delta):
            self._improved = True

    def _stop(self, number: signal.Signals) -> None:
        """Leave everything behind that a run leaves, and let the signal have its effect."""
        self.directory.wait_for_checkpoint()
        self._leave_report()
        where = (self.step, self.episode, number.name, self.output_dir)
        log.info("at step %d, episode %d: stopped by %s; resume=%s goes on", *where)
        self._signals.pass_on()
        log.info("the handler of %s lets the run go on", number.name)

    def _log(self) -> None:
        values = self.metrics.flush(self.step, self.episode, self.agent.epsilon(self.step))
        values["time/elapsed"] = self._watch.elapsed
        values["time/eta"] = self._eta()
        if math.isfinite(rate := self._watch.lap(self.step)):
            values["time/steps_per_second"] = rate
        self.directory.loggers.write(Record("train", self.step, self.episode, values))

    def _save(self, numbered: bool, last: bool, aside: str | None) -> None:
        """Write what is due: a numbered checkpoint, the best, the latest; one file under several names."""
        names = [numbered_name(self.step)] if numbered else []
        names += [BEST] if self._improved else []
        self._improved = False
        if names or last:
            self._write_checkpoint(names, aside)

    def _write_checkpoint(self, names: list[str], aside: str | None = None) -> None:
        if not self.agent.is_finite():
            raise DivergedError(f"the weights are not finite at step {self.step}; {divergence.ADVICE}")
        self.directory.save(self.state_dict(), self.step, names, aside)

    def _due(self, every: int) -> bool:
        """Whether a multiple of `every` was passed since what was due was last handled."""
        return crossed(self._handled, self._clock(), every)

    def _clock(self) -> int:
        return self.episode if self.config.frequency_unit is FrequencyUnit.episodes else self.step

    def _eta(self) -> float:
        return self._watch.eta(self.config.share_done(self.step, self.episode))

    def _leave_report(self) -> None:
        summary = {
            "env_steps": self.step,
            "num_episodes": self.episode,
            "best": {"return_mean": self.best.mean, "step": self.best.step},
            "finished": self._finished and self._finished["reason"],
            "time": {"training_seconds": self._watch.elapsed, "eta_seconds": self._eta()},
        }
        self.directory.write_report({**summary, **self.metrics.history()})

    def _stats(self, reason: str) -> TrainingStats:
        evaluated = math.isfinite(self.best.mean)
        best = self.best.mean if evaluated else math.nan
        return TrainingStats(
            reason=reason,
            pruned=self._finished is not None and self._finished["pruned"],
            steps=self.step,
            episodes=self.episode,
            best_mean=best,
            best_step=self.best.step,
            training_time=self._watch.elapsed,
            objective=best if evaluated else self.metrics.recent_return(),
            history=self.metrics.history(),
        )
