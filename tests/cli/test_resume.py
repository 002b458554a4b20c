"""Resume: an existing run continues in its directory, with the same records as an uninterrupted run."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.envs.gym import GymEnv
from dqn_runner.io.json_io import read_json
from dqn_runner.training.evaluator import Evaluation, Evaluator
from tests.conftest import BUDGET, Outcome, records

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "checkpoint",
    ["", "checkpoints/latest.pt", "checkpoints/best.pt", "checkpoints/checkpoint_0000000800.pt"],
)
def test_resume_from_any_checkpoint_continues_in_the_same_directory_with_the_same_records(
    run_copy: Path, program: Callable[..., Outcome], tmp_path: Path, checkpoint: str
) -> None:
    start = load_checkpoint(run_copy / (checkpoint or "checkpoints/latest.pt"))["step"]
    before = records(run_copy)
    done = program(f"resume={run_copy / checkpoint}", "trainer.max_steps=1600")
    assert done.status == 0, done.err
    assert done.out.startswith("changed for this session:\ntrainer.max_steps: 1200 -> 1600\nbest ")
    assert f" from step {start}, episode " in done.err
    assert files_in(tmp_path) == {"run"}
    assert read_json(run_copy / "metrics.json")["evaluations"]["step"] == [400, 800, 1200, 1600]
    assert records(run_copy)[: len(before)] == before, "steps that are trained again give the same records"
    first, second = read_json(run_copy / "run.json")["sessions"]
    assert (first["changes"], second["changes"]) == ([], ["trainer.max_steps: 1200 -> 1600"])


def test_resume_can_be_repeated_and_keeps_the_changes_of_earlier_sessions(
    run_copy: Path, program: Callable[..., Outcome]
) -> None:
    for budget in (1300, 1400):
        assert program("resume=run", f"trainer.max_steps={budget}").status == 0
    done = program("resume=run", "agent.learning_rate=2e-3", "trainer.max_steps=1500")
    assert "trainer.max_steps: 1400 -> 1500" in done.out
    assert "agent.learning_rate: 0.001 -> 0.002" in done.out
    assert len(read_json(run_copy / "run.json")["sessions"]) == 4
    assert read_json(run_copy / "run.json")["config"]["agent"]["learning_rate"] == 0.002


def test_resume_of_a_finished_run_reports_that_there_is_nothing_to_do(
    run_copy: Path, program: Callable[..., Outcome]
) -> None:
    before = records(run_copy)
    done = program("resume=run")
    assert done.status == 0, done.err
    assert done.out.startswith("nothing changed\nbest evaluation ")
    assert "nothing to do: this run has ended (trainer.max_steps=1200 reached)" in done.err
    assert records(run_copy) == before
    assert read_json(run_copy / "metrics.json")["finished"] == "trainer.max_steps=1200 reached"


def test_resume_prints_every_changed_setting_and_stores_the_new_values(
    run_copy: Path, program: Callable[..., Outcome]
) -> None:
    done = program(
        "resume=run",
        "agent=double_dqn",
        "agent.batch_size=64",
        "agent.exploration.schedule.end=0.1",
        "logging=[jsonl,csv]",
        "trainer.max_steps=1300",
    )
    assert done.status == 0, done.err
    assert set(done.out.splitlines()[1:-1]) == {
        "agent.loss.target._target_: agent/loss/target=max -> agent/loss/target=double",
        "agent.batch_size: 128 -> 64",
        "agent.exploration.schedule.end: 0.05 -> 0.1",
        "trainer.max_steps: 1200 -> 1300",
        "logging.csv._target_: (absent) -> logging=csv",
        "logging.console._target_: logging=console -> (absent)",
        "logging.console.progress_bar: True -> (absent)",
        "logging.file._target_: logging=file -> (absent)",
    }
    source = load_checkpoint(run_copy / "checkpoints" / "latest.pt")["source"]
    assert source["config"]["agent"]["batch_size"] == 64


@pytest.mark.usefixtures("run_copy")
def test_resume_can_set_a_changed_setting_back_to_its_default(program: Callable[..., Outcome]) -> None:
    assert program("resume=run", "agent.batch_size=64", "trainer.max_steps=1300").status == 0
    done = program("resume=run", "agent.batch_size=128", "trainer.max_steps=1400")
    assert "agent.batch_size: 64 -> 128" in done.out


@pytest.mark.usefixtures("run_copy")
def test_resume_can_change_a_chosen_option_back(program: Callable[..., Outcome]) -> None:
    assert program("resume=run", "agent=double_dqn", "trainer.max_steps=1300").status == 0
    done = program("resume=run", "agent=dqn", "trainer.max_steps=1400")
    assert "agent.loss.target._target_: agent/loss/target=double -> agent/loss/target=max" in done.out


def test_resume_from_an_earlier_checkpoint_restores_the_best_evaluation_of_that_time(
    program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    means = iter([1.0, 2.0, 3.0, 0.0])
    monkeypatch.setattr(Evaluator, "run", lambda *_, **__: Evaluation([next(means)], [1]))
    assert program(*BUDGET, "hydra.run.dir=run").status == 0
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    assert load_checkpoint(best)["step"] == 1200
    assert program("resume=run/checkpoints/checkpoint_0000000400.pt", "trainer.max_steps=800").status == 0
    assert read_json(tmp_path / "run" / "metrics.json")["best"] == {"return_mean": 1.0, "step": 400}
    assert load_checkpoint(best)["step"] == 400
    replaced = best.with_name("best_0000001200.pt")
    assert load_checkpoint(replaced)["step"] == 1200, (
        "the replaced best checkpoint is kept under another name"
    )


def test_resume_accepts_an_override_with_two_plus_signs(
    run_copy: Path, program: Callable[..., Outcome]
) -> None:
    assert program("resume=run", "++trainer.max_steps=1300").status == 0
    assert read_json(run_copy / "metrics.json")["evaluations"]["step"][-1] == 1300


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("env=acrobot", "resume cannot change env.id from CartPole-v1 to Acrobot-v1: "),
        ("env.num_envs=2", "resume cannot change env.num_envs from 1 to 2: "),
        ("seed=1", "resume cannot change seed from 0 to 1: "),
        ("agent/network=mlp", "resume cannot change agent.network."),
        ("agent/optimizer=rmsprop", "resume cannot change agent.optimizer._target_ from "),
        ("agent.replay.capacity=9000", "resume cannot change agent.replay.capacity from 50000 to 9000: "),
        ("agent.n_step=3", "resume cannot change agent.n_step from 1 to 3: "),
        ("agent.gamma=0.9", "resume cannot change agent.gamma from 0.99 to 0.9: "),
        (
            "trainer.frequency_unit=episodes",
            "resume cannot change trainer.frequency_unit from steps to episodes: ",
        ),
        ("agent.learning_rte=1", "did you mean 'agent.learning_rate'?"),
        ("hydra.run.dir=elsewhere", "resume continues in the run's directory"),
        ("mode=eval", "mode=eval takes checkpoint=PATH, not resume="),
        ("--multirun", "it cannot be swept"),
    ],
)
def test_resume_rejects_an_incompatible_change_in_one_line_and_keeps_the_files(
    run_copy: Path, program: Callable[..., Outcome], change: str, message: str
) -> None:
    files = {path: path.read_bytes() for path in run_copy.glob("*.json*")}
    assert message in program("resume=run", "trainer.max_steps=1300", change).error
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.usefixtures("run_copy")
def test_resume_from_a_missing_checkpoint_lists_the_existing_ones(program: Callable[..., Outcome]) -> None:
    message = program("resume=run/checkpoints/checkpoint_7.pt").error
    assert message.startswith("resume=run/checkpoints/checkpoint_7.pt: the checkpoint ")
    assert "checkpoint_7.pt does not exist; " in message
    assert "checkpoint_0000000400.pt" in message
    assert program("resume=nowhere").error.endswith("nowhere does not exist")


def test_resume_accepts_a_path_with_spaces_quotes_and_braces(
    run_copy: Path, program: Callable[..., Outcome], tmp_path: Path
) -> None:
    odd = tmp_path / "it's a=run, {1}"
    run_copy.rename(odd)
    escaped = str(odd).replace("'", "\\'")
    done = program(f"resume='{escaped}'", "trainer.max_steps=1250")
    assert done.status == 0, done.err
    assert files_in(tmp_path) == {odd.name}


def test_repeating_a_command_resumes_its_run_and_rejects_an_incompatible_change(
    run_copy: Path, program: Callable[..., Outcome]
) -> None:
    before = records(run_copy)
    done = program(*BUDGET, "hydra.run.dir=run")
    assert done.out.startswith("nothing changed\nbest evaluation "), done
    assert records(run_copy) == before
    message = program(*BUDGET, "seed=1", "hydra.run.dir=run").error
    assert "resume cannot change seed from 0 to 1" in message
    assert records(run_copy) == before
    done = program(*BUDGET, "trainer.max_steps=1300", "hydra.run.dir=run")
    assert done.out.startswith("changed for this session:\ntrainer.max_steps: 1200 -> 1300\nbest ")
    assert records(run_copy)[: len(before)] == before


def test_results_of_a_finished_run_without_checkpoints_are_not_replaced(
    run_copy: Path, program: Callable[..., Outcome]
) -> None:
    shutil.rmtree(run_copy / "checkpoints")
    before = {path.name: path.read_bytes() for path in run_copy.glob("metrics.*")}
    command = (*BUDGET, "logging=[console,file,jsonl]", "hydra.run.dir=run")
    assert "holds the results of a finished run, whose checkpoints are gone; move" in program(*command).error
    assert {path.name: path.read_bytes() for path in run_copy.glob("metrics.*")} == before
    (run_copy / "metrics.json").unlink()
    assert program(*command).status == 0, "a run that ended before its first checkpoint starts again"


def test_resume_never_starts_over_in_a_fresh_directory(
    run_copy: Path, program: Callable[..., Outcome], tmp_path: Path
) -> None:
    before = records(run_copy)
    for name in ("run-2", "run-3"):
        done = program(*BUDGET, "resume=never", "hydra.run.dir=run")
        assert f"run is already in use; with resume=never this run writes to {name}" in done.out
        assert records(tmp_path / name) == before
    assert records(run_copy) == before


def test_of_a_repeated_resume_the_last_one_counts(
    run_copy: Path, program: Callable[..., Outcome], tmp_path: Path
) -> None:
    shutil.copytree(run_copy, tmp_path / "other")
    before = records(run_copy)
    assert "other" in program("resume=run", "resume=other", "trainer.max_steps=1300").out
    assert "fresh" in program("resume=run", "resume=never", *BUDGET, "hydra.run.dir=fresh").out
    assert records(run_copy) == before
    assert "run" in program("resume=never", "resume=run", "trainer.max_steps=1300").out
    assert len(records(run_copy)) > len(before)


def test_of_a_repeated_checkpoint_the_last_one_counts(
    run_copy: Path, program: Callable[..., Outcome]
) -> None:
    files = [f"checkpoint={run_copy}/checkpoints/{name}.pt" for name in ("missing", "best")]
    done = program("mode=eval", *files, "evaluator.episodes=1", "hydra.run.dir=out")
    assert done.status == 0, done.err
    assert "best.pt" in done.out


@pytest.mark.parametrize(
    "command",
    [
        ("env=acrobot",),
        ("trainer.max_steps=1300",),
        ("mode=eval", "checkpoint=run", "evaluator.episodes=1"),
        ("env=acrobot", "hydra.run.dir=${hydra:job.name}"),
    ],
)
def test_the_configuration_that_began_a_run_is_never_overwritten(
    run_copy: Path, program: Callable[..., Outcome], command: tuple[str, ...]
) -> None:
    (run_copy.parent / "dqn_runner").symlink_to(run_copy)
    before = contents(run_copy / ".hydra")
    assert program("hydra.run.dir=run", *command).status in (0, 2)
    assert contents(run_copy / ".hydra") == before


def test_the_configuration_of_a_finished_run_without_checkpoints_is_not_overwritten_either(
    run_copy: Path, program: Callable[..., Outcome]
) -> None:
    shutil.rmtree(run_copy / "checkpoints")
    before = contents(run_copy / ".hydra")
    assert "whose checkpoints are gone" in program("env=acrobot", "hydra.run.dir=run").error
    assert contents(run_copy / ".hydra") == before


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_run(
    my_env: str, program: Callable[..., Outcome], tmp_path: Path
) -> None:
    command = (f"env.id={my_env}", "env.kwargs.at=650", "logging=[jsonl,csv]", *BUDGET)
    assert program(*command, "hydra.run.dir=whole").status == 0
    (tmp_path / "interrupt").write_text(str(int(signal.SIGINT)))
    assert program(*command, "hydra.run.dir=parts").status == 130
    assert len(records(tmp_path / "parts")) < len(records(tmp_path / "whole"))
    assert program("resume=parts", f"env.id={my_env}").status == 0
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    latest = [tmp_path / name / "checkpoints" / "latest.pt" for name in ("whole", "parts")]
    whole, parts = (load_checkpoint(path)["state"]["agent"] for path in latest)
    assert whole["learner"]["online"].equal(parts["learner"]["online"])
    assert whole["learner"]["target"].equal(parts["learner"]["target"])


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def files_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def everything_in(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_a_checkpoint_outside_of_a_run_is_not_resumed_in_the_folder_above(
    run_copy: Path, program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "downloads").mkdir(parents=True)
    (home / "metrics.json").write_text("mine")
    shutil.copy(run_copy / "checkpoints" / "best.pt", home / "downloads" / "best.pt")
    before = everything_in(home)
    monkeypatch.chdir(home / "downloads")
    error = program("resume=best.pt", "trainer.max_steps=1300").error
    assert (
        "best.pt is not in the folder checkpoints of the directory of a run; copy it, and any folder" in error
    )
    assert everything_in(home) == before


@pytest.mark.parametrize("link", ["link.pt", "checkpoints/latest.pt"])
def test_a_link_to_a_checkpoint_resumes_the_run_that_it_leads_to(
    run_copy: Path,
    program: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    link: str,
) -> None:
    elsewhere = tmp_path / "elsewhere" / "here"
    elsewhere.mkdir(parents=True)
    (elsewhere.parent / link).parent.mkdir(exist_ok=True)
    (elsewhere.parent / link).symlink_to(run_copy / "checkpoints" / "latest.pt")
    monkeypatch.chdir(elsewhere)
    before = sorted(tmp_path.glob("elsewhere/**/*"))
    assert program(f"resume=../{link}", "trainer.max_steps=1300").status == 0
    assert sorted(tmp_path.glob("elsewhere/**/*")) == before
    assert load_checkpoint(run_copy / "checkpoints" / "latest.pt")["step"] == 1300


@pytest.mark.parametrize("folder", ["saved", "checkpoints"])
def test_a_checkpoint_of_another_run_is_not_resumed_in_the_directory_it_was_copied_to(
    run_copy: Path, program: Callable[..., Outcome], tmp_path: Path, folder: str
) -> None:
    assert program(*BUDGET, "seed=7", "hydra.run.dir=other").status == 0
    copied = run_copy / folder / "b.pt"
    copied.parent.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "other" / "checkpoints" / "best.pt", copied)
    before = everything_in(run_copy)
    error = program(f"resume={copied}", "trainer.max_steps=1300").error
    reason = "seed from 7 to 0" if folder == "checkpoints" else "is not in the folder checkpoints"
    assert reason in error
    assert everything_in(run_copy) == before


def test_a_copied_checkpoint_is_resumed_as_the_message_says(
    run_copy: Path, program: Callable[..., Outcome], tmp_path: Path
) -> None:
    shutil.copy(run_copy / "checkpoints" / "best.pt", tmp_path / "best.pt")
    advice = program("resume=best.pt").error.partition("write ")[2].replace("NEW_DIRECTORY", "new")
    assert advice == "resume=new/checkpoints/best.pt"
    (tmp_path / "new").mkdir()
    shutil.copytree(run_copy / "checkpoints", tmp_path / "new" / "checkpoints")
    assert program(advice, "trainer.max_steps=1300").status == 0
    assert read_json(tmp_path / "new" / "metrics.json")["env_steps"] == 1300


def test_a_run_of_a_script_goes_back_to_a_checkpoint_from_before_a_changed_setting(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    agent = DQNAgent(DQNConfig(state_dim=4, action_dim=2, learning_starts=50, batch_size=8, compile=False))
    config = TrainingConfig(
        max_steps=400, frequency_unit="steps", eval_frequency=200, checkpoint_frequency=200
    )
    Trainer(agent, GymEnv(id="CartPole-v1"), config, tmp_path / "run").train()
    assert program("resume=run", "trainer.max_steps=600", "agent.learning_rate=1e-4").status == 0
    done = program("resume=run/checkpoints/checkpoint_0000000400.pt", "trainer.max_steps=500")
    assert done.status == 0, done.err


@pytest.mark.parametrize("target", ["latest.pt", "missing.pt", "/missing/checkpoints/latest.pt"])
def test_an_older_checkpoint_is_used_beside_a_broken_link(
    run_copy: Path, program: Callable[..., Outcome], target: str
) -> None:
    latest = run_copy / "checkpoints" / "latest.pt"
    latest.unlink()
    latest.symlink_to(target)
    done = program(f"resume={latest}", "trainer.max_steps=1300")
    assert done.status == 0, done.err
    assert "is used instead" in done.err
    assert not latest.is_symlink()
