"""Callbacks: which events they get, how they stop a run, and that a resumed run calls them alike."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig, UserError
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.schedules import Constant
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.core.exceptions import CallbackError
from dqn_runner.envs.gym import GymEnv
from dqn_runner.io.signals import StopSignals
from dqn_runner.training.callback_parts.stop_on_metric import StopOnMetric
from dqn_runner.training.callbacks import Run
from dqn_runner.training.collector import Episode
from dqn_runner.training.evaluator import Evaluation
from tests.conftest import BUDGET, Outcome, records

pytestmark = pytest.mark.usefixtures("no_curves")


class Corridor(gymnasium.Env[Any, Any]):
    """Episodes of `length` steps, of which the observations tell; `length` may change between episodes."""

    observation_space = gymnasium.spaces.Box(-1, 100, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length: int = 3) -> None:
        self.length = length

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        info = {"metrics": {"time": self.t}}
        return self._obs(), float(self.np_random.random()), self.t >= self.length, False, info

    def _obs(self) -> Any:
        return np.array([self.t, self.length], np.float32)


class Tape:
    """Records every event in its state; makes the episodes longer, and stops the run at `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.events: list[str] = []
        self.starts: list[int] = []
        self.stop_at = stop_at
        self.longer = False

    def on_run_start(self, run: Run) -> None:
        self.starts.append(run.step)

    def on_step_end(self, run: Run) -> None:
        self.events.append(f"step {run.step}")

    def on_episode_end(self, run: Run, episode: Episode) -> None:
        self.events.append(f"episode {run.episode} {episode.step} {episode.length} {episode.metrics.means}")
        if self.longer:
            run.set_env_attribute("length", 3 + run.episode)
        if self.stop_at is not None and run.step >= self.stop_at:
            run.request_stop("the tape is full")

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> None:
        self.events.append(f"evaluation {run.step} {evaluation.mean} {run.best_mean} {run.stop_reason}")

    def on_checkpoint(self, run: Run, path: Path) -> None:
        assert load_checkpoint(path)["step"] == run.step
        self.events.append(f"checkpoint {run.step} {run.stop_reason}")

    def on_run_end(self, run: Run, reason: str) -> None:
        assert run.stop_reason == reason
        self.events.append(f"end {run.step} {reason}")

    def state_dict(self) -> dict[str, Any]:
        return {"events": self.events, "count": np.array(len(self.events))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.events = state["events"]
        assert int(state["count"]) == len(self.events)


class Asks:
    """Asks for actions and values as the environment returns observations, and with mistakes."""

    def on_run_start(self, run: Run) -> None:
        one, many = [1.0, 3.0], np.zeros((4, 2))
        assert run.q_values(one).shape == (2,)
        assert run.greedy(one) == run.q_values(one).argmax()
        assert run.q_values(many).shape == (4, 2)
        assert run.greedy(many, mask=[[1, 0]] * 4).tolist() == [0] * 4
        for obs, mask in (
            ([1.0, np.nan], None),
            ([1.0], None),
            ("text", None),
            (many, [1, 0]),
            (many, [[0, 7]] * 4),
            (one, [0, 0]),
        ):
            with pytest.raises(UserError):
                run.greedy(obs, mask)


def test_a_callback_asks_the_agent_about_observations_of_the_environment(tmp_path: Path) -> None:
    make(tmp_path, Asks(), max_steps=9).train()


def make(run_dir: Path, *callbacks: Any, num_envs: int = 1, max_steps: int = 41, **settings: Any) -> Trainer:
    exploration = EpsilonGreedy(schedule=Constant(value=0.5))
    settings_of_agent: dict[str, Any] = {"batch_size": 4, "learning_starts": 8, "train_every": 2}
    agent = DQNConfig(state_dim=2, action_dim=2, exploration=exploration, **settings_of_agent)
    steps: dict[str, Any] = {
        "frequency_unit": "steps",
        "max_episodes": None,
        "eval_frequency": 10,
        "eval_episodes": 2,
        "checkpoint_frequency": 8,
        "log_frequency": 12,
        "keep_last": 100,
        "early_stopping": False,
        **settings,
    }
    config = TrainingConfig(max_steps=max_steps, **steps)
    env: Any = GymEnv(id=f"{__name__}:Corridor", num_envs=num_envs)
    return Trainer(DQNAgent(agent), env, config, run_dir, loggers={}, callbacks=list(callbacks))


def test_events_of_a_run_in_their_order(tmp_path: Path) -> None:
    tape = Tape()
    make(tmp_path / "run", tape, max_steps=10, eval_frequency=4).train()
    assert [event.split()[:2] for event in tape.events] == [
        line.split()
        for line in (
            "step 1,step 2,step 3,episode 1,step 4,evaluation 4,checkpoint 4,step 5,step 6,episode 2,"
            "step 7,step 8,evaluation 8,checkpoint 8,step 9,episode 3,step 10,evaluation 10,end 10"
        )
        .replace("step 3,episode 1", "episode 1,step 3")
        .replace("step 6,episode 2", "episode 2,step 6")
        .replace("step 9,episode 3", "episode 3,step 9")
        .split(",")
    ]
    assert tape.starts == [0]
    assert tape.events[2] == "episode 1 3 3 {'time': 2.0}"
    assert tape.events[-1] == "end 10 trainer.max_steps=10 reached"


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("stop_at", [None, 26])
def test_a_resume_from_any_checkpoint_calls_the_events_of_an_uninterrupted_run(
    tmp_path: Path, num_envs: int, stop_at: int | None
) -> None:
    whole = Tape(stop_at)
    whole.longer = True
    make(tmp_path / "whole", whole, num_envs=num_envs).train()
    lengths = {int(event.split()[3]) for event in whole.events if event.startswith("episode")}
    assert len(lengths) > 1
    files = sorted((tmp_path / "whole" / "checkpoints").glob("*.pt"))
    assert len(files) > 4
    for file in files:
        tape = Tape(stop_at)
        tape.longer = True
        trainer = make(tmp_path / f"from_{file.stem}", tape, num_envs=num_envs)
        trainer.resume(file)
        trainer.train()
        assert tape.events == whole.events, file.name


def test_a_run_that_goes_on_with_a_larger_budget_calls_the_events_of_an_uninterrupted_one(
    tmp_path: Path,
) -> None:
    whole, parts, again = Tape(), Tape(), Tape()
    make(tmp_path / "whole", whole).train()
    make(tmp_path / "parts", parts, max_steps=16).train()
    assert parts.events[-1].startswith("end 16")
    make(tmp_path / "parts", again).train()
    assert again.events == whole.events
    assert again.starts == [16]


def test_a_request_to_stop_ends_a_run_like_a_budget_and_the_same_command_does_nothing(tmp_path: Path) -> None:
    tape = Tape(stop_at=20)
    stats = make(tmp_path / "run", tape).train()
    assert (stats.reason, stats.pruned, stats.steps) == ("the tape is full", False, 22)
    assert tape.events[-2:] == [tape.events[-2], "end 22 the tape is full"]
    assert tape.events[-2].startswith("evaluation 22")
    assert make(tmp_path / "run", Tape(stop_at=20)).train().steps == 22
    assert make(tmp_path / "run").train().steps == 41, "without the callback the run continues"


def test_the_reason_of_a_stop_is_stored_with_a_run_that_a_signal_interrupts(tmp_path: Path) -> None:
    trainer = make(tmp_path / "run", Tape())
    trainer.run.request_stop("first\n reason")
    trainer.run.request_stop("second")
    assert trainer.run.stop_reason == "first reason"
    again = make(tmp_path / "again", Tape())
    again.callbacks.load_state_dict(trainer.callbacks.state_dict())
    assert again.run.stop_reason == "first reason"


class KilledError(Exception):
    """What stands for the end of the process."""


def test_a_run_that_a_signal_kills_repeats_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[int] = []
    run_dir, left = tmp_path / "run", tmp_path / "left"

    def signal_at_8(_: Tape, run: Run) -> None:
        if run.step == 8 and not published:  # where a checkpoint is due
            os.kill(os.getpid(), signal.SIGUSR1)

    def end_process(_: StopSignals) -> None:
        shutil.copytree(run_dir, left)  # nothing that happens later in this process counts
        raise KilledError

    monkeypatch.setattr(Tape, "on_step_end", signal_at_8)
    monkeypatch.setattr(Tape, "on_checkpoint", lambda _, run, __: published.append(run.step))
    monkeypatch.setattr(StopSignals, "pass_on", end_process)
    with pytest.raises(KilledError):
        make(run_dir, Tape()).train()
    assert published == [8]
    make(left, Tape()).train()
    assert published == sorted(set(published))
    assert len(published) > 4


class Misspelled(Asks):
    """Would not be restored."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_statedict(self, state: dict[str, Any]) -> None:
        pass


def test_a_callback_with_one_of_the_methods_of_a_state_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Misspelled has state_dict, but no method load_state_dict\(state\)"):
        make(tmp_path, Misspelled())


def test_a_script_with_other_settings_of_its_callback_continues(tmp_path: Path) -> None:
    low, high = StopOnMetric(at_least=-1e9), StopOnMetric(at_least=1e9)
    assert make(tmp_path / "run", low).train().steps == 10
    assert make(tmp_path / "run", StopOnMetric(at_least=-1e9)).train().steps == 10
    assert make(tmp_path / "run", high).train().steps == 41


class Failing:
    def __init__(self, event: str) -> None:
        setattr(self, event, self.fail)

    def fail(self, *_: Any) -> None:
        raise ValueError("the dog ate it")


@pytest.mark.parametrize(
    "event", ["on_run_start", "on_step_end", "on_episode_end", "on_evaluation", "on_checkpoint", "on_run_end"]
)
def test_a_failing_callback_is_named_and_the_run_resumes_without_it(tmp_path: Path, event: str) -> None:
    whole = Tape()
    make(tmp_path / "whole", whole).train()
    with pytest.raises(
        CallbackError, match=r"callbacks\.Failing \(.*Failing\.\w+\) raised ValueError: the dog"
    ):
        make(tmp_path / "run", Tape(), Failing(event)).train()
    tape = Tape()
    make(tmp_path / "run", tape).train()
    assert tape.events == whole.events


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (object(), "without a method to call; a callback has any of on_run_start"),
        (Tape, "is the class Tape; give an object"),
        (type("Typo", (), {"on_evaluate": lambda *_: None})(), "did you mean on_evaluation"),
    ],
)
def test_what_is_no_callback_is_rejected(tmp_path: Path, callback: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(tmp_path, callback)


@pytest.mark.parametrize("value", [None, object(), {"a": 1}, [[1]]])
def test_an_attribute_of_the_environment_is_plain(tmp_path: Path, value: Any) -> None:
    with pytest.raises(UserError, match="not a number"):
        make(tmp_path).run.set_env_attribute("length", value)


def test_an_attribute_that_the_environment_lacks_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Corridor has no attribute 'lenght' to set"):
        make(tmp_path).run.set_env_attribute("lenght", 3)


def test_a_state_that_a_checkpoint_cannot_hold_is_reported_with_the_callback(tmp_path: Path) -> None:
    tape = Tape()
    tape.state_dict = lambda: {"file": object()}  # type: ignore[method-assign]
    trainer = make(tmp_path, tape)
    with pytest.raises(UserError, match=r"callbacks\.Tape: its state_dict\(\) must consist of .*state\.file"):
        trainer.train()
    assert trainer.step == 0


@pytest.mark.parametrize(
    "change",
    [{"stop": ["x"]}, {"owed": ["on_evaluation"]}, {"owed": "x"}, {"states": []}, {"stop": [1, True]}],
    ids=str,
)
def test_a_forged_state_of_callbacks_is_rejected(tmp_path: Path, change: dict[str, Any]) -> None:
    callbacks = make(tmp_path, Tape()).callbacks
    with pytest.raises(ValueError, match=r"state\.progress\.callbacks"):
        callbacks.load_state_dict({**callbacks.state_dict(), **change})


def test_stop_on_metric_counts_evaluations_in_a_row(tmp_path: Path, warnings: list[str]) -> None:
    stats = make(tmp_path / "run", StopOnMetric(metric="time", at_least=2.0, in_a_row=2)).train()
    assert (stats.steps, stats.reason) == (20, "time is 2, at least 2 (callbacks.stop_on_metric)")
    assert make(tmp_path / "low", StopOnMetric(metric="length_mean", at_most=3.0)).train().steps == 10
    assert make(tmp_path / "none", StopOnMetric(metric="speed", at_most=3.0)).train().steps == 41
    assert [line for line in warnings if "no metric speed; it has time, return_mean" in line] == warnings
    with pytest.raises(UserError, match="one of at_least and at_most"):
        StopOnMetric(metric="time")


MINE = """
class Mine:
    def __init__(self, fails=False):
        self.fails = fails

    def on_evaluation(self, run, evaluation):
        if self.fails:
            raise KeyError("gone")
        run.request_stop(f"evaluated at {run.step}")
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return "callbacks.own._target_=mine.Mine"


def test_a_callback_of_your_own_by_its_import_path(
    program: Callable[..., Outcome], tmp_path: Path, mine: str
) -> None:
    done = program(*BUDGET, mine, "callbacks.own.fails=true", "hydra.run.dir=run")
    assert done.status == 1
    assert (
        "error: the run failed: callbacks.own (mine.Mine.on_evaluation) raised KeyError: 'gone'" in done.err
    )
    assert "Traceback" in (tmp_path / "run/logs/training.log").read_text()
    done = program(*BUDGET, mine, "hydra.run.dir=run")
    assert done.status == 0, done.err
    assert "evaluated at 400" in done.err
    done = program("resume=run", "trainer.max_steps=1300")
    assert "asks for callbacks.own._target_=mine.Mine" in done.error
    done = program("resume=run", "trainer.max_steps=1300", "trust=true")
    assert "evaluated at 800" in done.err
    assert [line["step"] for line in records(tmp_path / "run") if line["kind"] == "eval"] == [400, 800]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("callbacks.own.fails=true", "callbacks.own is not a callback; name its class"),
        ("callbacks.own=3", "callbacks.own is not a callback"),
        ("callbacks.own._target_=mine.Nothing", "mine.Nothing"),
        ("callbacks=nothing", "stop_on_metric"),
        ("callbacks=stop_on_metric", "one of at_least and at_most"),
    ],
)
@pytest.mark.usefixtures("mine")
def test_mistakes_in_the_settings_of_callbacks_are_one_line(
    program: Callable[..., Outcome], override: str, message: str
) -> None:
    assert message in program(*BUDGET, override).error


def test_a_callback_from_the_group(program: Callable[..., Outcome]) -> None:
    done = program(
        *BUDGET, "callbacks=stop_on_metric", "callbacks.stop_on_metric.at_least=-1", "logging=[console]"
    )
    assert done.status == 0, done.err
    assert "at least -1 (callbacks.stop_on_metric)" in done.err


def test_the_log_has_the_traceback_of_a_state_that_raises(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tape = Tape()

    def state_dict() -> Any:
        raise AttributeError("no attribute 'best'")

    tape.state_dict = state_dict  # type: ignore[method-assign]
    trainer = make(tmp_path, tape)
    with pytest.raises(CallbackError, match="no attribute 'best'"):
        trainer.train()
    assert trainer.step == 0
    (failure,) = [record for record in caplog.records if "training failed at step 0" in record.message]
    assert failure.exc_info
