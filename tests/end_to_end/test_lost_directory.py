"""A run directory that is renamed, removed or replaced while a run is writing it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.schedules import Constant
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.core.exceptions import DirectoryLostError
from dqn_runner.io.held_directory import HeldDirectory
from dqn_runner.loggers.files import JsonLines, TextFile
from dqn_runner.replay.uniform import UniformReplay
from dqn_runner.run import plots
from dqn_runner.training.callbacks import Run
from dqn_runner.training.config import FrequencyUnit
from dqn_runner.training.evaluator import Evaluation
from tests.conftest import BUDGET, Outcome, records
from tests.support.fragile import fragile_part


@pytest.fixture(autouse=True)
def _without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "draw_training_curves", lambda _: None)


def rename(run: Path) -> None:
    run.rename(run.with_name("renamed"))


def remove(run: Path) -> None:
    shutil.rmtree(run)


def replace(run: Path) -> None:
    """Rename the directory; another program creates one of its name."""
    rename(run)
    run.mkdir()
    (run / "mine").touch()


def a_trainer(path: Path, at: int = -1, change: Callable[[Path], None] = rename) -> Trainer:
    """A trainer that calls `change` with its directory after the evaluation at step `at`."""

    class Change:
        def on_evaluation(self, run: Run, _: Evaluation) -> None:
            if run.step == at:
                trainer.directory.wait_for_checkpoint()
                change(path)

    config = DQNConfig(
        state_dim=3,
        action_dim=2,
        learning_starts=20,
        train_every=5,
        batch_size=8,
        replay=UniformReplay(capacity=100),
        exploration=EpsilonGreedy(schedule=Constant(value=0.5)),
    )
    settings = TrainingConfig(
        frequency_unit=FrequencyUnit.steps,
        max_steps=300,
        eval_frequency=100,
        eval_episodes=1,
        checkpoint_frequency=50,
        log_frequency=50,
    )
    env = fragile_part("sync", num_envs=1)
    loggers = {"jsonl": JsonLines(), "file": TextFile()}
    trainer = Trainer(DQNAgent(config), env, settings, path, loggers=loggers, callbacks=[Change()])
    return trainer


@pytest.mark.parametrize("change", [rename, replace])
def test_run_whose_directory_is_renamed_ends_with_its_state_in_the_new_place(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    run, renamed, whole = (tmp_path / name for name in ("run", "renamed", "whole"))
    a_trainer(whole).train()
    with pytest.raises(
        DirectoryLostError, match=rf"{run} was renamed to {renamed} .* at step 100, and resume"
    ):
        a_trainer(run, 100, change).train()
    assert sorted(path.name for path in tmp_path.glob("run/*")) == (["mine"] if change is replace else [])
    assert load_checkpoint(renamed / "checkpoints" / "latest.pt")["step"] == 100
    assert (renamed / "metrics.json").exists()
    assert (renamed / "logs" / "training.log").read_text().count("was renamed") == 1
    a_trainer(renamed).train()
    assert records(renamed) == records(whole)


def test_run_whose_directory_is_removed_ends_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DirectoryLostError, match=r"run was removed, .* up to step 100 is lost"):
        a_trainer(tmp_path / "run", 100, remove).train()
    assert list(tmp_path.iterdir()) == []


def test_directory_that_is_renamed_and_back_is_not_lost(tmp_path: Path) -> None:
    def there_and_back(run: Path) -> None:
        rename(run)
        run.with_name("renamed").rename(run)

    a_trainer(tmp_path / "run", 100, there_and_back).train()
    a_trainer(tmp_path / "whole").train()
    assert records(tmp_path / "run") == records(tmp_path / "whole")


def test_removed_replay_segments_are_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dqn_runner.checkpointing.segments.rows_per_segment", lambda _: 16)
    run = tmp_path / "run"
    a_trainer(run, 200, lambda path: shutil.rmtree(path / "checkpoints")).train()
    state: Any = load_checkpoint(run / "checkpoints" / "latest.pt")["state"]
    assert len(list((run / "checkpoints" / "segments").iterdir())) >= 100 // 16
    resumed = a_trainer(run)
    resumed.prepare()
    assert resumed.step == 300
    assert state["finished"] is not None


def test_program_ends_with_status_5(program: Callable[..., Outcome], tmp_path: Path) -> None:
    write_remover(tmp_path)
    done = program(*BUDGET, "env=gym", "env.id=remover:Remover", "hydra.run.dir=run", "logging=[jsonl]")
    assert done.status == 5
    assert done.err.splitlines()[-1].startswith("error: ")
    assert "run was removed" in done.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def write_remover(directory: Path) -> None:
    """Write a module with an environment that removes the directory `run`."""
    (directory / "remover.py").write_text(
        "import shutil\n"
        "from tests.support.fragile import Fragile\n\n"
        "class Remover(Fragile):\n"
        "    def step(self, action):\n"
        "        shutil.rmtree('run', ignore_errors=True)\n"
        "        return super().step(action)\n"
    )


def test_location_of_a_held_directory(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    path.mkdir(parents=True)
    held = HeldDirectory(path)
    assert held.location() == path
    (tmp_path / "a").rename(tmp_path / "c")
    assert held.location() == tmp_path / "c" / "b"
    (tmp_path / "a").touch()
    assert held.location() == tmp_path / "c" / "b"
    shutil.rmtree(tmp_path / "c")
    assert held.location() is None
    held.close()
