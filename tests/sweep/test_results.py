"""The results of a sweep: the best trials, their files, and the configuration that runs again."""

from __future__ import annotations

import json
import logging
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra import compose, version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from dqn_runner.cli.main import CONF
from dqn_runner.config.command_line import expand_arguments, long_form
from dqn_runner.config.overrides import parse_overrides
from dqn_runner.config.schema import RunConfig, apply_targets, to_plain_config
from dqn_runner.core.exceptions import UserError
from dqn_runner.run.compatibility import SESSION_KEYS
from dqn_runner.sweep.config import SweepConfig
from dqn_runner.sweep.jobs import Command
from dqn_runner.sweep.plan import Plan
from dqn_runner.sweep.results import summary as results_summary
from dqn_runner.sweep.results.best_config import write_best_config
from dqn_runner.sweep.results.ranking import ranked
from dqn_runner.sweep.trial_record import RunOutcome, RunState, store_validation
from tests.conftest import BUDGET, Outcome, records

NO_PRUNER = {"_target_": "optuna.pruners.NopPruner"}


@contextmanager
def hydra_run(config_dir: Path | None = None) -> Iterator[None]:
    """The state of Hydra within a run of the program, with this --config-dir."""
    version.setbase("1.3")
    path = create_config_search_path(str(CONF))
    if config_dir:
        where = f"file://{config_dir}"
        path.prepend(provider="command-line", path=where, anchor=SearchPathQuery(provider="schema"))
    Hydra.create_main_hydra2("dqn_runner", path)
    try:
        yield
    finally:
        GlobalHydra.instance().clear()


def run_config(overrides: Sequence[str], name: str = "config") -> tuple[dict[str, Any], Any]:
    """The configuration of a run, plain and as an object, without the settings of a session."""
    overrides = expand_arguments(long_form(overrides))
    cfg = compose(name, overrides=overrides)
    apply_targets(cfg, {override.key_or_group for override in parse_overrides(overrides)})
    run, default = instantiate(cfg, _convert_="object"), RunConfig()
    run = replace(run, **{key: getattr(default, key) for key in SESSION_KEYS})
    return {key: value for key, value in to_plain_config(cfg).items() if key not in SESSION_KEYS}, run


def a_plan(directory: Path, command: Command | None = None, **changes: Any) -> Plan:
    given = {
        "settings": SweepConfig(**{"sampler": {}, "pruner": NO_PRUNER, **changes}),
        "command": command or Command(("--config-name=config",), ("env=acrobot",), (), "basic"),
        "directory": directory,
        "name": "my_study",
        "seed": 5,
    }
    return Plan(**{**{field.name: None for field in fields(Plan)}, **given})


def add(
    study: optuna.Study,
    returns: Sequence[float],
    params: Mapping[str, Any] | None = None,
    state: TrialState = TrialState.COMPLETE,
    values: Sequence[float] | None = None,
    overrides: Sequence[str] | None = None,
    **attributes: Any,
) -> None:
    """Add a trial with these returns of seeds 0, 1, ..., and 1,000 env steps each."""
    params = params or {}
    directory = f"/sweeps/mine/{len(study.trials)}"
    mean = {"return": sum(returns) / len(returns), "env_steps": 1000.0, "parameters": 50.0} if returns else {}
    runs = {
        f"run_{seed}": RunOutcome(
            RunState.FINISHED, "its budget", seed, {**mean, "return": value}, f"{directory}/seed_{seed}"
        ).to_json()
        for seed, value in enumerate(returns)
    }
    study.add_trial(
        create_trial(
            state=state,
            values=(values or [mean["return"]]) if state is TrialState.COMPLETE else None,
            params=dict(params),
            distributions={name: FloatDistribution(-1e9, 1e9) for name in params},
            user_attrs={
                "overrides": list(overrides or [f"{name}={value}" for name, value in params.items()]),
                "directory": directory,
                "metrics": mean,
                **runs,
                **attributes,
            },
        )
    )


DIVERGED = RunOutcome(RunState.DIVERGED, "the loss is nan", 5, {}, "x")


