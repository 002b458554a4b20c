"""The inner loop of training: collect experience, learn from it, update the target network."""

from __future__ import annotations

import math
from typing import cast

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.core.state import State, crossed
from dqn_runner.replay.buffer import Replay
from dqn_runner.training import divergence
from dqn_runner.training.callbacks import Run
from dqn_runner.training.collector import Collector, Episode, Progress
from dqn_runner.training.recorder import Recorder

_UNLIMITED = 2**63


class ExperienceLoop:
    """Runs training iterations: `train_every` env steps, then the updates that are due.

    Periods count env steps and are compared by `crossed`, so that they are right for any number of
    environments (Mnih et al. 2015, Algorithm 1).
    """

    def __init__(
        self,
        agent: DQNAgent,
        collector: Collector,
        replay: Replay,
        recorder: Recorder,
        run: Run,
    ) -> None:
        """Callbacks get `run`. A diverged update leaves its batch in the directory of the run."""
        self.step = 0
        """Env steps of the run."""
        self._is_learning = False
        """Whether an iteration is between its first and last update."""
        self._agent = agent
        self._collector = collector
        self._replay = replay
        self._recorder = recorder
        self._callbacks, self._run = run.callbacks, run

    @property
    def is_between_states(self) -> bool:
        """Whether an env step, or the updates of an iteration, are done in part: no state can be saved."""
        return self._is_learning or self._collector.is_adding

    @property
    def at_iteration_end(self) -> bool:
        """Whether the last iteration was whole, and was not cut short by a budget."""
        num_envs, train_every = self._collector.envs.num_envs, self._agent.config.train_every
        return self.step == 0 or crossed(self.step - num_envs, self.step, train_every)

    def advance(self, max_steps: int | None, max_episodes: int | None) -> None:
        """One training iteration; stops collecting early where the run reaches a budget.

        Raises DivergedError if an update gives numbers that are not finite.
        """
        previous, learning_starts = self.step, self._agent.config.warmup_steps
        self._collect(max_steps or _UNLIMITED, max_episodes or _UNLIMITED)
        if self.step < learning_starts or len(self._replay) == 0:
            return
        self._is_learning = True
        self._learn(max(previous, learning_starts - 1))  # updates of the warm-up are not made up for
        every = self._agent.config.target_update_every
        if times := self.step // every - previous // every:
            self._agent.sync_target(times)
        self._is_learning = False

    def truncate_lost_episodes(self) -> None:
        """End the episodes that a resume could not recover, as truncated."""
        for lost, episode in self._collector.truncate_lost_episodes(self.step):
            self._replay.truncate(lost.env, lost.obs, *(() if lost.mask is None else (lost.mask,)))
            if episode.length:
                self._add(episode)

    def state_dict(self) -> State:
        """Env steps, agent, replay, environments and exploration."""
        return {
            "step": self.step,
            "agent": self._agent.state_dict(),
            "replay": self._replay.state_dict(),
            "collector": self._collector.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore all of it; raises UserError where a part does not fit."""
        self.step = state["step"]
        self._agent.load_state_dict(state["agent"])
        self._replay.load_state_dict(state["replay"])
        self._collector.load_state_dict(state["collector"])

    def _collect(self, max_steps: int, max_episodes: int) -> None:
        """Act until the next iteration is due or a budget is used up."""
        every = self._agent.config.train_every
        until = min((self.step // every + 1) * every, max_steps)
        at_once = self._collector.envs.num_envs if self._callbacks.has("on_step_end") else until - self.step
        while self.step < until and self._recorder.episode < max_episodes:
            self._collect_until(min(self.step + at_once, until), max_episodes)
            self._callbacks.call("on_step_end", self._run)

    def _collect_until(self, until: int, max_episodes: int) -> None:
        """Act, and record the finished episodes."""
        progress = Progress(self.step)
        try:
            self._collector.collect(
                self._agent, self._replay, progress, until, max_episodes - self._recorder.episode
            )
        finally:  # steps before an environment raised are part of the run
            self.step = progress.step
            for episode in progress.ended:
                self._add(episode)

    def _add(self, episode: Episode) -> None:
        self._recorder.add_episode(episode)
        self._callbacks.call("on_episode_end", self._run, episode)

    def _learn(self, previous: int) -> None:
        """The updates of the iterations between env step `previous` and now."""
        config, agent, metrics = self._agent.config, self._agent, self._recorder.metrics
        iterations = self.step // config.train_every - previous // config.train_every
        for _ in range(iterations * config.gradient_steps):
            batch = self._replay.sample(config.batch_size, self.step)
            priority, info = agent.learn(batch, self.step)
            statistics = cast("list[float]", info.tolist())
            if not math.isfinite(sum(statistics)):
                raise divergence.diagnose(
                    self._run.directory, self.step, agent, batch, statistics, metrics.last
                )
            self._replay.update(batch.indices, priority)
            metrics.add_update(statistics)
