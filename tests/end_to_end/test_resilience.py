"""Long runs: raised budgets, failing environments and disks, divergence, and preempted jobs."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig, UserError
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.schedules import Constant
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.core.exceptions import DivergedError
from dqn_runner.io import files
from dqn_runner.loggers import appended_file
from dqn_runner.loggers.files import JsonLines
from dqn_runner.training import resources
from dqn_runner.training.config import FrequencyUnit
from dqn_runner.training.evaluator import Evaluation, Evaluator
from dqn_runner.training.stopping import EarlyStopping
from tests.conftest import BUDGET, Outcome, records, write_my_env
from tests.support import crash

STEPS = [
    *BUDGET,
    "trainer.eval_frequency=300",
    "trainer.checkpoint_frequency=350",
    "trainer.log_frequency=170",
    "trainer.target_return=null",
]
NONSENSE = """
import gymnasium, math, numpy

class Nonsense(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,), numpy.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, after):
        self.left = after

    def reset(self, seed=None, options=None):
        return numpy.zeros(1, numpy.float32), {}

    def step(self, action):
        self.left -= 1
        reward = math.nan if self.left < 0 else 1.0
        return numpy.zeros(1, numpy.float32), reward, self.left % 10 == 0, False, {}
"""
"""Its rewards are not numbers after some steps."""
TRUNCATED = re.compile(r"did not repeat its open episode .*; the episode is truncated there")


class TestRaisedBudgets:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "short",
        [
            pytest.param(["trainer.max_steps=901"], id="steps"),
            pytest.param(["trainer.max_episodes=31"], id="episodes", marks=pytest.mark.nightly),
        ],
    )
    @pytest.mark.parametrize("train_every", [pytest.param(4, marks=pytest.mark.nightly), 7])
    def test_finished_run_with_a_larger_budget_equals_an_uninterrupted_run(
        self, program: Callable[..., Outcome], tmp_path: Path, short: list[str], train_every: int
    ):
        """It ended within a training iteration, with an evaluation and a log line that were not due."""
        command = [*STEPS, f"agent.train_every={train_every}", "logging=[jsonl,csv]"]
        long = ["trainer.max_steps=1200", "trainer.max_episodes=null"]
        for name, budgets in (("whole", [long]), ("parts", [["trainer.max_steps=1200", *short], long])):
            (tmp_path / name).mkdir()
            for budget in budgets:
                done = program(*command, *budget, f"hydra.run.dir={name}/run")
                assert done.status == 0, done.err
        ended = json.loads((tmp_path / "parts" / "run" / "run.json").read_text())["sessions"]
        assert len(ended) == 2
        found = crash.differences(tmp_path / "whole" / "run", tmp_path / "parts" / "run")
        found = [line for line in found if ": .source." not in line]
        if found and found[0].startswith("the checkpoints are"):
            assert list((tmp_path / "parts/run/checkpoints").glob("best_*.pt")), found
            found = found[1:]
        assert found == []

    def test_best_checkpoint_of_the_final_evaluation_is_replaced_when_the_run_continues(
        self, program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        means = iter([1.0, 2.0, 3.0, 1.5, 0.5, 0.4])
        monkeypatch.setattr(Evaluator, "run", lambda *_, **__: Evaluation([next(means)], [1]))
        assert program(*STEPS, "trainer.max_steps=700", "hydra.run.dir=run").status == 0
        checkpoints = tmp_path / "run" / "checkpoints"
        assert load_checkpoint(checkpoints / "best.pt")["step"] == 700, "the final evaluation is the best"
        assert program(*STEPS, "trainer.max_steps=1200", "hydra.run.dir=run").status == 0
        assert load_checkpoint(checkpoints / "best.pt")["step"] == 600
        assert json.loads((tmp_path / "run" / "metrics.json").read_text())["best"]["step"] == 600
        assert load_checkpoint(checkpoints / "best_0000000700.pt")["step"] == 700, "the former best is kept"


class Drifting(gymnasium.Env[Any, Any]):
    """Episodes of ten steps; `drift` is added to observations, and the first instance fails at step `broken`.

    With `always`, every instance fails. The seventh step of an episode gives `reward`; if `lost`, its
    observation is NaN.
    """

    observation_space = gymnasium.spaces.Box(-1e9, 1e9, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    made = 0

    def __init__(
        self,
        drift: float = 0.0,
        broken: int = 0,
        always: bool = False,
        reward: float = 1.0,
        lost: bool = False,
    ) -> None:
        Drifting.made += 1
        self.reward, self.lost = reward, lost
        self.drift, self.always = drift, always
        self.broken = broken if Drifting.made == 1 or always else 0
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        self.steps += 1
        if self.broken and self.steps >= self.broken:
            raise RuntimeError("the simulator is gone")
        return self._observation(), self.reward if self.t == 7 else 1.0, False, self.t == 10, {}

    def _observation(self) -> Any:
        obs = [self.np_random.random() + self.drift, self.t]
        return np.array([np.nan, self.t] if self.lost and self.t == 7 else obs, np.float32)


class Part:
    """An environment part, as a user may write one."""

    def __init__(self, num_envs: int = 1, **kwargs: Any) -> None:
        Drifting.made = 0
        self.num_envs, self.kwargs = num_envs, kwargs

    def learning_reward(self, reward: float) -> float:
        return reward

    def make(self, training: bool = True, render: bool = False) -> Drifting:
        return Drifting(**self.kwargs)


def trainer(
    path: Path, part: Any, steps: int = 205, allow_inexact_resume: bool = False, **changes: Any
) -> Trainer:
    agent = DQNAgent(
        DQNConfig(
            state_dim=2,
            action_dim=2,
            learning_starts=20,
            train_every=5,
            n_step=3,
            batch_size=8,
            exploration=EpsilonGreedy(schedule=Constant(value=0.5)),
        )
    )
    settings: dict[str, Any] = {
        "frequency_unit": FrequencyUnit.steps,
        "max_steps": steps,
        "eval_frequency": 100,
        "log_frequency": 50,
    }
    config = TrainingConfig(**{**settings, "checkpoint_frequency": 50, **changes})
    return Trainer(agent, part, config, path, loggers={}, allow_inexact_resume=allow_inexact_resume)


class TestEpisodesThatCannotBeRestored:
    def test_resume_error_names_the_env_and_the_setting_that_helps(self, tmp_path: Path):
        trainer(tmp_path, Part(), 205).train()
        with pytest.raises(UserError) as caught:
            trainer(tmp_path, Part(drift=1.0), 300).train()
        message = str(caught.value)
        assert "Drifting did not repeat its open episode" in message
        assert "when the seed and the 5 actions were replayed" in message
        assert "the observation of the reset differs" in message
        assert "checkpoint.allow_inexact_resume=true" in message

    def test_inexact_resume_truncates_the_episode(self, tmp_path: Path):
        trainer(tmp_path, Part(), 205).train()
        second = trainer(tmp_path, Part(drift=1.0), 300, allow_inexact_resume=True)
        stats = second.train()
        assert stats.steps == 300
        lengths = stats.history["episodes"]["length"]
        assert lengths == [10] * 20 + [5] + [10] * 9
        rows = second.replay.state_dict()["rows"].all()
        cut = [
            i
            for i in range(len(rows["reward"]))
            if rows["next_obs"][i][1] == 5 and 2 <= rows["obs"][i][1] < 5
        ]
        at_edge = [i for i in cut if 200 < 205 and rows["discount"][i] > 0.99**3 + 1e-6]
        assert len(at_edge) == 2, "open n-step windows are stored with the discount of their actual length"
        assert (rows["discount"] > 0).all(), "no transition is terminal"
        assert any(TRUNCATED.search(notice) for notice in second.directory.notices)

    def test_inexact_resume_is_reported_in_the_log_and_in_run_json(
        self, my_env: str, program: Callable[..., Outcome], tmp_path: Path
    ):
        command = (*BUDGET, f"env.id={my_env}", "hydra.run.dir=run")
        assert program(*command, "trainer.max_steps=1190").status == 0
        source = tmp_path / "my_pkg" / "envs.py"
        source.write_text(source.read_text().replace("uniform(-1, 1, 60)", "uniform(-1, 0.5, 60)"))
        for name in [name for name in sys.modules if name.startswith("my_pkg")]:
            del sys.modules[name]
        gymnasium.registry.pop("MyEnv-v0", None)
        error = program(*command).error
        assert "did not repeat its open episode" in error
        done = program(*command, "checkpoint.allow_inexact_resume=true")
        assert done.status == 0, done.err
        assert TRUNCATED.search((tmp_path / "run" / "logs" / "training.log").read_text())
        session = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"][-1]
        assert TRUNCATED.search(session["notices"][0])


class TestFailingEnvironments:
    def test_env_that_fails_once_is_recovered_and_does_not_change_the_run(
        self, tmp_path: Path, warnings: list[str]
    ):
        whole = trainer(tmp_path / "whole", Part(num_envs=2))
        whole.train()
        broken = trainer(tmp_path / "broken", Part(num_envs=2, broken=57))
        broken.train()
        assert Drifting.made == 4, "two for training, one for evaluation, one replacement"
        assert torch.equal(whole.agent.learner.online, broken.agent.learner.online)
        assert whole.recorder.metrics.history() == broken.recorder.metrics.history()
        (message,) = (message for message in warnings if "creating it again" in message)
        assert "RuntimeError: the simulator is gone" in message

    def test_env_that_fails_twice_ends_the_run_and_the_state_is_saved(self, tmp_path: Path):
        with pytest.raises(RuntimeError, match="the simulator is gone"):
            trainer(tmp_path, Part(broken=57, always=True), retry_env=True, eval_frequency=10_000).train()
        assert load_checkpoint(tmp_path / "checkpoints" / "latest.pt")["step"] > 50

    def test_env_that_cannot_be_restored_ends_the_run(self, tmp_path: Path):
        class Other(Part):
            def make(self, training: bool = True, render: bool = False) -> Drifting:
                return Drifting(drift=float(Drifting.made >= 2), broken=57)

        with pytest.raises(RuntimeError, match="the simulator is gone"):
            trainer(tmp_path, Other()).train()


class TestDivergence:
    def test_pitfall_26_a_run_that_diverges_stops_with_a_diagnosis_and_keeps_its_last_good_checkpoint(
        self, tmp_path: Path
    ):
        run = trainer(tmp_path, Part(), steps=400)
        learn, calls = run.agent.learn, iter(range(1000))

        def learn_from_nan_once(batch: Any, step: int) -> Any:
            if next(calls) == 20:
                batch.transition.reward[3] = float("nan")
            return learn(batch, step)

        run.agent.learn = learn_from_nan_once  # type: ignore[method-assign]
        with pytest.raises(DivergedError) as caught:
            run.train()
        message = str(caught.value)
        assert "learning diverged at step 120, update 21: loss nan, q_mean " in message
        assert "the update before: loss " in message
        assert "the environment gave observations or rewards that are not finite" in message
        assert "agent.learning_rate" in message
        batch = torch.load(tmp_path / "diverged.pt", weights_only=True)
        assert batch["reward"].isnan().tolist() == [i == 3 for i in range(8)]
        assert (batch["step"], batch["update"], len(batch["indices"])) == (120, 21, 8)
        latest = load_checkpoint(tmp_path / "checkpoints" / "latest.pt")
        assert latest["step"] == 100
        assert latest["state"]["agent"]["learner"]["online"].isfinite().all()

    @pytest.mark.parametrize(
        ("part", "found"),
        [
            ({"reward": math.inf}, "returned inf as reward"),
            ({"reward": math.nan}, "returned nan as reward"),
            ({"lost": True}, "returned nan .* as element"),
        ],
        ids=str,
    )
    def test_values_of_the_env_that_are_not_finite_are_not_reported_as_diverged_learning(
        self, tmp_path: Path, part: dict[str, Any], found: str
    ):
        with pytest.raises(UserError, match=rf"Drifting: step\(\) {found}"):
            trainer(tmp_path, Part(**part), steps=400).train()

    @pytest.mark.parametrize("after", [0, 70])
    def test_nonsense_of_the_env_is_a_failed_run_and_not_a_wrong_command(
        self, program: Callable[..., Outcome], tmp_path: Path, after: int
    ):
        (tmp_path / "nonsense.py").write_text(NONSENSE)
        done = program(
            *BUDGET, "env=gym", "env.id=nonsense:Nonsense", f"env.kwargs.after={after}", "agent/network=mlp"
        )
        assert done.status == 1
        assert re.search(r"error: Nonsense: step\(\) returned nan as reward", done.err.splitlines()[-1])

    def test_evaluation_of_nan_is_never_the_best(self):
        best = EarlyStopping()
        assert not best.update(math.nan, 100, 0.0)
        assert best.update(1.0, 200, 0.0)
        assert not best.update(math.nan, 300, 0.0)
        assert (best.best_mean, best.best_step) == (1.0, 200)

    def test_weights_that_are_not_finite_are_not_saved(self, tmp_path: Path):
        run = trainer(tmp_path, Part(), steps=100)
        run.agent.config.learning_starts = 90
        run.agent.learner.online[0] = float("inf")
        with pytest.raises(DivergedError, match="the weights are not finite at step 50"):
            run.train()
        assert not (tmp_path / "checkpoints" / "latest.pt").exists()

    def test_divergence_has_its_own_exit_status_and_does_not_stop_a_multirun(
        self, program: Callable[..., Outcome], tmp_path: Path
    ):
        done = program(*BUDGET, "agent.learning_rate=1e30", "hydra.run.dir=run")
        assert done.status == 3
        assert "learning diverged at step" in done.err.splitlines()[-1]
        assert "Traceback" not in done.err
        assert "learning diverged" in (tmp_path / "run" / "logs" / "training.log").read_text()
        swept = program("-m", "agent.learning_rate=1e30,1e-3", *BUDGET, "hydra.sweep.dir=sweep")
        assert swept.status == 3
        assert json.loads((tmp_path / "sweep" / "1" / "metrics.json").read_text())["env_steps"] == 1200


class TestClusterSignals:
    @pytest.mark.slow
    @pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
    def test_cluster_signal_saves_the_state_and_the_same_command_resumes(
        self, tmp_path: Path, number: signal.Signals
    ):
        write_my_env(tmp_path)
        command = [*BUDGET, "env.id=my_pkg.envs.MyEnv", "env.kwargs.at=650", "hydra.run.dir=run"]
        (tmp_path / "interrupt").write_text(str(int(number)))
        assert crash.run(command, tmp_path) == 128 + number
        assert f"stopped by {number.name}" in (tmp_path / "output").read_text()
        assert crash.run(command, tmp_path) == 0
        stopped = records(tmp_path / "run")
        assert crash.run([*command[:-1], "hydra.run.dir=whole"], tmp_path) == 0
        assert records(tmp_path / "whole") == stopped


class TestDisk:
    def test_too_small_a_disk_is_reported_before_the_first_step(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        usage = resources.shutil.disk_usage(tmp_path)
        monkeypatch.setattr(resources.shutil, "disk_usage", lambda _: usage._replace(free=10_000))
        with pytest.raises(
            UserError, match=r"need up to [\d.]+ MiB on the disk of .*, where 0\.0 MiB are free"
        ):
            trainer(tmp_path / "run", Part())

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("operation", "code"),
        [
            pytest.param("write", errno.ENOSPC, id="full"),
            pytest.param("write", errno.EDQUOT, id="quota", marks=pytest.mark.nightly),
            pytest.param("open", errno.EROFS, id="read-only"),
            pytest.param("fsync", errno.EIO, id="broken", marks=pytest.mark.nightly),
        ],
    )
    def test_failing_disk_loses_only_checkpoints_that_are_due_while_it_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str], operation: str, code: int
    ):
        """Lines of metrics.jsonl that could not be written are written later, in their order."""

        def make(path: Path) -> Trainer:
            each = trainer(path, Part(), steps=400)
            each.directory.loggers._parts["jsonl"] = JsonLines()  # pyright: ignore[reportPrivateUsage]
            return each

        make(tmp_path / "whole").train()
        disturbed = make(tmp_path / "full")
        latest = tmp_path / "full" / "checkpoints" / "latest.pt"
        checkpointer = disturbed.directory.checkpoints
        save, full = checkpointer.save, [False]

        def save_while_full(payload: Any, step: int, *rest: Any) -> None:
            """Fill the disk and free it again only between two writes of the writer thread."""
            checkpointer.wait()
            if full[0]:
                assert load_checkpoint(latest)["step"] == 50, "the last good checkpoint is kept"
                assert not list(latest.parent.glob("*.tmp"))
            full[0] = step in (100, 150)
            save(payload, step, *rest)

        checkpointer.save = save_while_full  # type: ignore[method-assign]

        def at(_number: int, name: str, _arguments: tuple[Any, ...]) -> None:
            if name == operation and full[0]:
                raise OSError(code, os.strerror(code))

        disk = crash.Disk(at)
        for module in (files, appended_file):
            monkeypatch.setattr(module, "os", disk)
        disturbed.train()
        assert records(tmp_path / "full") == records(tmp_path / "whole")
        failures = [message for message in warnings if "could not be written" in message]
        assert [message.partition(" could")[0] for message in failures] == [
            "the checkpoint of step 100",
            "the checkpoint of step 100",
            "the checkpoint of step 150",
        ], "the best checkpoint is tried again before the one that is due"
        assert os.strerror(code) in failures[0]
        assert sum("logging.jsonl cannot write" in message for message in warnings) == (operation == "write")
        whole, after = (
            load_checkpoint(tmp_path / name / "checkpoints" / "latest.pt") for name in ("whole", "full")
        )
        assert whole["state"]["agent"]["learner"]["online"].equal(
            after["state"]["agent"]["learner"]["online"]
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("minutes", "case"), [(60, "preempted"), pytest.param(1, "timed-out", marks=pytest.mark.nightly)]
)
def test_preempted_job_is_requeued_and_resumes(minutes: int, case: str, tmp_path: Path):
    """The signal handler of submitit submits the same call again.

    It treats any job with a limit below ten minutes as timed out.
    """
    budget = [
        *BUDGET,
        "trainer.max_steps=3000",
        "trainer.checkpoint_frequency=500",
        "trainer.target_return=null",
    ]
    assert crash.run([*budget, "hydra.run.dir=whole", "logging=[jsonl]"], tmp_path) == 0
    command = [
        "-m",
        *budget,
        "seed=0",
        "hydra/launcher=submitit_local",
        f"hydra.launcher.timeout_min={minutes}",
        "hydra.sweep.dir=sweep",
        "logging=[jsonl]",
    ]
    job = tmp_path / "sweep" / "0"
    launcher = crash.start(command, tmp_path)
    while not (job / "checkpoints" / "latest.pt").exists():
        assert launcher.poll() is None, (tmp_path / "output").read_text()
        time.sleep(0.02)
    os.kill(int((job / ".lock").read_text().split()[1]), signal.SIGUSR2)
    assert launcher.wait() == 0, (tmp_path / "output").read_text()
    output = "".join(path.read_text() for path in (tmp_path / "sweep" / ".submitit").rglob("*_log.*"))
    assert f"this job is {case}" in output
    assert len(json.loads((job / "run.json").read_text())["sessions"]) == 2
    assert records(job) == records(tmp_path / "whole")