def validation_run(seed: int, value: float) -> RunOutcome:
    return RunOutcome(RunState.FINISHED, "its budget", seed, {"return": value}, "x")


def summary(study: optuna.Study, plan: Plan) -> dict[str, Any]:
    with hydra_run():
        results_summary.write_results(study, plan)
    written: Any = OmegaConf.to_container(OmegaConf.load(plan.directory / "optimization_results.yaml"))
    return written


@pytest.fixture
def study() -> optuna.Study:
    """Four trials of three seeds, the best of which is number 1, and trials in other states."""
    study = optuna.create_study(direction="maximize")
    add(study, [-100.0, -90.0, -80.0], {"agent.gamma": 0.9})
    add(study, [-70.0, -72.0, -74.0], {"agent.gamma": 0.95, "agent.learning_rate": 0.001})
    add(study, [-72.0, -72.0, -72.0], {"agent.gamma": 0.96})
    add(study, [-200.0, -190.0, -195.0], {"agent.gamma": 0.5})
    add(study, [-300.0], {"agent.gamma": 0.1}, TrialState.PRUNED)
    add(study, [], {"agent.gamma": 0.2}, TrialState.PRUNED, diverged="the loss is nan at step 30")
    add(study, [], {"agent.gamma": 0.3}, TrialState.FAIL, error="the env is broken")
    add(study, [], {"agent.gamma": 0.4}, TrialState.FAIL, error="the env is broken")
    return study


class TestRanking:
    @settings(max_examples=30)
    @given(
        values=st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12),
        directions=st.lists(st.sampled_from(["maximize", "minimize"]), min_size=1, max_size=3),
        bound=st.integers(0, 4),
    )
    def test_ranking_agrees_with_optuna(
        self, values: list[tuple[int, ...]], directions: list[str], bound: int
    ):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(directions=directions)
        for row in values:
            trial = create_trial(
                state=TrialState.COMPLETE,
                values=[float(value) for value in row[: len(directions)]],
                user_attrs={"metrics": {"env_steps": float(row[-1])}, "overrides": ["seed=0"]},
                system_attrs={"constraints": [row[-1] - bound]},
            )
            study.add_trial(trial)
        found = ranked(study, SweepConfig(sampler={}, pruner=NO_PRUNER, constraints={"env_steps": bound}))
        kept = [n for n, row in enumerate(values) if row[-1] <= bound]
        if len(directions) > 1:
            assert {trial.number for trial in found} == {trial.number for trial in study.best_trials}
        elif kept:
            assert found[0].value == study.best_value
            order = sorted(kept, key=lambda n: values[n][0], reverse=directions == ["maximize"])
            assert [trial.number for trial in found] == order
        else:
            assert found == []


