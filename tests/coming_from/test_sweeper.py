"""The examples of the page for users of hydra-optuna-sweeper, with the published plugin beside ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.distributions import CategoricalDistribution

from dqn_runner.sweep.search_space.space import SearchSpace, search_space
from tests.coming_from.pages import ROOT, code, rows, section, write_files
from tests.conftest import Outcome, environment

PAGE = "hydra-optuna-sweeper"

THEIR_SPACE = """
import json, sys
from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides
from optuna.distributions import CategoricalDistribution

def plain(found):
    if isinstance(found, CategoricalDistribution):
        return ["choice", list(found.choices)]
    kind, step = type(found).__name__, getattr(found, "step", getattr(found, "q", None))
    number = "int" if kind.startswith("Int") else "float"
    return [number, found.low, found.high, None if "Log" in kind else step, "Log" in kind]

spaces = create_params_from_overrides(json.loads(sys.argv[1]))[0]
print(json.dumps({name: plain(found) for name, found in spaces.items()}))
"""


def run_theirs(published: Path, cwd: Path, *command: str) -> str:
    """The output of a program that finds the published plugin and its Optuna, and this package."""
    packages = published.parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        cwd=cwd,
        env=environment(PYTHONPATH=os.pathsep.join([str(packages), str(ROOT)])),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def plain(searched: SearchSpace) -> dict[str, list[Any]]:
    """Our search space in the form of `THEIR_SPACE`."""
    found: dict[str, list[Any]] = {}
    for parameter in searched.parameters:
        match parameter.distribution:
            case CategoricalDistribution(choices=choices):
                found[parameter.name] = ["choice", ["null" if value is None else value for value in choices]]
            case d:
                number = "int" if isinstance(d.low, int) else "float"
                found[parameter.name] = [number, d.low, d.high, None if d.log else d.step, d.log]
    return found


def shared_texts() -> list[str]:
    """The texts of the page's table that mean the same on both sides."""
    texts = [
        text for row in rows(section(PAGE, "Search spaces")) if row[2] == "the same" for text in code(row[0])
    ]
    return [text for text in texts if text != "key=value"]


@pytest.mark.slow
def test_texts_of_search_spaces_mean_the_same(published: Path, tmp_path: Path) -> None:
    overrides = [f"x{index}={text}" for index, text in enumerate(shared_texts())]
    assert len(overrides) > 10
    theirs = json.loads(run_theirs(published, tmp_path, "-c", THEIR_SPACE, json.dumps(overrides)))
    ours = plain(search_space(overrides, {}, None))
    for found in (theirs[name] for name in theirs if "shuffle" in overrides[int(name[1:])]):
        found[1].sort()  # there in a random order
    assert ours == theirs


def test_a_range_with_a_log_tag_is_logarithmic_here() -> None:
    assert plain(search_space(["x=tag(log,range(1,64))"], {}, None)) == {"x": ["int", 1, 64, None, True]}


def test_the_example_has_the_same_points(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    theirs = yaml.safe_load((tmp_path / "tune.yaml").read_text())["hydra"]["sweeper"]["params"]
    ours = yaml.safe_load((tmp_path / "my_conf/search/tune.yaml").read_text())["hydra"]["sweeper"]["params"]
    assert list(theirs.values()) == list(ours.values())
    assert len(search_space([], ours, None).parameters) == 2


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.usefixtures("forked_jobs")
def test_the_four_scores_of_the_example_are_the_same(
    published: Path, tmp_path: Path, program: Callable[..., Outcome]
) -> None:
    write_files(PAGE, tmp_path)
    shutil.copytree(tmp_path, tmp_path / "theirs")
    run_theirs(
        published, tmp_path / "theirs", "tune.py", "-m", "hydra.sweep.dir=sweep", "hydra/job_logging=none"
    )
    sweep = ("experiment=tune", "search=tune", "hydra.sweep.dir=sweep")
    assert program("--config-dir", "my_conf", *sweep).status == 0
    theirs, ours = curves(tmp_path / "theirs" / "sweep"), curves(tmp_path / "sweep")
    assert len(ours) == 4
    assert theirs == ours


def curves(sweep: Path) -> list[list[float]]:
    """The mean returns of the evaluations of each trial, sorted: the order of a grid may differ."""
    found: list[list[float]] = []
    for path in sweep.glob("*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found.append([line["eval/return_mean"] for line in lines if "eval/return_mean" in line])
    return sorted(found)
