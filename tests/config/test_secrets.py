"""No file of a run or of a sweep contains a secret: a text from the environment, a password, a key."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dqn_runner.config.environment import as_stored, digests, with_digests
from dqn_runner.config.secret_arguments import move_secrets
from dqn_runner.core import secrets
from dqn_runner.core.log import log
from dqn_runner.io.json_io import read_json
from tests.conftest import BUDGET, Outcome
from tests.support.composition import compose_config
from tests.support.servers import ENCODED, Server, postgresql
from tests.support.servers import PASSWORD as DATABASE_PASSWORD

__all__ = ["postgresql"]

TEXT, PASSWORD, KEY = "planted-in-the-environment", "planted-password", "planted-key-of-wandb"
URL = f"postgresql://me:{PASSWORD}@host/name"
KWARGS = "DQN_RUNNER_ENV_KWARGS"


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of these tests; what they set is removed again."""
    monkeypatch.setattr(secrets, "_hidden", {})
    monkeypatch.setenv("TEXT", TEXT)
    monkeypatch.setenv("NUMBER", "7")
    monkeypatch.setenv("GAME", "CartPole-v1")
    for name in (
        "WANDB_API_KEY",
        "DQN_RUNNER_STORAGE",
        "DQN_RUNNER_ENV_KWARGS_API_KEY",
        "DQN_RUNNER_ENV_KWARGS_B",
    ):
        monkeypatch.setenv(name, "")


