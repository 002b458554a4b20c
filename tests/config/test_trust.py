"""A stored run and a best_config.yaml decide only among what is registered, or what the command names."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import dqn_runner
from dqn_runner.checkpointing.format import encode
from dqn_runner.cli.job import Job
from dqn_runner.config.schema import to_plain_config
from dqn_runner.io.json_io import as_json
from tests.conftest import Outcome
from tests.support.composition import compose_config

Forge = Callable[..., str]
Program = Callable[..., Outcome]

EVIL = """
from pathlib import Path

Path("owned").touch()


class Evil:
    def __init__(self, *args, **kwargs):
        Path("owned").touch()
"""
TOUCH = {"_target_": "os.system", "command": "touch owned"}


def with_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a nested configuration with other values, by dotted key."""
    changed: dict[str, Any] = copy.deepcopy(as_json(dict(config)))
    for key, value in values.items():
        *path, last = key.split("/") if "/" in key else key.split(".")
        node = changed
        for name in path:
            node = node.setdefault(name, {})
        node[last] = value
    return changed


@cache
def default_config() -> dict[str, Any]:
    return to_plain_config(compose_config())


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    """`forge(values, overrides)` writes the run `forged` whose checkpoint stores these."""
    (tmp_path / "evil.py").write_text(EVIL)

    def write(values: Mapping[str, Any] | None = None, overrides: Sequence[str] = (), **source: Any) -> str:
        config = with_values(default_config(), values or {})
        stored = {"config": config, "overrides": list(overrides), "config_name": "config", "config_dir": None}
        checkpoints = tmp_path / "forged" / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        document = {"step": 1, "names": [], "source": {**stored, **source}, "state": {"finished": None}}
        (checkpoints / "latest.pt").write_bytes(encode(document))
        return "forged"

    return write


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that the program would run; none of them is run."""
    found: list[Job] = []

    def keep(job: Job) -> float:
        found.append(job)
        return 0.0

    monkeypatch.setattr("dqn_runner.cli.train.train", keep)
    monkeypatch.setattr("dqn_runner.cli.evaluate.evaluate", keep)
    return found


REQUESTS: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "a function as env": (
        {"env.id": "os.system", "env.kwargs": {"command": "touch owned"}},
        [],
        "env.id=os.system",
    ),
    "a module prefix": ({"env.id": "evil:CartPole-v1"}, [], "env.id=evil:CartPole-v1"),
    "a module before a dot": ({"env.id": "evil.CartPole-v1"}, [], "env.id=evil.CartPole-v1"),
    "an unknown id": ({"env.id": "NoSuchEnv-v0"}, [], "env.id=NoSuchEnv-v0"),
    "a wrapper": ({"env.wrappers": ["evil.Evil"]}, [], "env.wrappers.0=evil.Evil"),
    "a wrapper with arguments": ({"env.wrappers": [TOUCH]}, [], "env.wrappers.0._target_=os.system"),
    "a part": ({"agent.loss._target_": "evil.Evil"}, [], "agent.loss._target_=evil.Evil"),
    "a target in arguments": (
        {"env.kwargs": {"a": {"b": [TOUCH]}}},
        [],
        "env.kwargs.a.b.0._target_=os.system",
    ),
    "a partial target": ({"env.kwargs": {"a": {**TOUCH, "_partial_": True}}}, [], "env.kwargs.a._target_="),
    "positional arguments": (
        {"env.kwargs": {"a": {"_target_": "os.system", "_args_": ["touch owned"]}}},
        [],
        "env.kwargs.a._target_=os.system",
    ),
    "a target by a dotted key": (
        {"env/kwargs/a._target_": "evil.Evil"},
        [],
        "env.kwargs.a._target_=evil.Evil",
    ),
    "a target by a key with brackets": ({"env/kwargs[a]/_target_": "evil.Evil"}, [], "a._target_=evil.Evil"),
    "a logger": ({"logging.mine": {"_target_": "evil.Evil"}}, [], "logging.mine._target_=evil.Evil"),
    "a target in a setting that does not exist": (
        {"more": {"x": [TOUCH]}},
        [],
        "more.x.0._target_=os.system",
    ),
    "a custom network": (
        {"agent.network": {"_target_": "agent/network=custom", "target": "evil.Evil", "kwargs": {}}},
        [],
        "agent.network.target=evil.Evil",
    ),
    "an argument that is a path": (
        {"env.id": "Ant-v5", "env.kwargs": {"xml_file": "/etc/x.xml"}},
        [],
        "xml_file=",
    ),
    "an argument of another library": (
        {"env.id": "GymV26Environment-v0", "env.kwargs": {"env_id": "evil"}},
        [],
        "env.kwargs.env_id=evil",
    ),
    "an environment variable": (
        {"env.kwargs": {"a": "${oc.env:SECRET}"}},
        [],
        "env.kwargs.a=${oc.env:SECRET}",
    ),
    "a target by a resolver": (
        {"agent.loss._target_": "${oc.env:SECRET}"},
        [],
        "agent.loss._target_=${oc.env:",
    ),
    "a nested resolver": ({"agent.x": "a${b${oc.decode:'os.system'}}"}, [], "agent.x=a${b${oc.decode"),
    "an escaped resolver": ({"env.kwargs": {"a": "\\${oc.env:SECRET}"}}, [], "env.kwargs.a="),
    "an override of env": ({}, ["env.id=evil:Evil"], "env.id=evil:Evil"),
    "an override of the class of env": ({}, ["env._target_=evil.Evil"], "env.id=evil.Evil"),
    "an override of arguments": (
        {},
        ["+env.kwargs.a={b: [{_target_: os.system}]}"],
        "env.kwargs.a.b.0._target_=",
    ),
    "an override of a target": ({}, ["++agent.loss._target_=evil.Evil"], "agent.loss._target_=evil.Evil"),
    "an override with a resolver": ({}, ["env.id=${oc.env:SECRET}"], "env.id=${oc.env:SECRET}"),
    "an override with a network": (
        {},
        ["agent/network=custom", "agent.network.target=evil.Evil"],
        "target=evil",
    ),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_stored_run_cannot_import_or_read_what_the_command_does_not_name(
    forge: Forge,
    program: Program,
    jobs: list[Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    values, overrides, asked = REQUESTS[case]
    monkeypatch.setenv("SECRET", "planted")
    forge(values, overrides)
    message = program("resume=forged").error
    assert asked in message
    assert "trust=true" in message
    assert "planted" not in message
    assert not jobs
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("case", ["a function as env", "a wrapper", "an override with a resolver"])
def test_a_stored_run_that_is_evaluated_is_checked_too(
    forge: Forge, program: Program, jobs: list[Job], tmp_path: Path, case: str
) -> None:
    values, overrides, asked = REQUESTS[case]
    forge(values, overrides)
    assert asked in program("mode=eval", "checkpoint=forged").error
    assert not jobs
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "case",
    [
        "a function as env",
        "a target in arguments",
        "a logger",
        "a wrapper",
        "an environment variable",
        "a part",
    ],
)
def test_a_run_directory_of_a_stranger_brings_nothing_into_the_command_that_resumes_it(
    forge: Forge, program: Program, jobs: list[Job], tmp_path: Path, case: str
) -> None:
    values, _, asked = REQUESTS[case]
    forge(values)
    assert asked in program("hydra.run.dir=forged").error
    assert not jobs
    assert not (tmp_path / "owned").exists()


FORGED: dict[str, list[str]] = {
    "a callback": ["+hydra.callbacks.x={_target_: evil.Evil}"],
    "hydra as a mapping": ["+hydra={callbacks: {x: {_target_: evil.Evil}}}"],
    "a directory": ["hydra.run.dir=/tmp/elsewhere"],
    "a launcher": ["hydra/launcher=joblib"],
    "a search path": ["hydra.searchpath=[file:///tmp]"],
    "a deleted setting of Hydra": ["~hydra.job_logging"],
    "a package of Hydra": ["+env@hydra.callbacks.x=gym"],
    "the global package": ["+env@_global_=gym"],
    "a file": ["+experiment=../../../../../../../../tmp/x"],
    "an absolute file": ["env=/tmp/x"],
    "a list of files": ["logging=[jsonl,../../x]"],
    "an option by a resolver": ["experiment=${oc.env:SECRET}"],
    "a study": ["study.storage=sqlite:////tmp/x.db"],
    "trust": ["trust=true"],
    "a mode": ["mode=eval"],
    "another run": ["resume=elsewhere"],
    "a search": ["search=dqn"],
}


@pytest.mark.parametrize("case", FORGED)
def test_a_stored_run_with_an_override_that_no_run_stores_is_rejected_even_with_trust(
    forge: Forge, program: Program, jobs: list[Job], tmp_path: Path, case: str
) -> None:
    forge({}, FORGED[case])
    message = program("resume=forged", "trust=true").error
    assert "is not as it was written" in message
    assert FORGED[case][0] in message
    assert not jobs
    assert not (tmp_path / "owned").exists()


def test_a_stored_name_of_the_configuration_is_a_plain_name(forge: Forge, program: Program) -> None:
    assert "is not as it was written" in program(f"resume={forge(config_name='../../tmp/x')}").error


@pytest.mark.usefixtures("jobs")
def test_a_stored_configuration_directory_is_used_only_if_the_command_names_it(
    forge: Forge, program: Program, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "lab.yaml").write_text(
        "{defaults: [config, _self_], hydra: {callbacks: {x: {_target_: evil.Evil}}}}"
    )
    run = forge(config_name="lab", config_dir=str(tmp_path / "mine"))
    message = program(f"resume={run}").error
    assert f"--config-dir={tmp_path / 'mine'}" in message
    assert "--config-name=lab" in message
    assert not (tmp_path / "owned").exists()
    program("--config-dir=mine", "--config-name=lab", f"resume={run}")
    assert (tmp_path / "owned").exists(), "the callback of the user's own directory runs"


@pytest.mark.parametrize(
    "grant",
    [
        "env.id=evil:Evil",
        "trust=true",
        "--config-dir=own env=mine",
        "env=gym env.id=evil:Evil",
    ],
)
def test_a_request_is_granted_by_the_command_by_the_users_configuration_or_by_trust(
    forge: Forge, program: Program, jobs: list[Job], tmp_path: Path, grant: str
) -> None:
    (tmp_path / "own" / "env").mkdir(parents=True)
    (tmp_path / "own" / "env" / "mine.yaml").write_text("{defaults: [gym, _self_], id: 'evil:Evil'}")
    forge(
        {"env.id": "evil:Evil", "env.kwargs": {"level": 3}},
        ["env=gym", "env.id=evil:Evil", "env.kwargs.level=3"],
    )
    done = program(*grant.split(), "resume=forged")
    assert done.status == 0, done.err
    assert jobs[0].run.env.id == "evil:Evil"
    assert jobs[0].run.env.kwargs == {"level": 3}


def test_the_class_of_an_environment_is_granted_under_either_name(
    forge: Forge, program: Program, jobs: list[Job]
) -> None:
    forge({"env.id": "evil.Evil"}, ["env._target_=evil.Evil"])
    for name in ("env.id", "env._target_"):
        done = program("resume=forged", f"{name}=evil.Evil")
        assert done.status == 0, done.err
        assert jobs.pop().run.env.id == "evil.Evil"


def test_a_run_is_resumed_with_a_setting_of_a_part_that_only_the_run_chooses(
    forge: Forge, program: Program, jobs: list[Job]
) -> None:
    forge({"agent.loss": {"_target_": "agent/loss=categorical"}}, ["agent=c51"])
    done = program("resume=forged", "agent.loss.v_max=50")
    assert done.status == 0, done.err
    assert jobs[0].run.agent.loss.v_max == 50


def test_naming_one_request_does_not_grant_another(forge: Forge, program: Program, jobs: list[Job]) -> None:
    forge({"env.id": "my.Env", "env.wrappers": ["evil.Evil"]})
    message = program("resume=forged", "env.id=my.Env").error
    assert "env.wrappers.0=evil.Evil" in message
    assert "env.id" not in message
    assert not jobs


@pytest.mark.parametrize(
    "values",
    [
        {"env.id": "Acrobot-v1"},
        {"env.id": "FrozenLake-v1", "env.kwargs": {"map_name": "8x8"}},
        {"env.kwargs": {"a": 1}},
        {"env.id": "minigrid:MiniGrid-Empty-8x8-v0"},  # as the recipes name it; an extra installs it
        {"agent.replay": {"preload": "/a/b.npz"}},  # its checkpoint has the transitions: no file is read
    ],
)
def test_registered_environments_with_plain_arguments_need_no_grant(
    forge: Forge, program: Program, jobs: list[Job], values: dict[str, Any]
) -> None:
    forge(values)
    done = program("mode=eval", "checkpoint=forged")
    assert done.status == 0, done.err
    assert jobs[0].run.env.id == values.get("env.id", "CartPole-v1")


def test_the_same_command_resumes_a_run_of_the_users_own_environment(
    forge: Forge, program: Program, jobs: list[Job]
) -> None:
    command = ["env.id=evil:Evil", "env.kwargs={file: /etc/x}", "env.wrappers=[evil.Evil]"]
    values = {"env.id": "evil:Evil", "env.kwargs": {"file": "/etc/x"}, "env.wrappers": ["evil.Evil"]}
    forge(values, command)
    done = program(*command, "hydra.run.dir=forged")
    assert done.status == 0, done.err
    assert jobs[0].run.env.id == "evil:Evil"


def test_a_message_shows_no_control_characters_and_no_endless_text(forge: Forge, program: Program) -> None:
    forge({"env.id": "x\x1b[2J" + "y" * 5000})
    message = program("resume=forged").error
    assert "\x1b" not in message
    assert len(message) < 600


HEAD = "# @package _global_\n"
BEST: dict[str, tuple[str, str]] = {
    "an environment": (HEAD + "env: {id: 'evil:Evil'}", "env.id=evil:Evil"),
    "a second document": (HEAD + "env: {num_envs: 1}\n---\nenv: {id: 'evil:Evil'}", ""),
    "a part": (HEAD + "agent: {loss: {_target_: evil.Evil}}", "agent.loss._target_=evil.Evil"),
    "an option beside it": (HEAD + "defaults: [{override /env: mine}, _self_]", "env.id=evil:Evil"),
    "data": (HEAD + "agent: {replay: {preload: /a/b.npz}}", "agent.replay.preload=/a/b.npz"),
    "a resolver": (HEAD + "env: {kwargs: {a: '${oc.env:SECRET}'}}", "env.kwargs.a=${oc.env:SECRET}"),
    "a callback": (HEAD + "hydra: {callbacks: {x: {_target_: evil.Evil}}}", "it sets hydra.callbacks"),
    "a package of Hydra": ("# @package hydra.callbacks.x\n_target_: evil.Evil", "it sets hydra.callbacks"),
    "variables": (HEAD + "hydra: {job: {env_set: {PYTHONSTARTUP: x}}}", "it sets hydra.job"),
    "a launcher": (HEAD + "defaults: [{override /hydra/launcher: joblib}]", "it sets hydra.launcher"),
    "a study": (HEAD + "study: {storage: x, name: y, trial: 0}", "it sets study"),
    "trust": (HEAD + "{trust: true, env: {id: 'evil:Evil'}}", "it sets trust"),
}


@pytest.fixture
def best_config(tmp_path: Path) -> Callable[[str], None]:
    """`best_config(text)` writes the best_config.yaml of the sweep `sweep`, and an option beside it."""
    (tmp_path / "evil.py").write_text(EVIL)

    def write(text: str) -> None:
        for name, content in {
            "experiment/best_config": text,
            "env/mine": "{defaults: [gym], id: 'evil:Evil'}",
        }.items():
            path = tmp_path / "sweep" / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return write


@pytest.mark.parametrize("case", BEST)
def test_a_best_config_cannot_import_read_or_set_what_the_command_does_not_name(
    best_config: Callable[[str], None], program: Program, jobs: list[Job], tmp_path: Path, case: str
) -> None:
    text, asked = BEST[case]
    best_config(text)
    assert asked in program("--config-dir=sweep", "experiment=best_config").error
    assert not jobs
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "ways",
    [
        ["-m", "experiment=best_config,cartpole_cleanrl"],
        ["-m", "experiment=choice(cartpole_cleanrl,best_config)"],
        ["-m", "experiment=glob(*)"],
        ["experiment=[best_config]"],
        ["--config-name=experiment/best_config"],
        ["--config-name=mine"],
    ],
)
def test_a_best_config_is_checked_however_it_is_chosen(
    best_config: Callable[[str], None], program: Program, jobs: list[Job], tmp_path: Path, ways: list[str]
) -> None:
    best_config(HEAD + "env: {id: 'evil:Evil'}")
    (tmp_path / "sweep" / "mine.yaml").write_text("defaults: [config, experiment/best_config, _self_]\n")
    done = program("--config-dir=sweep", *ways, "hydra.run.dir=run", "hydra.sweep.dir=runs")
    assert "evil:Evil" in done.error or "was written by a sweep" in done.error
    assert not jobs
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("grant", ["env.id=evil:Evil", "trust=true"])
def test_a_best_config_is_granted_what_the_command_names(
    best_config: Callable[[str], None], program: Program, jobs: list[Job], grant: str
) -> None:
    best_config(HEAD + "env: {id: 'evil:Evil', num_envs: 2}")
    done = program("--config-dir=sweep", "experiment=best_config", grant, "hydra.run.dir=run")
    assert done.status == 0, done.err
    assert (jobs[0].run.env.id, jobs[0].run.env.num_envs) == ("evil:Evil", 2)


def test_a_best_config_of_registered_parts_needs_no_grant_also_with_settings_that_only_it_has(
    best_config: Callable[[str], None], program: Program, jobs: list[Job]
) -> None:
    best_config(HEAD + "defaults: [{override /agent: c51}, _self_]\nenv: {id: Acrobot-v1}")
    done = program("--config-dir=sweep", "experiment=best_config", "agent.loss.v_max=50", "hydra.run.dir=run")
    assert done.status == 0, done.err
    assert jobs[0].run.agent.loss.v_max == 50


def test_every_import_by_a_setting_is_listed_in_trust() -> None:
    package = Path(dqn_runner.__file__).parent
    calls = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search(r"\b(import_object|get_method|instantiate|import_module)\(", path.read_text())
    }
    assert calls == {
        "agent/networks/architectures.py",  # agent.network.target
        "envs/gym.py",  # env.id
        "envs/wrapping.py",  # env.wrappers
        "envs/atari.py",
        "envs/minatar.py",
        "cli/play.py",
        "inference/export.py",
        "io/video.py",
        "loggers/mlflow.py",
        "loggers/tensorboard.py",
        "replay/offline/minari_dataset.py",  # the library of Minari
        "sweep/cmaes_state.py",  # the three optimizers of the package cmaes
        "sweep/requirements.py",  # fixed names
        "config/schema.py",  # _target_
        "inference/load.py",  # _target_, with trust=True only
        "sweep/optuna_parts.py",  # settings of Hydra, which nothing stored decides
        "core/imports.py",
        "core/lazy_imports.py",
        "core/registry.py",
    }
