"""Mistakes on the command line: each is answered in one line that names the setting and what to do.

`Outcome.error` asserts exit status 2, no traceback and a single line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import pytest

from dqn_runner.config.error_messages import explain
from tests.conftest import Outcome

UNKNOWN_KEYS = [
    ("agent.lr=1", "agent.learning_rate"),
    ("learning_rate=1", "agent.learning_rate"),
    ("agent.loss.eror=huber", "agent.loss.error"),
    ("agent.exploration.schedule.step=3", "agent.exploration.schedule.steps"),
    ("tariner.max_steps=3", "trainer"),
    ("trainer.max_episdes=3", "trainer.max_episodes"),
    ("max_steps=3", "trainer.max_steps"),
    ("evaluator.sed=3", "evaluator.seed"),
    ("env.reward_treshold=3", "env.reward_threshold"),
    ("logging.console.progres_bar=false", "logging.console.progress_bar"),
    ("hydra.run.dri=x", "hydra.run.dir"),
    ("sed=3", "seed"),
    ("agnt=dqn", "agent"),
    ("agent/los=q_learning", "agent/loss"),
]

UNKNOWN_OPTIONS = [
    ("agent=dubble_dqn", "agent=double_dqn"),
    ("env=cartpol", "env=cartpole"),
    ("agent/loss=qlearning", "agent/loss=q_learning"),
    ("agent/exploration/schedule=lin", "agent/exploration/schedule=linear"),
    ("logging=[console,wandbb]", "logging=wandb"),
    ("experiment=acrobo", "experiment=acrobot"),
]

WRONG_VALUES = [
    (
        "trainer.frequency_unit=hours",
        "trainer.frequency_unit: Invalid value 'hours', expected one of [episodes, steps]",
    ),
    ("agent.loss.error=hubert", "agent.loss.error: Invalid value 'hubert', expected one of [huber, squared]"),
    ("agent.batch_size=abc", "agent.batch_size: Value 'abc' of type 'str' could not be converted to Integer"),
    ("agent.batch_size=1.5", "agent.batch_size: Value '1.5' of type 'float'"),
    ("agent.learning_rate=fast", "agent.learning_rate: Value 'fast'"),
    ("env.wrappers=3", "env.wrappers"),
    ("seed=x", "seed: Value 'x'"),
    ("agent.gamma=2", "agent.gamma must "),
    ("agent.exploration.schedule.steps=0", "agent.exploration.schedule.steps must be at least 1, got 0"),
    ("trainer.keep_last=-1", "trainer.keep_last"),
    ("trainer.max_steps=null", "set trainer.max_episodes or trainer.max_steps"),
    ("evaluator.episodes=0", "evaluator.episodes must be at least 1, got 0"),
    ("agent/network=custom", "agent.network.target must be given"),
    ("env.id=NoSuchEnv-v0", "env.id=NoSuchEnv-v0: no such environment is registered"),
    ("env.id=no_pkg.envs:MyEnv-v0", "needs the module 'no_pkg.envs'"),
    ("env.id=no_pkg.envs.MyEnv", "env.id=no_pkg.envs.MyEnv cannot be imported"),
    ("env.id=Pendulum-v1", "DQN needs a Discrete, MultiDiscrete or MultiBinary action space"),
    ("env.num_envs=0", "env.num_envs must be at least 1, got 0"),
    ("env.reward_clip=0", "env.reward_clip must be above 0, got 0.0"),
    ("env.reward_scale=-1", "env.reward_scale must be above 0, got -1.0"),
    ("env.frame_stack=0", "env.frame_stack must be at least 1, got 0"),
    ("env.vectorization=threads", "env.vectorization: Invalid value 'threads', expected one of [sync,"),
    ("env.observation_keys=[image]", "env.observation_keys=['image'] needs Dict observations"),
    (
        "env.id=FrozenLake-v1",
        "FrozenLake-v1 has Discrete(16). env.flatten_observation=true flattens them into one vector",
    ),
    ("env.wrappers=[no_pkg.Wrapper]", "env.wrappers=no_pkg.Wrapper cannot be imported"),
    ("agent.state_dim=3", "the agent was built for observations (3,) and 2 actions"),
    ("mode=eval", "mode=eval needs checkpoint=PATH"),
    ("agent", "'agent' is not an override; write key=value"),
    ("agent.gamma=[", "no viable alternative"),
]


@pytest.mark.parametrize(("wrong", "right"), UNKNOWN_KEYS)
def test_an_unknown_key_is_answered_with_the_nearest_key(
    program: Callable[..., Outcome], wrong: str, right: str
) -> None:
    key = wrong.partition("=")[0]
    message = program(wrong).error
    assert re.match(rf"unknown key '({re.escape(key)}|{re.escape(key.partition('.')[0])})'", message)
    assert message.endswith(f"; did you mean '{right}'?")


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("+foo=1", "; available: mode, seed, "),
        ("+agent.lr=1", "; did you mean 'agent.learning_rate'?"),
        ("+agent.loss.eror=huber", "; did you mean 'agent.loss.error'?"),
        ("+checkpoint.pth=x", "; did you mean 'checkpoint.path'?"),
        ("+study.nme=x", "; did you mean 'study.name'?"),
        ("+logging.console.progres_bar=false", "; did you mean 'logging.console.progress_bar'?"),
    ],
)
def test_a_key_added_with_a_plus_sign_is_rejected_with_the_nearest(
    program: Callable[..., Outcome], override: str, hint: str
) -> None:
    message = program(override).error
    assert message.startswith(f"unknown key '{override[1:].partition('=')[0]}'{hint}")


@pytest.mark.parametrize(("wrong", "right"), UNKNOWN_OPTIONS)
def test_an_unknown_option_is_answered_with_the_nearest_and_a_list_of_all(
    program: Callable[..., Outcome], wrong: str, right: str
) -> None:
    message = program(wrong).error
    assert f"did you mean {right}?" in message
    group, _, name = right.partition("=")
    listed = re.search(r"\([a-z ]+: (.*)\)$", message)
    assert listed
    assert name in listed[1].split(", "), group


@pytest.mark.parametrize(("wrong", "expected"), WRONG_VALUES)
def test_a_wrong_value_is_answered_with_its_setting_and_the_reason(
    program: Callable[..., Outcome], wrong: str, expected: str
) -> None:
    assert expected in program(wrong).error


@pytest.mark.parametrize(
    ("value", "reason"),
    [("9" * 5000, "Exceeds the limit"), ("[" * 900 + "]" * 900, "brackets are nested too deeply")],
    ids=["digits", "brackets"],
)
def test_a_value_that_is_too_long_to_read_is_named_by_its_beginning(
    program: Callable[..., Outcome], value: str, reason: str
) -> None:
    assert program(f"seed={value}").error.startswith(f"seed={value[:35]}... cannot be read: {reason}")


def test_an_environment_variable_that_is_not_set_is_named(program: Callable[..., Outcome]) -> None:
    message = program("env.id=${oc.env:NOT_SET_ANYWHERE}").error
    assert message.startswith("env.id: ")
    assert "'NOT_SET_ANYWHERE' not found" in message


def test_a_setting_of_an_unused_logger_is_answered_with_how_to_use_the_logger(
    program: Callable[..., Outcome],
) -> None:
    message = program("logging.wandb.mode=offline").error
    assert "logging.wandb" in message
    assert "logging=[" in message


@pytest.mark.parametrize(
    "wrong",
    ["agent.loss=3", "agent.exploration.schedule=null", "~agent.network", "~agent", "agent=null", "env=3"],
)
def test_a_value_in_the_place_of_a_part_or_a_deleted_part_is_named(
    program: Callable[..., Outcome], wrong: str
) -> None:
    assert wrong.strip("~").partition("=")[0] in program(wrong).error


@pytest.mark.parametrize(
    "key", ["mode", "resume", "trust", "study", "checkpoint", "seed", "env", "agent.gamma", "hydra.run.dir"]
)
def test_what_every_configuration_has_cannot_be_deleted(program: Callable[..., Outcome], key: str) -> None:
    assert f"{key} cannot be deleted; leave " in program(f"~{key}", "hydra.run.dir=run").error


def test_the_list_of_loggers_is_emptied_and_not_deleted(program: Callable[..., Outcome]) -> None:
    assert program("~logging").error.endswith("or write logging=[]")
    assert program("~logging.console", "--cfg=job").status == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--resolve",), "--resolve belongs to --cfg; write --cfg job --resolve"),
        (("--config-dir=",), "--config-dir has an empty value; was a variable of the shell empty?"),
        (("--cfg=job", "-m"), "--multirun and --cfg do not go together; give one of them"),
        (("--cfg=job", "--info"), "--cfg and --info do not go together"),
        (("--config-path=mine",), "--config-path mine: this path must be absolute, and replaces the files"),
        (("--cfg=job", "-p", "agent.gama"), "unknown key 'agent.gama'; did you mean 'agent.gamma'?"),
        (("--cfg=job", "-p", "hydra.run"), "unknown key 'hydra.run'"),
        (("--cfg=job", "-p", "trainer.max_episodes"), "--package trainer.max_episodes: this setting is null"),
        (("hydra.searchpath=[file://mine/none]",), "hydra.searchpath: mine/none does not exist; each entry"),
    ],
)
def test_flags_that_do_not_go_together_or_name_nothing_are_rejected(
    program: Callable[..., Outcome], flags: tuple[str, ...], message: str
) -> None:
    assert message in program(*flags).error


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("search=family", "hydra.mode=RUN"), "search=family chooses .*; leave out hydra.mode=RUN$"),
        (("hydra/sweeper=optuna", "hydra.mode=RUN"), "; leave out hydra.mode=RUN and add -m$"),
        (("--config-dir=mine", "search=mine"), "search=mine chooses a sweeper, .*; add -m$"),
    ],
)
def test_a_sweeper_that_one_run_would_not_use_is_named_before_anything_is_written(
    program: Callable[..., Outcome], tmp_path: Path, command: tuple[str, ...], message: str
) -> None:
    (tmp_path / "mine" / "search").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [override /hydra/sweeper: optuna]\n"
    (tmp_path / "mine" / "search" / "mine.yaml").write_text(text)
    assert re.search(message, program(*command, "hydra.run.dir=run").error)
    assert not (tmp_path / "run").exists()


def test_a_primary_configuration_may_choose_the_sweeper_of_its_sweeps(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    text = "defaults: [config, override hydra/sweeper: optuna, _self_]\n"
    (tmp_path / "mine" / "lab.yaml").write_text(text)
    message = program("--config-dir=mine", "--config-name=lab", "trainer.max_steps=null").error
    assert message.startswith("the run would never end")


@pytest.mark.parametrize(
    "params", ["hydra.sweeper.params={agent.gamma:0.9}", "hydra.sweeper.params.agent.gamma=0.9"]
)
def test_parameters_of_a_sweep_in_the_command_need_the_sweeper_optuna(
    program: Callable[..., Outcome], params: str
) -> None:
    message = program("-m", params, "hydra.sweep.dir=sweep").error
    assert "for hydra.sweeper.params in a command, add hydra/sweeper=optuna, or list the values" in message


def test_a_damaged_pickle_of_a_user_is_not_taken_for_that_of_a_rerun() -> None:
    assert explain(UnpicklingError("pickle data was truncated")) is None


def test_checkpoints_are_evaluated_one_after_the_other(program: Callable[..., Outcome]) -> None:
    message = program("-m", "mode=eval", "checkpoint=a,b").error
    assert message.startswith(
        "checkpoint= takes one checkpoint; it cannot be swept with --multirun. Write a command for each"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "this file does not exist; a run writes .*; to continue a run, write resume=RUN_DIR"),
        (b"defaults: []", "this file is not a pickle; a run writes"),
        (b"\x80\x04\x95", "the file of --experimental-rerun is damaged: pickle data was truncated"),
    ],
)
@pytest.mark.filterwarnings("ignore:Experimental rerun")
def test_a_rerun_of_what_is_not_a_pickled_configuration_is_rejected(
    program: Callable[..., Outcome], tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "config.pickle").write_bytes(content)
    assert re.search(message, program("--experimental-rerun", "config.pickle").error)


def test_a_section_of_the_configuration_is_shown(program: Callable[..., Outcome]) -> None:
    assert "huber" in program("--cfg=job", "-p", "agent.loss").out
    assert "outputs" in program("--cfg=hydra", "-p", "hydra.run").out


def test_a_part_that_cannot_be_imported_is_named_with_its_module(program: Callable[..., Outcome]) -> None:
    message = program("agent.network._target_=no_pkg.Net").error
    assert "agent.network" in message
    assert "no_pkg" in message


def test_a_new_process_answers_a_mistake_in_one_line(run_cli_here: Callable[..., Outcome]) -> None:
    assert run_cli_here("agent.lr=1").error


def test_hydra_full_error_adds_a_traceback_to_the_message(run_cli_here: Callable[..., Outcome]) -> None:
    done = run_cli_here("agent.lr=1", env={"HYDRA_FULL_ERROR": "1"})
    assert done.status == 2
    assert "Traceback" in done.err
