"""The order of events of a run, recorded by fakes and compared with literal lists."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from torch import nn

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig, UserError
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.schedules import Constant, Linear
from dqn_runner.core.records import Record, RunInfo
from dqn_runner.core.state import State
from dqn_runner.core.types import EnvSpec
from dqn_runner.io.json_io import read_json
from dqn_runner.io.signals import SignalExit
from dqn_runner.replay.prioritized import PrioritizedReplay
from dqn_runner.run import plots
from dqn_runner.training.evaluator import Evaluation
from dqn_runner.training.stopping import EarlyStopping
from tests.support.counter import Counter


@pytest.fixture(autouse=True)
def without_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves take most of the time of a short run, so only one test draws them."""
    if "documented" not in request.node.name:
        monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)


class Tape:
    """A logger part that is its own logger, and writes each event."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def open(self, run_dir: Path, info: RunInfo, state: State | None) -> Tape:
        self.events.append(f"open {'new' if state is None else state['count']}")
        return self

    def write(self, record: Record) -> None:
        self.events.append(f"{record.kind} {record.step}/{record.episode}")

    def state_dict(self) -> State:
        return {"count": len(self.events)}

    def close(self, failed: bool) -> None:
        self.events.append(f"close {'failed' if failed else 'well'}")


def make_agent(**changes: Any) -> DQNAgent:
    settings: dict[str, Any] = {
        "state_dim": 1,
        "action_dim": 2,
        "batch_size": 4,
        "learning_starts": 4,
        "train_every": 2,
        "target_update_every": 6,
        "exploration": EpsilonGreedy(schedule=Constant(value=1.0)),
    }
    return DQNAgent(DQNConfig(**{**settings, **changes}))


def make_trainer(
    tmp_path: Path,
    tape: Tape,
    agent: DQNAgent | None = None,
    env: Any = None,
    callbacks: Any = None,
    pruner: Any = None,
    **changes: Any,
) -> Trainer:
    settings: dict[str, Any] = {
        "frequency_unit": "steps",
        "max_episodes": None,
        "max_steps": 12,
        "eval_frequency": 5,
        "eval_episodes": 1,
        "checkpoint_frequency": 8,
        "log_frequency": 4,
    }
    config = TrainingConfig(**{**settings, **changes})
    return Trainer(
        agent or make_agent(),
        env or Counter(),
        config,
        tmp_path / "run",
        loggers={"tape": tape},
        callbacks=callbacks,
        pruner=pruner,
    )


def spy(tape: Tape, owner: Any, method: str, name: str) -> None:
    """Make `owner.method` also write `name` to the tape."""
    original = getattr(owner, method)

    def recorded(*arguments: Any) -> Any:
        tape.events.append(name)
        return original(*arguments)

    setattr(owner, method, recorded)


def test_order_of_events_with_frequencies_in_env_steps(tmp_path: Path) -> None:
    tape = Tape()
    agent = make_agent()
    trainer = make_trainer(tmp_path, tape, agent)
    spy(tape, agent, "learn", "learn")
    spy(tape, agent, "sync_target", "sync")
    save = trainer.directory.checkpoints.save

    def recorded_save(payload: State, step: int, names: list[str], previous_best: str | None) -> None:
        tape.events.append(f"save {' '.join(names)}")
        save(payload, step, names, previous_best)

    trainer.directory.checkpoints.save = recorded_save  # pyright: ignore[reportAttributeAccessIssue]
    trainer.train()
    assert tape.events == [
        "open new",
        "episode 4/1",
        "learn",
        "train 4/1",
        "learn",
        "sync",
        "eval 6/1",
        "save best.pt latest.pt",
        "episode 8/2",
        "learn",
        "train 8/2",
        "save checkpoint_0000000008.pt latest.pt",
        "learn",
        "eval 10/2",
        "episode 12/3",
        "learn",
        "sync",
        "train 12/3",
        "eval 12/3",
        "save latest.pt",
        "close well",
    ]


def test_order_of_events_with_frequencies_in_episodes(tmp_path: Path) -> None:
    tape = Tape()
    changes = {"frequency_unit": "episodes", "max_episodes": 4, "max_steps": None, "log_frequency": 3}
    trainer = make_trainer(tmp_path, tape, **changes, eval_frequency=2, checkpoint_frequency=3)
    trainer.train()
    assert [event for event in tape.events if not event.startswith("episode")] == [
        "open new",
        "eval 8/2",
        "train 12/3",
        "eval 16/4",
        "train 16/4",
        "close well",
    ]


@pytest.mark.parametrize(
    ("changes", "reason", "steps"),
    [
        ({}, "trainer.max_steps=12 reached", 12),
        ({"max_steps": 11}, "trainer.max_steps=11 reached", 11),
        ({"max_episodes": 2}, "trainer.max_episodes=2 reached", 8),
        ({"target_return": 4.0}, "evaluation mean 4 reached trainer.target_return=4", 6),
        ({"patience": 1}, "no improvement in trainer.patience=1 evaluations", 10),
        ({"patience": 1, "early_stopping": False}, "trainer.max_steps=12 reached", 12),
    ],
)
def test_a_run_ends_at_the_first_limit_and_reports_its_name(
    tmp_path: Path, changes: dict[str, Any], reason: str, steps: int
) -> None:
    stats = make_trainer(tmp_path, Tape(), **changes).train()
    assert (stats.reason, stats.steps) == (reason, steps)
    assert read_json(tmp_path / "run" / "metrics.json")["finished"] == reason


def test_min_delta_is_measured_from_the_last_improvement_that_counted(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, Tape(), min_delta=2.0, patience=50)
    best = trainer.stopping.early_stopping
    returns = iter([0.0, 1.0, 1.5, 2.0, 3.0, 1.0])
    bad_evals: list[int] = []
    trainer.evaluator.run = lambda *_, **__: Evaluation([next(returns)], [1])  # type: ignore[method-assign]
    for _ in range(6):
        trainer._record(trainer._evaluate())  # pyright: ignore[reportPrivateUsage]
        bad_evals.append(best.bad_evals)
    assert bad_evals == [0, 1, 2, 0, 1, 2]
    assert best.best_mean == 3.0


def test_max_steps_per_episode_truncates_and_still_bootstraps(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, Tape(), max_steps_per_episode=3)
    stats = trainer.train()
    assert stats.history["episodes"]["length"] == [3, 3, 3, 3]
    assert stats.history["evaluations"]["length_mean"] == [3, 3, 3]
    columns = trainer.replay.state_dict()["rows"].all()
    assert (columns["discount"] == np.float32(0.99)).all(), "a truncated episode still bootstraps"


@pytest.mark.parametrize("names", [("latest.pt",), ("checkpoint_0000000008.pt",), ("best.pt",), ()])
def test_resume_from_any_checkpoint_gives_the_history_of_an_uninterrupted_run(
    tmp_path: Path, names: tuple[str]
) -> None:
    whole = make_trainer(tmp_path / "a", Tape(), max_steps=40, keep_last=9).train()
    interrupted = make_trainer(tmp_path / "b", Tape(), max_steps=40, keep_last=9)
    original = interrupted.loop.advance

    def advance(*limits: int | None) -> None:
        if interrupted.step >= 16:
            raise RuntimeError("power cut")
        original(*limits)

    interrupted.loop.advance = advance  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        interrupted.train()
    again = make_trainer(tmp_path / "b", Tape(), max_steps=40, keep_last=9)
    again.resume(tmp_path.joinpath("b", "run", *(("checkpoints", *names) if names else ())))
    resumed = again.train()
    assert repr(resumed.history) == repr(whole.history)
    assert (resumed.best_mean, resumed.best_step) == (whole.best_mean, whole.best_step)


def test_a_finished_run_returns_at_once_unless_its_budget_is_raised(tmp_path: Path) -> None:
    make_trainer(tmp_path, Tape()).train()
    tape = Tape()
    same = make_trainer(tmp_path, tape)
    same.resume(tmp_path / "run")
    assert same.train().reason == "trainer.max_steps=12 reached"
    assert [event.split()[0] for event in tape.events] == ["open", "close"]
    longer = make_trainer(tmp_path, Tape(), max_steps=20)
    longer.resume(tmp_path / "run")
    assert longer.train().steps == 20


def test_resume_restores_best_evaluation_and_patience(tmp_path: Path) -> None:
    make_trainer(tmp_path, Tape()).train()
    again = make_trainer(tmp_path, Tape())
    again.resume(tmp_path / "run")
    expected = EarlyStopping(best_mean=4.0, best_step=6, baseline=4.0, bad_evals=2)
    assert again.stopping.early_stopping == expected


def test_running_a_script_again_resumes_its_run_and_rejects_another_agent(tmp_path: Path) -> None:
    make_trainer(tmp_path, Tape()).train()
    before = (tmp_path / "run" / "checkpoints" / "latest.pt").read_bytes()
    with pytest.raises(
        UserError,
        match=r"holds another run \(its agent differs: agent.learning_rate: 0.001 -> 0.5\); choose another",
    ):
        make_trainer(tmp_path, Tape(), make_agent(learning_rate=0.5)).train()
    assert (tmp_path / "run" / "checkpoints" / "latest.pt").read_bytes() == before
    tape = Tape()
    assert make_trainer(tmp_path, tape, max_steps=16).train().steps == 16
    assert tape.events[0].startswith("open ")
    assert tape.events[1] == "episode 16/4"


def test_running_a_script_again_with_a_larger_budget_keeps_what_followed_the_first(tmp_path: Path) -> None:
    def budgeted(max_steps: int) -> Trainer:
        replay = PrioritizedReplay(capacity=50)
        agent = make_agent(learning_starts=None, exploration=EpsilonGreedy(), replay=replay)
        return make_trainer(tmp_path, Tape(), agent, max_steps=max_steps)

    budgeted(40).train()
    again = budgeted(100)
    config = again.agent.config
    assert (config.learning_starts, config.exploration.schedule.steps) == (4, 20)
    assert config.replay.beta_steps == 40
    assert again.train().steps == 100
    fresh = make_agent(learning_starts=None, exploration=EpsilonGreedy())
    other = Trainer(fresh, Counter(), TrainingConfig(max_steps=100), tmp_path / "other", loggers={})
    assert other.agent.config.exploration.schedule.steps == 50


def test_a_signal_that_arrives_while_a_run_ends_takes_effect_after_it(tmp_path: Path) -> None:
    """Otherwise the next run of a plain multirun, or of a script, would start."""

    class Late(Tape):
        def close(self, failed: bool) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SignalExit) as ended:
        make_trainer(tmp_path, Late()).train()
    assert ended.value.code == 128 + signal.SIGTERM
    assert read_json(tmp_path / "run" / "metrics.json")["finished"] == "trainer.max_steps=12 reached"
    assert make_trainer(tmp_path, Tape()).train().reason == "trainer.max_steps=12 reached"


class UserNetwork:
    """A network of a user: no dataclass, with a cache, a path, an array and an object that refers back."""

    def __init__(self, hidden: int, weights: str = "weights.pt", scale: float = 1.0) -> None:
        self.hidden = hidden
        self.weights = Path(weights)
        self.scale = np.array([scale])
        self.tags = {"b", "a"}
        self.helper: Any = SimpleNamespace(owner=self, calls=0)
        self._built = 0

    def build(self, spec: EnvSpec, outputs_per_action: int) -> nn.Module:
        self._built += 1
        self.helper.calls += 1
        outputs = spec.num_actions * outputs_per_action
        return nn.Sequential(nn.Linear(1, self.hidden), nn.ReLU(), nn.Linear(self.hidden, outputs))


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"hidden": 3}, "agent.network.hidden: 2 -> 3"),
        ({"weights": "other.pt"}, "agent.network.weights: weights.pt -> other.pt"),
        ({"scale": 2.0}, r"agent.network.scale: \[1.0\] -> \[2.0\]"),
    ],
)
def test_a_script_with_an_object_of_its_own_as_a_part_resumes_and_rejects_other_settings_of_it(
    tmp_path: Path, changed: dict[str, Any], difference: str
) -> None:
    make_trainer(tmp_path, Tape(), make_agent(network=UserNetwork(2))).train()
    used = UserNetwork(2)
    used.build(EnvSpec((1,), 2), 1)  # its cache is not a setting
    assert make_trainer(tmp_path, Tape(), make_agent(network=used), max_steps=16).train().steps == 16
    other = UserNetwork(**{"hidden": 2, **changed})
    with pytest.raises(UserError, match=rf"\(its agent differs: {difference}\)"):
        make_trainer(tmp_path, Tape(), make_agent(network=other)).train()


def test_a_pruner_ends_a_run_and_without_it_the_run_continues(tmp_path: Path) -> None:
    calls: list[tuple[int, float]] = []

    class Pruner:
        def on_evaluation(self, run: Any, evaluation: Evaluation) -> None:
            if run.stop_reason is None:
                calls.append((run.position, evaluation.mean))
                if len(calls) == 2:
                    run.request_stop("enough", pruned=True)

    stats = make_trainer(tmp_path, Tape(), pruner=Pruner()).train()
    assert (stats.reason, stats.pruned, stats.steps) == ("enough", True, 10)
    assert calls == [(6, 4.0), (10, 4.0)]
    assert (tmp_path / "run" / "metrics.json").exists()
    again = make_trainer(tmp_path, Tape(), pruner=Pruner()).train()
    assert (again.reason, again.pruned, again.steps) == ("enough", True, 10)
    alone = make_trainer(tmp_path, Tape()).train()
    assert (alone.reason, alone.pruned, alone.steps) == ("trainer.max_steps=12 reached", False, 12)
    assert repr(alone.history) == repr(make_trainer(tmp_path / "whole", Tape()).train().history)


def test_the_objective_of_a_run_is_its_best_evaluation(tmp_path: Path) -> None:
    stats = make_trainer(tmp_path, Tape()).train()
    assert stats.objective == stats.best_mean == 4.0
    assert not math.isnan(stats.training_time)


class TestPythonInterface:
    """Trainer and its configuration, as a script uses them."""

    def test_defaults_of_the_training_config(self) -> None:
        config = TrainingConfig()
        assert (config.max_episodes, config.max_steps_per_episode, config.max_steps) == (50_000, 1000, None)
        assert (config.eval_frequency, config.eval_episodes) == (100, 10)
        assert (config.checkpoint_frequency, config.log_frequency) == (500, 10)
        assert (config.early_stopping, config.patience, config.frequency_unit.value) == (True, 50, "episodes")

    def test_a_documented_script_trains_and_draws_curves(self, tmp_path: Path) -> None:
        agent = DQNAgent(DQNConfig(state_dim=60, action_dim=7, seed=42, learning_starts=50))
        config = TrainingConfig(max_episodes=20, eval_frequency=10, checkpoint_frequency=10)
        trainer = Trainer(agent, Wide(), config, output_dir=str(tmp_path / "results" / "run1"))
        stats = trainer.train()
        assert stats.episodes == 20
        assert len(stats.history["evaluations"]["step"]) == 2
        assert (tmp_path / "results/run1/training_curves.png").stat().st_size > 10_000

    @pytest.mark.parametrize("shape", [(10, 10, 4), (4, 36, 36)])
    def test_image_observations_train_with_channels_first_or_last(
        self, tmp_path: Path, shape: tuple[int, ...]
    ) -> None:
        agent = DQNAgent(DQNConfig(state_dim=shape, action_dim=3, learning_starts=20, batch_size=8))
        config = TrainingConfig(max_episodes=5, eval_frequency=5, eval_episodes=1)
        assert Trainer(agent, Images(shape), config, tmp_path, loggers={}).train().episodes == 5

    def test_unsupported_spaces_are_rejected_with_the_name_of_the_env(self, tmp_path: Path) -> None:
        env = Counter()
        env.observation_space = gymnasium.spaces.Text(5)
        with pytest.raises(UserError, match=r"Counter has Text"):
            Trainer(make_agent(), env, TrainingConfig(), tmp_path)
        env = Counter()
        env.action_space = gymnasium.spaces.Box(-1, 1, (2,))
        with pytest.raises(UserError, match=r"MultiBinary action space; Counter has Box"):
            Trainer(make_agent(), env, TrainingConfig(), tmp_path)

    def test_an_agent_of_other_shapes_than_the_env_is_rejected(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"built for observations \(1,\) and 2 actions.*\(60,\) and 7"):
            Trainer(make_agent(), Wide(), TrainingConfig(), tmp_path)

    def test_settings_that_do_not_fit_each_other_are_rejected(self, tmp_path: Path) -> None:
        agent = make_agent(exploration=EpsilonGreedy(schedule=Linear(steps=1000)))
        with pytest.raises(UserError, match=r"longer than trainer\.max_steps=12"):
            make_trainer(tmp_path, Tape(), agent)


class Wide(Counter):
    """60 features, 7 actions."""

    observation_space = gymnasium.spaces.Box(-1, 1, (60,), np.float64)
    action_space = gymnasium.spaces.Discrete(7)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 60), {}

    def step(self, action: Any) -> Any:
        _, reward, terminated, truncated, info = super().step(action)
        return self.np_random.uniform(-1, 1, 60), reward, terminated, truncated, info


class Images(Counter):
    """Random uint8 images."""

    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(length=6)
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.np_random.integers(0, 255, self.observation_space.shape, np.uint8), {}

    def step(self, action: Any) -> Any:
        _, reward, terminated, truncated, info = super().step(action)
        obs = self.np_random.integers(0, 255, self.observation_space.shape, np.uint8)
        return obs, reward, terminated, truncated, info


def test_a_run_with_an_agent_that_was_trained_before_says_so(tmp_path: Path) -> None:
    agent, said = make_agent(), "the agent was trained before this run, which begins with its parameters"
    trainers = [make_trainer(tmp_path / name, Tape(), agent) for name in ("first", "second", "first")]
    for trainer in trainers:
        trainer.train()
    assert [sum(said in notice for notice in each.directory.notices) for each in trainers] == [0, 1, 0]


def test_a_script_that_gives_something_else_is_told_what_to_give(tmp_path: Path) -> None:
    config, settings = TrainingConfig(max_steps=10), {"state_dim": 1, "action_dim": 2}
    with pytest.raises(
        UserError, match=r"DQNAgent takes a DQNConfig, not a dict; use DQNConfig\(\*\*settings\)"
    ):
        DQNAgent(settings)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="output_dir is empty; name the directory"):
        Trainer(make_agent(), Counter(), config, "")
    loggers: Any
    for loggers, message in (
        (["console"], "loggers must be a dictionary.*not a list"),
        ("console", "loggers must be a dictionary.*not a str"),
        ({"mine": object()}, r"loggers\['mine'\] is not a logger: it has no method open"),
    ):
        with pytest.raises(UserError, match=message):
            Trainer(make_agent(), Counter(), config, tmp_path / "run", loggers=loggers)
    assert not (tmp_path / "run").exists()


class Shifted(Counter):
    """Numbers its actions from 4 on."""

    action_space = gymnasium.spaces.Discrete(2, start=4)


class Longer(Counter):
    """Has two features more."""

    observation_space = gymnasium.spaces.Box(-1, 100, (3,), np.float32)

    def reset(self, **kwargs: Any) -> Any:
        super().reset(**kwargs)
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(3, np.float32), *super().step(action)[1:]


class OneOfOne(Counter):
    """Has the same actions in an array."""

    action_space = gymnasium.spaces.MultiDiscrete([2])


@pytest.mark.parametrize(
    ("env", "change"),
    [
        (Shifted(), r"actions\.start \[0\] -> \[4\]"),
        (Longer(), r"obs_shape \[1\] -> \[3\]"),
        (OneOfOne(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_run_is_not_resumed_with_other_observations_or_actions(
    tmp_path: Path, env: Any, change: str | None
) -> None:
    make_trainer(tmp_path, Tape(), max_steps=8).train()
    agent = make_agent(state_dim=env.observation_space.shape[0])
    trainer = make_trainer(tmp_path, Tape(), agent, env)
    if change is None:
        trainer.train()
        return
    with pytest.raises(
        UserError, match=rf"than when the run began: {change}\. Restore it, or start a new run"
    ):
        trainer.resume(tmp_path / "run")