class TestResultsFile:
    def test_results_file_with_one_objective(self, study: optuna.Study, tmp_path: Path):
        assert summary(study, a_plan(tmp_path, seeds=3)) == {
            "name": "optuna",
            "best_params": {"agent.gamma": 0.95, "agent.learning_rate": 0.001},
            "best_value": -72.0,
            "best_trial": 1,
            "best_directory": "/sweeps/mine/1",
            "study": "my_study",
            "objective": ["return"],
            "direction": ["maximize"],
            "seeds": [5, 6, 7],
            "trials": {"complete": 4, "pruned": 1, "diverged": 1, "failed": 2, "running": 0, "waiting": 0},
            "env_steps": 13_000,
        }

    def test_trial_that_was_added_to_the_study_has_no_run_and_is_not_the_best(
        self, study: optuna.Study, tmp_path: Path
    ):
        before = summary(study, a_plan(tmp_path, seeds=3))
        study.add_trial(create_trial(value=1e6))
        after = summary(study, a_plan(tmp_path, seeds=3))
        assert after.pop("trials")["complete"] == before.pop("trials")["complete"] + 1
        assert after == before

    def test_results_file_of_a_sweep_that_was_moved_has_its_directories(
        self, study: optuna.Study, tmp_path: Path
    ):
        (tmp_path / "1").mkdir()
        assert summary(study, a_plan(tmp_path, seeds=3))["best_directory"] == str(tmp_path / "1")

    def test_results_file_has_the_validation_of_the_best_trial_only(
        self, study: optuna.Study, tmp_path: Path
    ):
        for number, run, value in ((1, 3, -80.0), (1, 4, -90.0), (2, 3, -10.0), (1, 6, -10.0)):
            store_validation(study, number, run, validation_run(run, value))
        store_validation(study, 1, 5, DIVERGED)
        assert summary(study, a_plan(tmp_path, seeds=3, validate=3))["validation"] == {
            "seeds": [3, 4, 5],
            "values": [-80.0, -90.0, None],
            "mean": -85.0,
            "std": pytest.approx(50**0.5),
        }

    def test_results_file_with_several_objectives_has_the_pareto_front(self, tmp_path: Path):
        study = optuna.create_study(directions=["maximize", "minimize"])
        add(study, [10.0], {"x": 1.0}, values=[10.0, 50.0])
        add(study, [20.0], {"x": 2.0}, values=[20.0, 60.0])
        add(study, [15.0], {"x": 3.0}, values=[15.0, 60.0])
        pareto = {"objective": ["return", "parameters"], "direction": ["maximize", "minimize"]}
        written = summary(study, a_plan(tmp_path, **pareto))
        assert written["solutions"] == [
            {"params": {"x": 2.0}, "values": [20.0, 60.0], "trial": 1, "directory": "/sweeps/mine/1"},
            {"params": {"x": 1.0}, "values": [10.0, 50.0], "trial": 0, "directory": "/sweeps/mine/0"},
        ]
        assert not (tmp_path / "experiment").exists()

    def test_results_file_without_a_completed_trial_has_a_note(self, tmp_path: Path):
        study = optuna.create_study()
        add(study, [], {"agent.gamma": 0.3}, TrialState.FAIL, error="the env is broken")
        written = summary(study, a_plan(tmp_path / "new"))
        assert written["note"] == "no trial has completed"
        assert written["best_params"] is written["best_value"] is written["best_trial"] is None
        assert written["trials"]["failed"] == 1

    def test_results_file_without_a_feasible_trial_has_a_note(self, study: optuna.Study, tmp_path: Path):
        written = summary(study, a_plan(tmp_path, constraints={"parameters": 49}))
        assert written["note"] == "no completed trial satisfies hydra.sweeper.constraints"
        assert written["best_value"] is None

    def test_best_config_is_removed_if_no_trial_satisfies_new_constraints(
        self, study: optuna.Study, tmp_path: Path
    ):
        summary(study, a_plan(tmp_path))
        assert (tmp_path / "experiment" / "best_config.yaml").exists()
        summary(study, a_plan(tmp_path, constraints={"parameters": 1}))
        assert not (tmp_path / "experiment" / "best_config.yaml").exists()

    def test_error_while_writing_results_is_logged_and_not_raised(
        self,
        study: optuna.Study,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ):
        def fail(*_: Any) -> list[str]:
            raise UserError("agent/mine.yaml is gone")

        monkeypatch.setattr(results_summary, "write_best_config", fail)
        with caplog.at_level(logging.WARNING):
            results_summary.write_results(study, a_plan(tmp_path))
        assert "agent/mine.yaml is gone" in caplog.text
        assert (tmp_path / "optimization_results.yaml").exists()

    def test_threads_write_the_results_one_after_the_other(
        self, study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        barrier, overlaps = threading.Barrier(2), []

        def write(*_: Any) -> None:
            try:
                barrier.wait(timeout=0.3)
            except threading.BrokenBarrierError:
                return
            overlaps.append(1)

        monkeypatch.setattr(results_summary, "_write", write)
        threads = [
            threading.Thread(target=results_summary.write_results, args=(study, a_plan(tmp_path)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not overlaps


class TestTable:
    def test_table_lists_trials_with_commands_and_the_result(self, study: optuna.Study, tmp_path: Path):
        for run, value in ((3, -80.0), (4, -90.0)):
            store_validation(study, 1, run, validation_run(run, value))
        text = results_summary.table(study, a_plan(tmp_path / "a sweep", seeds=3, validate=2))
        where = tmp_path / "a sweep"
        assert (
            text
            == f"""\
my_study: 4 complete, 1 pruned, 1 diverged, 2 failed; 13,000 env steps

failed: trial 6, 7: the env is broken

The best 4 of 4 by return (maximize), mean of seeds 0 to 2 ± standard deviation.
The commands run seed 0.

trial 1    return -72 ± 2
  agent.gamma=0.95  agent.learning_rate=0.001
  /sweeps/mine/1
  python -m dqn_runner env=acrobot agent.gamma=0.95 agent.learning_rate=0.001 seed=0

trial 2    return -72 ± 0
  agent.gamma=0.96
  /sweeps/mine/2
  python -m dqn_runner env=acrobot agent.gamma=0.96 seed=0

trial 0    return -90 ± 10
  agent.gamma=0.9
  /sweeps/mine/0
  python -m dqn_runner env=acrobot agent.gamma=0.9 seed=0

trial 3    return -195 ± 5
  agent.gamma=0.5
  /sweeps/mine/3
  python -m dqn_runner env=acrobot agent.gamma=0.5 seed=0

RESULT: trial 1, return -85 ± 7.07 (mean over the fresh seeds 3, 4)
The best configuration:
  python -m dqn_runner --config-dir '{where}' experiment=best_config"""
        )

    def test_table_has_at_most_ten_trials_and_80_columns(self, tmp_path: Path):
        study = optuna.create_study(direction="maximize")
        for number in range(12):
            add(
                study, [float(number)], {f"agent.a_setting_with_a_long_name_{i}": 0.123 + i for i in range(9)}
            )
        lines = results_summary.table(study, a_plan(tmp_path)).splitlines()
        assert [int(line.split()[1]) for line in lines if line.startswith("trial ")] == list(range(11, 1, -1))
        assert all(len(line) <= 80 for line in lines if "python -m" not in line)

    def test_table_with_several_objectives_has_the_pareto_front(self, tmp_path: Path):
        study = optuna.create_study(directions=["maximize", "minimize"])
        add(study, [10.0], {"x": 1.0}, values=[10.0, 50.0])
        add(study, [9.0], {"x": 2.0}, values=[9.0, 60.0])
        pareto = {"objective": ["return", "parameters"], "direction": ["maximize", "minimize"]}
        text = results_summary.table(study, a_plan(tmp_path, **pareto))
        assert "The Pareto front, 1 of 2 by return (maximize), parameters (minimize)." in text
        assert "trial 0    return 10, parameters 50\n" in text
        assert "best configuration" not in text

    def test_table_without_a_best_trial_says_why(self, tmp_path: Path):
        text = results_summary.table(optuna.create_study(), a_plan(tmp_path))
        assert text == "my_study: no trials; 0 env steps\n\nRESULT: none; no trial has completed"

    def test_table_without_a_finished_validation_run_has_no_result(self, study: optuna.Study, tmp_path: Path):
        store_validation(study, 1, 3, DIVERGED)
        text = results_summary.table(study, a_plan(tmp_path, seeds=3, validate=1))
        assert "RESULT: none; all 1 validation runs of trial 1 diverged" in text

    def test_table_without_a_result_says_why(self, study: optuna.Study, tmp_path: Path):
        text = results_summary.table(study, a_plan(tmp_path, seeds=3))
        assert "RESULT: none; hydra.sweeper.validate=N runs trial 1 again with N fresh seeds\n" in text
        store_validation(study, 1, 3, validation_run(3, -80.0))
        text = results_summary.table(study, a_plan(tmp_path, seeds=3, validate=2))
        assert "RESULT: none yet; 1 of 2 validation runs of trial 1 have ended\n" in text

    def test_equal_failures_of_trials_are_one_line(self, tmp_path: Path):
        study = optuna.create_study()
        for number in range(3):
            error = f"it broke (see /sweeps/mine/{number}/job.log)"
            add(study, [], state=TrialState.FAIL, error=error)
        text = results_summary.table(study, a_plan(tmp_path))
        assert "failed: trial 0 to 2: it broke (see /sweeps/mine/0/job.log)\n" in text

    def test_command_of_a_trial_has_only_the_overrides_of_its_run(self):
        command = Command(
            ("--config-name=mine", "--config-dir=/my dir"),
            ("resume=never", "seed=5", "mode=train", "env.id='a b'"),
            ("hydra/sweeper=optuna", "hydra.searchpath=[file:///opt]", "hydra.sweep.dir=x"),
            "basic",
        )
        study = optuna.create_study()
        add(study, [1.0], overrides=["agent.network.hidden=[64,64]"])
        assert shlex.split(results_summary.rerun(study.trials[0], command)) == [
            *("python", "-m", "dqn_runner", "--config-name=mine", "--config-dir=/my dir"),
            *("env.id='a b'", "hydra.searchpath=[file:///opt]", "agent.network.hidden=[64,64]", "seed=0"),
        ]


class TestBestConfig:
    @pytest.mark.parametrize(
        ("fixed", "overrides"),
        [
            ([], []),
            (["experiment=lunarlander", "seed=7"], ["agent.gamma=0.95", "agent.learning_rate=1e-05"]),
            (["experiment=minatar_breakout"], ["agent=iqn", "agent/network=mlp", "agent/optimizer=adam"]),
            (["agent=c51", "logging=[jsonl,console]"], ["agent/network=mlp", "agent.network.hidden=[64,64]"]),
            (["logging=[]", "resume=never"], ["agent=rainbow", "agent.replay=uniform"]),
            (["env.id=Acrobot-v1"], ["agent.exploration.schedule=constant", "trainer.max_episodes=null"]),
            (["env._target_=my_pkg.MyEnv", "+env.kwargs.size={a: [1, 2.0]}"], ["trainer=default"]),
            (["agent/network=custom", "agent.network.target=my_pkg.Net"], ["+agent.network.kwargs.n='1e-3'"]),
            (["experiment=[acrobot,cartpole_cleanrl]"], ["trainer.target_return=${env.reward_threshold}"]),
            (
                ["checkpoint.allow_inexact_resume=true", "threads=2"],
                ["agent.loss.error=squared", "agent.seed=3"],
            ),
        ],
        ids=lambda overrides: " ".join(overrides) or "nothing",
    )
    def test_best_config_composes_the_configuration_of_the_trial(
        self, fixed: list[str], overrides: list[str], tmp_path: Path
    ):
        with hydra_run():
            expected = run_config([*fixed, *overrides])
            assert write_best_config(Command((), tuple(fixed), (), "basic"), overrides, tmp_path, []) == []
        with hydra_run(tmp_path):
            assert run_config(["experiment=best_config"]) == expected

    def test_best_config_keeps_interpolations(self, tmp_path: Path):
        with hydra_run():
            write_best_config(Command((), (), (), "basic"), ["env.reward_threshold=12"], tmp_path, [])
        with hydra_run(tmp_path):
            cfg = compose("config", overrides=["experiment=best_config", "seed=9", "env.reward_threshold=13"])
        assert (cfg.agent.seed, cfg.trainer.target_return) == (9, 13)

    def test_best_config_copies_the_options_of_the_user(self, tmp_path: Path):
        """Also the options that they include, from --config-dir and hydra.searchpath, but no recipes."""
        mine, more, sweep = tmp_path / "mine", tmp_path / "more", tmp_path / "sweep"
        files = {
            mine / "agent/my_base.yaml": "defaults: [c51, _self_]\nn_step: 4\n",
            mine / "agent/my_agent.yaml": "defaults: [my_base, _self_]\nnetwork: {hidden: [8]}\n",
            mine / "experiment/best_config.yaml": (
                "# @package _global_\n"
                "defaults: [override /agent: my_agent, override /agent/network: mlp, _self_]\n"
                "agent: {gamma: 0.5}\n"
            ),
            mine / "mine.yaml": "defaults: [config, _self_]\nthreads: 2\n",
            more / "env/my_env.yaml": "defaults: [gym, _self_]\nid: Acrobot-v1\n",
        }
        for file, content in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        command = Command(
            ("--config-name=mine", f"--config-dir={mine}"),
            ("experiment=best_config",),
            (f"hydra.searchpath=[file://{more}]", "hydra/launcher=basic"),
            "basic",
        )
        with hydra_run(mine):
            overrides = ["env=my_env", "agent.batch_size=16"]
            expected = run_config([*command.fixed, command.hydra[0], *overrides], "mine")
            assert write_best_config(command, overrides, sweep, []) == []
        with hydra_run(sweep):
            assert run_config(["experiment=best_config"]) == expected
        copied = {path.relative_to(sweep).as_posix() for path in sweep.rglob("*.yaml")}
        assert copied == {
            *("agent/my_base.yaml", "agent/my_agent.yaml", "env/my_env.yaml", "experiment/best_config.yaml")
        }

    def test_settings_that_the_best_config_cannot_express_are_returned(self, tmp_path: Path):
        mine = tmp_path / "mine"
        (mine / "env").mkdir(parents=True)
        (mine / "env/my_env.yaml").write_text("defaults: [gym, _self_]\nkwargs: {size: 3}\n")
        command = Command((f"--config-dir={mine}",), ("env=my_env",), (), "basic")
        with hydra_run(mine):
            lines = write_best_config(command, ["~env.kwargs.size"], tmp_path, [])
        assert "env.kwargs.size: (absent) -> 3" in lines

    def test_best_config_is_rewritten_only_for_another_trial(self, tmp_path: Path):
        command, file = Command((), (), (), "basic"), tmp_path / "experiment/best_config.yaml"
        with hydra_run():
            write_best_config(command, ["seed=1"], tmp_path, ["Trial 1", "a\nb"])
            assert file.read_text().startswith("# @package _global_\n# Trial 1\n# a b\n")
            before = file.stat().st_ino
            write_best_config(command, ["seed=1"], tmp_path, ["Trial 1", "a\nb"])
            assert file.stat().st_ino == before
            write_best_config(command, ["seed=1"], tmp_path, ["Trial 2", "a\nb"])
            assert file.read_text().startswith("# @package _global_\n# Trial 2\n")

    @pytest.mark.parametrize("damage", [b"\xff\xfe{", b"", b"# @package _global_\n# Trial 1\nseed: 9\n"])
    def test_damaged_best_config_is_written_again(self, tmp_path: Path, damage: bytes):
        command, file = Command((), (), (), "basic"), tmp_path / "experiment/best_config.yaml"
        with hydra_run():
            write_best_config(command, ["seed=1"], tmp_path, ["Trial 1"])
            content = file.read_bytes()
            for damaged in (damage, content + damage, content.replace(b"seed: 1", b"seed: 2")):
                file.write_bytes(damaged)
                write_best_config(command, ["seed=1"], tmp_path, ["Trial 1"])
                assert file.read_bytes() == content

    def test_command_of_the_best_config_repeats_the_run_exactly(
        self, program: Callable[..., Outcome], tmp_path: Path
    ):
        """The records are equal, to the last digit."""
        fixed = (*BUDGET, "env=acrobot", "logging=[jsonl]")
        overrides = [
            "agent.batch_size=16",
            "agent/network=mlp",
            "agent.network.hidden=[8]",
            "trainer.max_steps=600",
        ]
        assert program(*fixed, *overrides, "hydra.run.dir=trial").status == 0
        study = optuna.create_study(direction="maximize")
        add(study, [-500.0], overrides=overrides)
        plan = a_plan(tmp_path / "sweep", Command(("--config-name=config",), fixed, (), "basic"))
        summary(study, plan)
        arguments = shlex.split(results_summary.table(study, plan).splitlines()[-1])[3:]
        assert program(*arguments, "hydra.run.dir=again").status == 0
        trial, again = tmp_path / "trial", tmp_path / "again"
        assert records(trial) == records(again)
        configs = [json.loads((run / "run.json").read_text())["config"] for run in (trial, again)]
        assert configs[0] == configs[1]
