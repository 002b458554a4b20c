"""The command line, end to end: what a user types, and what must be there afterwards."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.training.evaluator import Evaluation, Evaluator
from tests.conftest import BUDGET, Outcome, records, run_cli

HEAVY = ("torch", "gymnasium", "matplotlib", "wandb", "optuna", "pandas", "rich")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def present(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run of 1200 steps, to be resumed."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


class TestQuestionsAreAnsweredQuickly:
    """Nothing heavy may be imported for them; the imports of the process are listed on its stderr."""

    @pytest.mark.parametrize(
        ("args", "line", "answers"),
        [
            (["--help"], "", ["agent: c51, double_dqn, dqn", "agent/loss: ", "--cfg job", "resume=RUN_DIR"]),
            (
                ["--cfg", "job", "--resolve", "seed=3", "agent=double_dqn"],
                "",
                [
                    "seed: 3\n",
                    "_target_: dqn_runner.agent.losses.targets.DoubleTarget",
                    "learning_rate: 0.001",
                    "target_return: 475.0",
                ],
            ),
            (["--info", "defaults-tree"], "", ["agent: dqn", "env: cartpole", "logging/jsonl"]),
            (["-sc", "query=bash"], "dqn_runner agent=d", ["agent=double_dqn", "agent=dqn"]),
            (["-sc", "query=bash"], "dqn_runner agent.lear", ["agent.learning_rate="]),
            (["-sc", "query=bash"], "dqn_runner agent/exploration/schedule=lin", ["schedule=linear"]),
        ],
        ids=["help", "cfg", "info", "complete-option", "complete-key", "complete-nested-group"],
    )
    def test_without_heavy_imports(
        self, args: list[str], line: str, answers: list[str], run_cli_here: Callable[..., Outcome]
    ):
        watched = {"PYTHONPROFILEIMPORTTIME": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
        done = run_cli_here(*args, env=watched)
        assert done.status == 0, done.err
        for answer in answers:
            assert answer in done.out
        imported = {text.rpartition("|")[2].strip() for text in done.err.splitlines()}
        assert "hydra" in imported
        assert not imported.intersection(HEAVY)

    def test_nothing_is_left_behind(self, program: Callable[..., Outcome], tmp_path: Path):
        assert program("--cfg", "job").status == 0
        assert not present(tmp_path)


class TestWhatARunLeaves:
    def test_its_files(self, finished_run: Path):
        assert present(finished_run) == {
            ".hydra",
            ".lock",
            "checkpoints",
            "logs",
            "metrics.json",
            "metrics.jsonl",
            "run.json",
            "training_curves.png",
        }
        numbered = {f"checkpoint_{step:010d}.pt" for step in (400, 800, 1200)}
        assert present(finished_run / "checkpoints") == {"best.pt", "latest.pt", *numbered}

    def test_what_it_says(self, finished_run: Path):
        best = read(finished_run / "metrics.json")["best"]
        told = (finished_run.parent / "stdout").read_text()
        assert told.splitlines()[-1] == (
            f"best evaluation {best['return_mean']:g} at step {best['step']}; everything is in {finished_run}"
        )
        lines = (finished_run.parent / "stderr").read_text().splitlines()
        assert lines[0].startswith("starting at step 0, episode 0 in ")
        assert "step 1200" in lines[-1]
        assert "trainer.max_steps=1200 reached" in lines[-1]
        assert [line.split(" episode")[0] for line in lines if line.startswith("eval")] == [
            "eval  step 400",
            "eval  step 800",
            "eval  step 1,200",
        ]

    def test_training_log_has_the_same_with_the_time(self, finished_run: Path):
        logged = (finished_run / "logs" / "training.log").read_text().splitlines()
        shown = (finished_run.parent / "stderr").read_text().splitlines()
        matches = [re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO +(.*)", line) for line in logged]
        assert [match[1] for match in matches if match] == shown

    def test_metrics_json_has_the_whole_history(self, finished_run: Path):
        metrics = read(finished_run / "metrics.json")
        episodes, train, evaluations = metrics["episodes"], metrics["train"], metrics["evaluations"]

        count = len(episodes["return"])
        assert count > 20
        assert len(episodes["length"]) == len(episodes["step"]) == count
        assert episodes["return"] == episodes["length"], "CartPole gives 1 for each step"
        assert episodes["step"] == np.cumsum(episodes["length"]).tolist()

        assert evaluations["step"] == [400, 800, 1200]
        for returns, mean, std in zip(
            evaluations["returns"], evaluations["return_mean"], evaluations["return_std"], strict=True
        ):
            assert len(returns) == 2
            assert (mean, std) == pytest.approx((np.mean(returns), np.std(returns)))

        assert train["step"] == list(range(200, 1201, 200))
        assert train["epsilon"] == pytest.approx([0.62, 0.24, 0.05, 0.05, 0.05, 0.05])
        for key in ("loss", "q_mean", "grad_norm"):
            assert all(value > 0 for value in train[key]), key
        assert train["episode"] == [sum(s <= step for s in episodes["step"]) for step in train["step"]]

        top = int(np.argmax(evaluations["return_mean"]))
        assert metrics["best"] == {
            "return_mean": evaluations["return_mean"][top],
            "step": evaluations["step"][top],
        }
        assert metrics["finished"] == "trainer.max_steps=1200 reached"
        assert 0 < metrics["time"]["training_seconds"] < 120
        assert metrics["time"]["eta_seconds"] == 0

    def test_metrics_jsonl_has_every_record(self, finished_run: Path):
        lines = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
        history = read(finished_run / "metrics.json")
        for kind, key, column in (
            ("episode", "train/return", history["episodes"]["return"]),
            ("train", "train/loss", history["train"]["loss"]),
            ("eval", "eval/return_mean", history["evaluations"]["return_mean"]),
        ):
            assert [line[key] for line in lines if line["kind"] == kind] == column
        assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
        for line in lines:
            if line["kind"] == "train":
                assert line["time/eta"] >= 0
                assert line["time/steps_per_second"] > 0

    def test_run_json_says_where_it_came_from(self, finished_run: Path):
        document = read(finished_run / "run.json")
        assert document["config"]["trainer"]["max_steps"] == 1200
        (session,) = document["sessions"]
        assert session["overrides"] == [*BUDGET, "logging=[console,file,jsonl]"]
        assert session["command"][1:3] == ["-m", "dqn_runner"]
        assert session["command"][3:5] == list(BUDGET[:2])
        assert session["seeds"]["run"] == 0
        assert session["packages"].keys() >= {"torch", "gymnasium", "hydra-core", "numpy"}
        assert session["hardware"]["torch_threads"] == 1
        assert re.fullmatch(r"[0-9a-f]{64}", session["config_hash"])

    def test_the_curves_are_a_picture(self, finished_run: Path):
        with Image.open(finished_run / "training_curves.png") as picture:
            picture.load()
            assert picture.size >= (800, 600)
            assert len(picture.convert("RGB").getcolors(2**24) or []) > 50

    def test_best_and_latest_are_what_they_say(self, finished_run: Path):
        checkpoints = finished_run / "checkpoints"
        best = read(finished_run / "metrics.json")["best"]
        assert load_checkpoint(checkpoints / "best.pt")["step"] == best["step"]
        assert load_checkpoint(checkpoints / "latest.pt")["step"] == 1200


class TestTheSameSeedGivesTheSameRun:
    def test_bytes(self, finished_run: Path, program: Callable[..., Outcome], tmp_path: Path):
        assert program(*BUDGET, "hydra.run.dir=same").status == 0
        assert program(*BUDGET, "hydra.run.dir=other", "seed=1").status == 0
        assert records(tmp_path / "same") == records(finished_run)
        assert records(tmp_path / "other") != records(finished_run)


@pytest.mark.slow
class TestAUsersEnvironment:
    """60 features and 7 actions, in a package of the working directory."""

    @pytest.mark.parametrize(
        "name",
        [
            "env.id=my_pkg.envs:MyEnv-v0",
            "env.id=my_pkg.envs:MyEnv",
            "env.id=my_pkg.envs.MyEnv",
            "env.id=my_pkg.envs:make",
            "env._target_=my_pkg.envs.MyEnv",
        ],
    )
    @pytest.mark.usefixtures("my_env")
    def test_by_any_name_and_with_arguments(self, program: Callable[..., Outcome], tmp_path: Path, name: str):
        done = program(name, "env.kwargs.gain=-2.5", *BUDGET, "trainer.max_steps=600", "hydra.run.dir=run")
        assert done.status == 0, done.err
        config = read(tmp_path / "run" / "run.json")["config"]
        assert config["env"]["id"] == name.partition("=")[2]
        assert config["env"]["kwargs"] == {"gain": -2.5}
        episodes = read(tmp_path / "run" / "metrics.json")["episodes"]
        assert set(episodes["length"]) == {20}
        assert {value % 2.5 for value in episodes["return"]} == {0.0}
        assert min(episodes["return"]) < 0

    def test_from_the_command_line(self, my_env: str, run_cli_here: Callable[..., Outcome], tmp_path: Path):
        done = run_cli_here(f"env.id={my_env}", *BUDGET, "trainer.max_steps=600", "hydra.run.dir=run")
        assert done.status == 0, done.err
        assert (tmp_path / "run" / "metrics.json").exists()

    def test_is_not_stopped_by_the_threshold_of_cartpole(
        self, my_env: str, program: Callable[..., Outcome], tmp_path: Path
    ):
        done = program(f"env.id={my_env}", "env.kwargs.gain=1000", *BUDGET, "hydra.run.dir=run")
        assert done.status == 0, done.err
        metrics = read(tmp_path / "run" / "metrics.json")
        assert max(metrics["evaluations"]["return_mean"]) > 475, "the test would show nothing"
        assert metrics["finished"] == "trainer.max_steps=1200 reached"


@pytest.mark.slow
class TestAUsersConfiguration:
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        (tmp_path / "mine" / "experiment").mkdir(parents=True)
        budget: dict[str, Any] = {}
        for item in BUDGET:
            *path, last = item.partition("=")[0].split(".")
            node = budget
            for name in path:
                node = node.setdefault(name, {})
            node[last] = int(item.partition("=")[2])
        budget["agent"]["learning_rate"] = 0.0005
        (tmp_path / "mine" / "lab.yaml").write_text(json.dumps({"defaults": ["config", "_self_"], **budget}))
        recipe = json.dumps({"defaults": [{"override /agent": "double_dqn"}], **budget})
        (tmp_path / "mine" / "experiment" / "tiny.yaml").write_text("# @package _global_\n" + recipe)

    def test_a_file_of_ones_own_on_top_of_the_defaults(self, program: Callable[..., Outcome], tmp_path: Path):
        done = program("--config-dir", "mine", "--config-name", "lab", "hydra.run.dir=run")
        assert done.status == 0, done.err
        config = read(tmp_path / "run" / "run.json")["config"]
        assert (config["agent"]["learning_rate"], config["trainer"]["max_steps"]) == (0.0005, 1200)
        assert config["agent"]["batch_size"] == 128

        # What a run was made with holds for its continuation, wherever it is resumed and whatever changed.
        (tmp_path / "mine" / "lab.yaml").write_text("{defaults: [config, _self_], agent: {learning_rate: 9}}")
        done = program("resume=run", "trainer.max_steps=1300")
        assert done.status == 0, done.err
        assert done.out.startswith("changed for this session:\ntrainer.max_steps: 1200 -> 1300\nbest")
        assert read(tmp_path / "run" / "run.json")["config"]["agent"]["learning_rate"] == 0.0005

    @pytest.mark.parametrize("override", ["experiment=tiny", "+experiment=tiny"])
    def test_a_recipe_of_ones_own(self, program: Callable[..., Outcome], tmp_path: Path, override: str):
        done = program("--config-dir=mine", override, "agent.batch_size=32", "hydra.run.dir=run")
        assert done.status == 0, done.err
        agent = read(tmp_path / "run" / "run.json")["config"]["agent"]
        assert (agent["learning_rate"], agent["batch_size"]) == (0.0005, 32)
        assert agent["loss"]["target"]["_target_"] == "agent/loss/target=double"

    def test_a_misspelt_recipe(self, program: Callable[..., Outcome]):
        assert "did you mean experiment=tiny?" in program("--config-dir=mine", "experiment=tinny").error


@pytest.mark.slow
class TestResume:
    @pytest.mark.parametrize(
        "checkpoint",
        ["", "checkpoints/latest.pt", "checkpoints/best.pt", "checkpoints/checkpoint_0000000800.pt"],
    )
    def test_any_checkpoint_goes_on_in_the_same_directory(
        self, run_copy: Path, program: Callable[..., Outcome], tmp_path: Path, checkpoint: str
    ):
        start = load_checkpoint(run_copy / (checkpoint or "checkpoints/latest.pt"))["step"]
        before = records(run_copy)
        done = program(f"resume={run_copy / checkpoint}", "trainer.max_steps=1600")
        assert done.status == 0, done.err
        assert done.out.startswith("changed for this session:\ntrainer.max_steps: 1200 -> 1600\nbest ")
        assert f"resuming from step {start}, " in done.err
        assert present(tmp_path) == {"run"}
        assert read(run_copy / "metrics.json")["evaluations"]["step"] == [400, 800, 1200, 1600]
        assert records(run_copy)[: len(before)] == before, "what was trained again came out the same"
        first, second = read(run_copy / "run.json")["sessions"]
        assert (first["changes"], second["changes"]) == ([], ["trainer.max_steps: 1200 -> 1600"])

    def test_again_and_again(self, run_copy: Path, program: Callable[..., Outcome]):
        for budget in (1300, 1400):
            assert program("resume=run", f"trainer.max_steps={budget}").status == 0
        done = program("resume=run", "agent.learning_rate=2e-3", "trainer.max_steps=1500")
        assert "trainer.max_steps: 1400 -> 1500" in done.out
        assert "agent.learning_rate: 0.001 -> 0.002" in done.out
        assert len(read(run_copy / "run.json")["sessions"]) == 4
        assert read(run_copy / "run.json")["config"]["agent"]["learning_rate"] == 0.002

    def test_a_finished_run_returns_at_once(self, run_copy: Path, program: Callable[..., Outcome]):
        before = records(run_copy)
        done = program("resume=run")
        assert done.status == 0, done.err
        assert done.out.startswith("nothing changed\nbest evaluation ")
        assert "nothing to do: this run has ended (trainer.max_steps=1200 reached)" in done.err
        assert records(run_copy) == before
        assert read(run_copy / "metrics.json")["finished"] == "trainer.max_steps=1200 reached"

    def test_every_change_is_shown_key_by_key(self, run_copy: Path, program: Callable[..., Outcome]):
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

    def test_an_override_that_restates_a_default_is_not_dropped(
        self, run_copy: Path, program: Callable[..., Outcome]
    ):
        assert program("resume=run", "agent.batch_size=64", "trainer.max_steps=1300").status == 0
        done = program("resume=run", "agent.batch_size=128", "trainer.max_steps=1400")
        assert "agent.batch_size: 64 -> 128" in done.out

    def test_best_is_that_of_the_run_as_it_went(
        self, program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """A run that is taken back to an earlier checkpoint forgets the best of what is undone."""
        means = iter([1.0, 2.0, 3.0, 0.0])
        monkeypatch.setattr(Evaluator, "run", lambda *_: Evaluation([next(means)], [1]))
        assert program(*BUDGET, "hydra.run.dir=run").status == 0
        best = tmp_path / "run" / "checkpoints" / "best.pt"
        assert load_checkpoint(best)["step"] == 1200
        assert program("resume=run/checkpoints/checkpoint_0000000400.pt", "trainer.max_steps=800").status == 0
        assert read(tmp_path / "run" / "metrics.json")["best"] == {"return_mean": 1.0, "step": 400}
        assert load_checkpoint(best)["step"] == 400
        assert load_checkpoint(best.with_name("best_0000001200.pt"))["step"] == 1200, "it is kept"

    def test_a_choice_can_be_taken_back(self, run_copy: Path, program: Callable[..., Outcome]):
        assert program("resume=run", "agent=double_dqn", "trainer.max_steps=1300").status == 0
        done = program("resume=run", "agent=dqn", "trainer.max_steps=1400")
        assert "agent.loss.target._target_: agent/loss/target=double -> agent/loss/target=max" in done.out

    def test_a_forced_override_replaces_the_stored_one(self, run_copy: Path, program: Callable[..., Outcome]):
        assert program("resume=run", "++trainer.max_steps=1300").status == 0
        assert read(run_copy / "metrics.json")["evaluations"]["step"][-1] == 1300

    @pytest.mark.parametrize(
        ("change", "answer"),
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
    def test_what_cannot_be_honoured_is_refused_in_one_line(
        self, run_copy: Path, program: Callable[..., Outcome], change: str, answer: str
    ):
        files = {path: path.read_bytes() for path in run_copy.glob("*.json*")}
        assert answer in program("resume=run", "trainer.max_steps=1300", change).error
        assert {path: path.read_bytes() for path in files} == files

    def test_a_path_that_is_no_run_names_what_is_there(self, run_copy: Path, program: Callable[..., Outcome]):
        answer = program("resume=run/checkpoints/checkpoint_7.pt").error
        assert answer.startswith("resume=run/checkpoints/checkpoint_7.pt: there is no checkpoint ")
        assert "checkpoint_0000000400.pt" in answer
        assert "there is no checkpoint" in program("resume=nowhere").error

    def test_an_odd_path(self, run_copy: Path, program: Callable[..., Outcome], tmp_path: Path):
        odd = tmp_path / "it's a=run, {1}"
        run_copy.rename(odd)
        quoted = str(odd).replace("'", "\\'")
        done = program(f"resume='{quoted}'", "trainer.max_steps=1250")
        assert done.status == 0, done.err
        assert present(tmp_path) == {odd.name}

    def test_the_same_command_goes_on(self, run_copy: Path, program: Callable[..., Outcome]):
        """And a changed one changes the run, or is refused."""
        before = records(run_copy)
        done = program(*BUDGET, "hydra.run.dir=run")
        assert done.out.startswith("nothing changed\nbest evaluation "), done
        assert records(run_copy) == before
        assert (
            "resume cannot change seed from 0 to 1" in program(*BUDGET, "seed=1", "hydra.run.dir=run").error
        )
        assert records(run_copy) == before
        done = program(*BUDGET, "trainer.max_steps=1300", "hydra.run.dir=run")
        assert done.out.startswith("changed for this session:\ntrainer.max_steps: 1200 -> 1300\nbest ")
        assert records(run_copy)[: len(before)] == before

    def test_never_begins_anew_in_a_fresh_directory(
        self, run_copy: Path, program: Callable[..., Outcome], tmp_path: Path
    ):
        before = records(run_copy)
        for name in ("run-2", "run-3"):
            done = program(*BUDGET, "resume=never", "hydra.run.dir=run")
            assert f"run is in use already; with resume=never this run goes to {name}" in done.out
            assert records(tmp_path / name) == before
        assert records(run_copy) == before

    def test_a_sweep_again_goes_on_with_each_job(self, program: Callable[..., Outcome], tmp_path: Path):
        command = ("-m", "seed=0,1", *BUDGET, "hydra.sweep.dir=sweep")
        assert program(*command).status == 0
        before = records(tmp_path / "sweep" / "1")
        done = program(*command, "trainer.max_steps=1300")
        assert done.out.count("trainer.max_steps: 1200 -> 1300") == 2
        assert len(records(tmp_path / "sweep" / "1")) > len(before)

    def test_an_interrupted_run_ends_like_one_that_was_not(
        self, my_env: str, program: Callable[..., Outcome], tmp_path: Path
    ):
        command = (f"env.id={my_env}", "env.kwargs.at=650", "logging=[jsonl,csv]", *BUDGET)
        assert program(*command, "hydra.run.dir=whole").status == 0
        (tmp_path / "interrupt").write_text(str(int(signal.SIGINT)))
        assert program(*command, "hydra.run.dir=parts").status == 130
        assert len(records(tmp_path / "parts")) < len(records(tmp_path / "whole"))
        assert program("resume=parts").status == 0
        assert records(tmp_path / "parts") == records(tmp_path / "whole")
        latest = [tmp_path / name / "checkpoints" / "latest.pt" for name in ("whole", "parts")]
        whole, parts = (load_checkpoint(path)["state"]["agent"] for path in latest)
        assert whole["learner"]["online"].equal(parts["learner"]["online"])
        assert whole["learner"]["target"].equal(parts["learner"]["target"])


@pytest.mark.slow
class TestEvaluate:
    def test_needs_only_the_checkpoint(
        self, finished_run: Path, program: Callable[..., Outcome], tmp_path: Path
    ):
        best = finished_run / "checkpoints" / "best.pt"
        done = program("mode=eval", f"checkpoint={best}", "hydra.run.dir=judged", "evaluator.episodes=20")
        assert done.status == 0, done.err
        result = read(tmp_path / "judged" / "eval.json")
        returns = result["returns"]
        assert len(returns) == len(result["lengths"]) == result["episodes"] == 20
        assert result["checkpoint"] == str(best)
        assert result["step"] == load_checkpoint(best)["step"]
        assert result["return_mean"] == pytest.approx(np.mean(returns))
        assert result["return_std"] == pytest.approx(np.std(returns))
        assert (result["return_min"], result["return_max"]) == (min(returns), max(returns))
        low, high = result["return_ci95"]
        assert low <= result["return_mean"] <= high
        assert 1 < (high - low) / (result["return_std"] / np.sqrt(20)) < 6, "about 2 * 1.96 standard errors"
        mean, std = f"mean {result['return_mean']:.2f}", f"std {result['return_std']:.2f}"
        assert f"{mean}, {std}, 95% CI [{low:.2f}, {high:.2f}]" in done.out
        assert f"min {min(returns):g}, max {max(returns):g}" in done.out

    def test_is_repeatable_and_another_seed_gives_other_episodes(
        self, finished_run: Path, program: Callable[..., Outcome], tmp_path: Path
    ):
        for name, extra in (("a", []), ("b", []), ("c", ["evaluator.seed=1"])):
            call = ("mode=eval", f"checkpoint={finished_run}", "evaluator.episodes=10", *extra)
            assert program(*call, f"hydra.run.dir={name}").status == 0
        a, b, c = (read(tmp_path / name / "eval.json")["returns"] for name in "abc")
        assert a == b
        assert a != c

    def test_a_run_directory_means_its_latest_and_stays_as_it_is(
        self, run_copy: Path, program: Callable[..., Outcome], tmp_path: Path
    ):
        before = {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")}
        done = program("mode=eval", "checkpoint=run", "evaluator.episodes=2")
        assert done.status == 0, done.err
        assert f"{run_copy}/checkpoints/latest.pt\n" in done.out
        assert {path: path.stat().st_mtime_ns for path in run_copy.rglob("*")} == before
        assert list(tmp_path.glob("outputs/*/*/eval.json"))

    def test_of_a_users_environment(self, my_env: str, program: Callable[..., Outcome], tmp_path: Path):
        assert program(f"env.id={my_env}", "env.kwargs.gain=3", *BUDGET, "hydra.run.dir=run").status == 0
        done = program("mode=eval", "checkpoint=run", "evaluator.episodes=2", "hydra.run.dir=judged")
        assert done.status == 0, done.err
        result = read(tmp_path / "judged" / "eval.json")
        assert result["lengths"] == [20, 20]
        assert {value % 3 for value in result["returns"]} == {0.0}

    def test_a_video_is_recorded_where_the_environment_renders(
        self, finished_run: Path, run_cli_here: Callable[..., Outcome], tmp_path: Path
    ):
        call = ("mode=eval", f"checkpoint={finished_run}", "evaluator.episodes=1", "evaluator.video=true")
        done = run_cli_here(*call, "hydra.run.dir=judged")
        assert done.status == 0, done.err
        with Image.open(tmp_path / "judged" / "eval.gif") as video:
            length = read(tmp_path / "judged" / "eval.json")["lengths"][0]
            frames: int = getattr(video, "n_frames")  # noqa: B009
            assert length / 2 < frames <= length + 1, "equal neighbours become one frame"
            assert video.size >= (300, 200)

    def test_a_video_of_an_environment_that_does_not_render(
        self, my_env: str, program: Callable[..., Outcome]
    ):
        assert program(f"env.id={my_env}", *BUDGET, "hydra.run.dir=run").status == 0
        call = ("mode=eval", "checkpoint=run", "evaluator.episodes=1", "evaluator.video=true")
        assert program(*call).error.startswith("evaluator.video: this environment cannot be rendered: ")

    @pytest.mark.parametrize(
        ("args", "answer"),
        [
            (["mode=eval"], "mode=eval needs checkpoint=PATH"),
            (["mode=eval", "checkpoint=nowhere.pt"], "there is no checkpoint"),
            (["checkpoint=run"], "checkpoint= is for mode=eval; use resume= to continue training"),
        ],
    )
    @pytest.mark.usefixtures("run_copy")
    def test_mistakes(self, program: Callable[..., Outcome], args: list[str], answer: str):
        assert answer in program(*args).error


def jobs(sweep: Path) -> list[tuple[int, float]]:
    """Seed and learning rate of each job, in the order of their directories."""
    found: list[tuple[int, float]] = []
    for directory in sorted(path for path in sweep.iterdir() if path.is_dir()):
        assert read(directory / "metrics.json")["finished"] == "trainer.max_steps=600 reached"
        config = read(directory / "run.json")["config"]
        found.append((config["seed"], config["agent"]["learning_rate"]))
    return found


SHORT = (*BUDGET, "trainer.max_steps=600")
SWEEP = ("-m", "seed=0,1", "agent.learning_rate=1e-3,3e-4", *SHORT, "hydra.sweep.dir=sweep")
JOBS = [(0, 1e-3), (0, 3e-4), (1, 1e-3), (1, 3e-4)]


@pytest.mark.slow
class TestSweep:
    def test_every_job_has_its_own_directory(self, program: Callable[..., Outcome], tmp_path: Path):
        done = program(*SWEEP)
        assert done.status == 0, done.err
        assert jobs(tmp_path / "sweep") == JOBS
        assert len({(tmp_path / f"sweep/{i}/metrics.jsonl").read_bytes() for i in range(4)}) == 4

    def test_a_job_of_a_sweep_can_be_resumed(self, program: Callable[..., Outcome], tmp_path: Path):
        assert program("-m", "seed=0,5", *BUDGET, "hydra.sweep.dir=sweep").status == 0
        done = program("resume=sweep/1", "trainer.max_steps=1300")
        assert done.status == 0, done.err
        assert read(tmp_path / "sweep/1/run.json")["config"]["seed"] == 5
        assert read(tmp_path / "sweep/1/metrics.json")["finished"] == "trainer.max_steps=1300 reached"

    @pytest.mark.slow
    def test_jobs_run_side_by_side_with_joblib(self, tmp_path: Path):
        launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep")
        done = run_cli("-m", "seed=0,1", *SHORT, *launcher, cwd=tmp_path)
        assert done.status == 0, done.err
        assert jobs(tmp_path / "sweep") == [(0, 1e-3), (1, 1e-3)]