def files_with(directory: Path, *texts: str) -> list[str]:
    """The files below a directory that contain one of the texts."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return [str(path) for path in files if any(text.encode() in path.read_bytes() for text in texts)]


@pytest.mark.parametrize(
    ("override", "stored"),
    [
        ("env.kwargs.a=${oc.env:TEXT}", "${oc.env:TEXT}"),
        ("env.kwargs.a=pre-${oc.env:TEXT}-post", "pre-${oc.env:TEXT}-post"),
        ("env.kwargs.a=${env.kwargs.b}", "${oc.env:TEXT}"),
        ("env.kwargs.a=${seed}-${env.kwargs.b}", "0-${oc.env:TEXT}"),
        ("env.kwargs.a=[1,'${oc.env:TEXT}']", [1, "${oc.env:TEXT}"]),
        ("env.kwargs.a='${oc.env:UNSET,other}'", "${oc.env:UNSET,'other'}"),
        ("env.kwargs.a='${oc.decode:${oc.env:NUMBER}}'", 7),
        (r"env.kwargs.a='\${literal}'", r"\${literal}"),
        ("env.kwargs.a=${seed}", 0),
    ],
)
def test_a_text_from_the_environment_is_stored_as_it_is_written(override: str, stored: Any) -> None:
    cfg = compose_config("env.kwargs.b=${oc.env:TEXT}", override)
    tree = as_stored(cfg).tree
    assert tree["env"]["kwargs"]["a"] == stored
    assert TEXT not in str(tree)
    again = OmegaConf.create({key: tree[key] for key in ("env", "seed")})
    assert again.env.kwargs == cfg.env.kwargs


def test_a_number_or_an_option_from_the_environment_is_stored_by_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UNIT", "episodes")
    cfg = compose_config("seed=${oc.env:NUMBER}", "trainer.frequency_unit=${oc.env:UNIT}")
    tree = as_stored(cfg).tree
    assert (tree["seed"], tree["trainer"]["frequency_unit"]) == (7, "episodes")


def test_another_value_of_a_variable_is_another_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = compose_config("env.kwargs.a=${oc.env:TEXT}")
    first = as_stored(cfg)
    monkeypatch.setenv("TEXT", "another")
    second = as_stored(cfg)
    assert first.tree == second.tree
    compared = [with_digests(stored.tree, digests(stored.hidden, 0)) for stored in (first, second)]
    assert compared[0] != compared[1]
    assert TEXT not in str(compared)


@pytest.mark.parametrize(
    ("key", "secret", "variable"),
    [
        ("hydra.sweeper.storage=", URL, "DQN_RUNNER_STORAGE"),
        ("study.storage=", URL, "DQN_RUNNER_STORAGE"),
        ("+hydra.job.env_set.WANDB_API_KEY=", KEY, "WANDB_API_KEY"),
        ("env.kwargs.api_key=", KEY, f"{KWARGS}_API_KEY"),
        ("++env.kwargs.b=", URL, f"{KWARGS}_B"),
    ],
)
def test_a_typed_secret_is_moved_into_the_environment(key: str, secret: str, variable: str) -> None:
    typed, moved = f"{key}{secret}", f"{key}${{oc.env:{variable}}}"
    assert move_secrets(["seed=3", typed]) == ["seed=3", moved]
    assert os.environ[variable] == secret
    assert secrets.redact_argument(typed) == moved
    assert secrets.redact(f"no route to {secret}.") == f"no route to ${{oc.env:{variable}}}."


def test_a_secret_within_a_mapping_is_moved_into_the_environment() -> None:
    typed = f"env.kwargs={{a: 1, b: '{URL}'}}"
    assert move_secrets([typed]) == [f"env.kwargs={{a:1,b:'${{oc.env:{KWARGS}_B}}'}}"]
    typed = f"+hydra.job.env_set={{WANDB_API_KEY: {KEY}}}"
    assert move_secrets([typed]) == ["+hydra.job.env_set={WANDB_API_KEY:'${oc.env:WANDB_API_KEY}'}"]


def test_hydra_gets_a_copied_variable_without_its_value() -> None:
    assert move_secrets(["hydra.job.env_copy=[A,B]"]) == [
        "++hydra.job.env_set.A=${oc.env:A}",
        "++hydra.job.env_set.B=${oc.env:B}",
    ]


@pytest.mark.parametrize(
    "argument",
    [
        "seed=3",
        "--config-dir=x",
        "env.id=a:b",
        "env.kwargs.token=5",
        "hydra.sweeper.storage=sqlite:///x.db",
        "a=b,c",
        "x=(",
    ],
)
def test_other_arguments_stay_as_they_are(argument: str) -> None:
    assert move_secrets([argument]) == [argument]


def test_messages_and_tracebacks_in_the_log_contain_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    secrets.hide(TEXT, "${oc.env:TEXT}")
    try:
        raise RuntimeError(f"no route to {TEXT}")
    except RuntimeError:
        with caplog.at_level(logging.INFO, logger="dqn_runner"):
            log.exception("failed for %s at mysql://me:%s@host", TEXT, PASSWORD)
    assert "${oc.env:TEXT}" in caplog.text
    assert TEXT not in caplog.text
    assert PASSWORD not in caplog.text


@pytest.mark.slow
def test_no_file_of_a_run_contains_a_secret(
    program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, my_env: str
) -> None:
    command = [
        *(f"env.id={my_env}", "+env.kwargs.where=${oc.env:TEXT}", f"+hydra.job.env_set.WANDB_API_KEY={KEY}"),
        *(
            "logging=[console,file,jsonl,csv,wandb]",
            "logging.wandb.mode=offline",
            "hydra.job.env_copy=[TEXT]",
        ),
        *BUDGET,
        "hydra.run.dir=run",
    ]
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "dqn_runner", *command])
    assert program(*command).status == 0
    assert not files_with(tmp_path / "run", TEXT, KEY)
    record = read_json(tmp_path / "run" / "run.json")
    assert record["config"]["env"]["kwargs"]["where"] == "${oc.env:TEXT}"
    assert "+hydra.job.env_set.WANDB_API_KEY=${oc.env:WANDB_API_KEY}" in record["sessions"][0]["command"]

    done = program(*command)
    assert done.out.startswith("nothing changed\n"), "the same command resumes without trust"
    monkeypatch.setenv("TEXT", "another value")
    message = program(*command).error
    assert "resume cannot change env.kwargs.where from ${oc.env:TEXT} (a value with hash " in message
    assert not files_with(tmp_path / "run", TEXT, KEY, "another value")


@pytest.mark.slow
def test_no_file_of_a_sweep_contains_a_secret(run_cli_here: Callable[..., Outcome], tmp_path: Path) -> None:
    done = run_cli_here(
        *("-m", "hydra/sweeper=optuna", "hydra.sweep.dir=sweep", "hydra.sweeper.n_trials=1", *BUDGET),
        *("env.id=${oc.env:GAME}", f"+hydra.job.env_set.WANDB_API_KEY={KEY}", "agent.gamma=choice(0.9,0.99)"),
        *("logging=[console,file,jsonl,wandb]", "logging.wandb.mode=offline", "hydra.job.env_copy=[TEXT]"),
        env={"GAME": "CartPole-v1", "TEXT": TEXT},
    )
    assert done.status == 0, done.err
    assert not files_with(tmp_path, TEXT, KEY)
    assert "trust=true" in done.out.splitlines()[-1], "the printed command runs as it is"


@pytest.mark.slow
def test_a_typed_password_of_a_database_reaches_the_jobs_and_no_file(
    run_cli_here: Callable[..., Outcome], tmp_path: Path, postgresql: Server
) -> None:
    done = run_cli_here(
        *("-m", "hydra/sweeper=optuna", "hydra.sweep.dir=sweep", "hydra.sweeper.n_trials=1", *BUDGET),
        *(f"hydra.sweeper.storage={postgresql.new_database()}", "agent.gamma=choice(0.9,0.99)"),
    )
    assert done.status == 0, done.out + done.err
    assert "1 complete" in done.out
    assert not files_with(tmp_path, ENCODED, DATABASE_PASSWORD)
    assert ENCODED not in done.out + done.err


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///x.db?password=s3cretPW", "sqlite:///x.db?password=***"),
        ("postgresql://h/db?user=me&password=s3cretPW&x=1", "postgresql://h/db?user=me&password=***&x=1"),
        ("https://h/x?API_KEY=s3cretPW", "https://h/x?API_KEY=***"),
        ("postgresql://me:s3cretPW@h/db", "postgresql://me:***@h/db"),
        ("Authorization: Bearer s3.cretPW", "Authorization: Bearer ***"),
        ("Basic bWU6czNjcmV0UFc=", "Basic ***"),
        ("postgresql://me:s3/cretPW@h/db", None),
        ("postgresql://me:s3 cretPW@h/db", None),
    ],
)
def test_a_password_anywhere_in_a_url_or_header_is_found(
    monkeypatch: pytest.MonkeyPatch, url: str, shown: str | None
) -> None:
    """With a character that ends a URL in a sentence, it is hidden once it has been seen as a setting."""
    monkeypatch.setattr(secrets, "_hidden", {})
    monkeypatch.setenv("DQN_RUNNER_ENV_KWARGS_URL", "")
    assert secrets.has_password(url)
    if shown is not None:
        assert secrets.redact(f"lost {url} again") == f"lost {shown} again"
    (moved,) = move_secrets([f"env.kwargs.url='{url}'"])
    assert moved == "env.kwargs.url=${oc.env:DQN_RUNNER_ENV_KWARGS_URL}"
    assert "cretPW" not in secrets.redact(f"lost {url} again")


@pytest.mark.parametrize(
    "text", ["http://h:8080/a?b=c", "me@h", "env:MyEnv-v0", "a=b?c=d", "sqlite:///x.db", "Basic training"]
)
def test_other_texts_have_no_password(text: str) -> None:
    assert not secrets.has_password(text)
    assert secrets.redact(text) == text
