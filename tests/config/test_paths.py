"""Paths on the command line may contain any character: an existing one is taken as it stands."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from dqn_runner.config.command_line import expand_arguments, long_form
from dqn_runner.config.overrides import parse_overrides
from dqn_runner.config.schema import CONF
from dqn_runner.core.exceptions import UserError
from tests.conftest import Outcome

NAMES = [
    *(
        "lr=0.1",
        "a,b",
        "f(x)",
        "[a]",
        "{a}",
        "a b",
        " a ",
        "it's",
        'say"so',
        "'q'",
        "a$b",
        "a#b",
        "~x",
        "-x",
        "*?",
    ),
    *(
        "é",
        "日本",
        "a:b",
        "a;b",
        "a&b|c",
        "100%",
        "!x",
        "a@b",
        "a=",
        "=x",
        "x=[1,2]",
        "choice(1,2)",
        "1e3",
        "true",
    ),
    *("null", "${a}", "${oc.env:HOME}", "a\\b", "a\\'b", "a\\", "${", "glob(*)", "a" * 200),
]
SHORT = ("trainer.max_steps=20", "trainer.eval_episodes=1", "logging=[file]")


def value_of(key: str, path: str) -> Any:
    """What Hydra and OmegaConf make of an override of a path."""
    expanded = expand_arguments(long_form([f"{key}={path}"]))
    assert [o.key_or_group for o in parse_overrides(expanded)] == [key]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=expanded, return_hydra_config=True)
    return cfg.hydra.run.dir if key == "hydra.run.dir" else cfg.hydra.sweep.dir


@pytest.mark.parametrize("name", NAMES)
def test_an_existing_path_is_taken_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    if "${" in name:
        with pytest.raises(UserError, match="has \\$\\{ in its name, and Hydra cannot run there; rename"):
            value_of("hydra.run.dir", f"./{name}")
        return
    assert value_of("hydra.run.dir", f"./{name}") == f"./{name}"
    if name != "null":
        assert value_of("hydra.sweep.dir", name) == name


@pytest.mark.parametrize("name", [n for n in NAMES if "$" not in n and "\\" not in n and n[0] != "'"])
def test_a_new_directory_is_named_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert value_of("hydra.run.dir", f"new/{name}") == f"new/{name}"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("'a=b'", "a=b"),
        ('"a, b"', "a, b"),
        ("a\\,b", "a,b"),
        ("outputs/${oc.env:NAME}", "outputs/mine"),
        ("lr=0.1,(x)/${oc.env:NAME}", "lr=0.1,(x)/mine"),
        ("~/runs", "home/runs"),
    ],
)
def test_quotes_backslashes_interpolations_and_a_tilde_keep_their_meaning(
    monkeypatch: pytest.MonkeyPatch, text: str, path: str
) -> None:
    monkeypatch.setenv("NAME", "mine")
    monkeypatch.setenv("HOME", "home")
    assert value_of("hydra.run.dir", text) == path


def test_a_run_in_such_a_directory_is_resumed_and_evaluated(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    run = "it's lr=0.1, (é) [x]/run"
    for _ in range(2):
        done = program(*SHORT, f"hydra.run.dir={run}")
        assert done.status == 0, done.err
    assert "nothing changed" in done.out
    done = program(f"resume={run}/checkpoints/latest.pt", "trainer.max_steps=30")
    assert done.status == 0, done.err
    assert "trainer.max_steps: 20 -> 30" in done.out
    done = program("mode=eval", f"+checkpoint={run}", "evaluator.episodes=1", f"hydra.run.dir={run}-eval")
    assert done.status == 0, done.err
    assert (tmp_path / f"{run}-eval" / "eval.json").exists()
    done = program("-m", *SHORT, "seed=0", "hydra.sweep.dir=a=1,(b)")
    assert done.status == 0, done.err
    assert (tmp_path / "a=1,(b)" / "0" / "checkpoints" / "latest.pt").exists()


@pytest.mark.parametrize("name", ["a${b", "${a}"])
def test_a_run_in_a_directory_with_a_name_that_hydra_would_resolve_is_evaluated(
    program: Callable[..., Outcome], finished_run: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(finished_run, tmp_path / name / "run")
    done = program("mode=eval", f"checkpoint={name}/run", "evaluator.episodes=1", "hydra.run.dir=out")
    assert done.status == 0, done.err
    assert f"{tmp_path}/{name}/run/checkpoints/latest.pt" in done.out


def test_hydra_cannot_run_in_a_directory_that_it_would_resolve(
    program: Callable[..., Outcome], finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished_run, tmp_path / "a${b" / "run")
    where = f"{tmp_path}/a${{b"
    for argument in ("resume=a${b/run", "hydra.run.dir=a${b/run"):
        assert "a${b/run has ${ in its name, and Hydra cannot run there" in program(argument).error
    monkeypatch.chdir(where)
    assert program("trainer.max_steps=20").error.startswith(f"{where} has ${{ in its name")


def test_a_path_that_does_not_exist_is_named(program: Callable[..., Outcome]) -> None:
    assert "lr=0.1/checkpoints/best.pt" in program("resume=lr=0.1/checkpoints/best.pt").error
    assert "a,b/best.pt" in program("mode=eval", "checkpoint=a,b/best.pt").error


@pytest.mark.parametrize("key", ["resume", "checkpoint", "hydra.run.dir", "hydra.sweep.dir"])
def test_an_empty_path_is_rejected(program: Callable[..., Outcome], tmp_path: Path, key: str) -> None:
    assert "has an empty value; was a variable of the shell empty?" in program(f"{key}=").error
    assert not [*tmp_path.iterdir()]
