"""Mistakes in a YAML file of the user: the line names the file, the mistake and what to write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

GLOBAL = "# @package _global_\n"
PARAMS = "hydra:\n  sweeper:\n    params:\n      agent.gamma: choice(0.9, 0.99)\n"
OPTUNA = "defaults:\n  - override /hydra/sweeper: optuna\n"

MISTAKES: dict[str, tuple[str | bytes, str]] = {
    "byte-order mark": (b"\xef\xbb\xbf" + GLOBAL.encode() + b"seed: 3\n", "begins with a byte-order mark"),
    "latin-1": ((GLOBAL + "# caf\xe9\nseed: 3\n").encode("latin-1"), ", line 2: a character is not in UTF-8"),
    "UTF-16": ((GLOBAL + "seed: 3\n").encode("utf-16"), "is in UTF-16; save it as UTF-8"),
    "no package": ("agent:\n  gamma: 0.9\n", "needs the first line '# @package _global_'"),
    "package after a comment": (
        "# Mine.\n" + GLOBAL + "seed: 3\n",
        "needs the first line '# @package _global_'",
    ),
    "package at the end": ("seed: 3\n# @package _global_\n", "needs the first line '# @package _global_'"),
    "dotted key": (
        GLOBAL + "agent.gamma: 0.9\n",
        ", line 2: the key 'agent.gamma' has dots; write 'agent: {gamma: 0.9}'",
    ),
    "dotted key below": (
        GLOBAL + "agent:\n  exploration.schedule.steps: 5\n",
        ", line 3: the key 'exploration.",
    ),
    "tab": (GLOBAL + "agent:\n\tgamma: 0.9\n", ", line 3: found character '\\t' that cannot start any token"),
    "duplicate key": (GLOBAL + "seed: 3\nseed: 4\n", ", line 3: found duplicate key seed"),
    "list": (GLOBAL + "- seed\n", "is a list; it must contain settings"),
    "text": (GLOBAL + "hello\n", "is text; it must contain settings"),
    "no blank after the colon": (
        GLOBAL + "seed:3\n",
        "is text; it must contain settings, one a line, as in 'seed: 3'",
    ),
    "empty": ("", "is empty; it must contain settings"),
    "only comments": (GLOBAL + "# nothing\n", "is empty; it must contain settings"),
    "part as a key": (
        GLOBAL + "agent/network: mlp\n",
        "write '- override /agent/network: mlp' under 'defaults:'",
    ),
    "part as a value": (GLOBAL + "agent: c51\n", "write '- override /agent: c51' under 'defaults:'"),
    "relative choice": (GLOBAL + "defaults:\n  - agent: c51\n", "write '- override /agent: c51' instead of"),
    "relative override": (
        GLOBAL + "defaults:\n  - override agent: c51\n",
        "write '- override /agent: c51' instead",
    ),
    "defaults as a mapping": (GLOBAL + "defaults:\n  agent: c51\n", "defaults must be a list"),
    "too deep": (
        GLOBAL + "agent:\n  gamma: 0.9\n   tau: 1\n",
        ", line 4: mapping values are not allowed here",
    ),
    "not indented": (
        GLOBAL + "agent:\ngamma: 0.9\n",
        ", line 2: 'agent:' has no settings; indent those below it",
    ),
    "null byte": (GLOBAL + "seed: 3\0\n", "is not valid YAML"),
    "a file that it chooses": (GLOBAL + "defaults:\n  - override /env: bad\n", "env/bad.yaml is a list"),
}


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("group", ["experiment", "search"])
def test_a_mistake_in_a_file_is_named_with_the_file(
    program: Callable[..., Outcome], tmp_path: Path, mistake: str, group: str
) -> None:
    content, message = MISTAKES[mistake]
    write(tmp_path / "mine" / group / "my.yaml", content)
    write(tmp_path / "mine" / "env" / "bad.yaml", "- 3\n")
    error = program("--config-dir=mine", f"{group}=my").error
    assert error.startswith("mine/env/bad" if "chooses" in mistake else f"mine/{group}/my.yaml")
    assert message in error


COMPOSED: dict[str, tuple[str, str]] = {
    "an env without its part": (
        GLOBAL + "defaults:\n  - override /env: bare\n",
        "env has settings, but does not say of which part; begin its YAML file with 'defaults: [",
    ),
    "value of checkpoint": (
        GLOBAL + "mode: eval\ncheckpoint: a.pt\n",
        "checkpoint is a section; in a file, write checkpoint: {path: a.pt}",
    ),
    "value of a section": (GLOBAL + "trainer: 5\n", "5 (int) stands in the place of a section"),
    "list of loggers": (GLOBAL + "logging: [jsonl]\n", "a list stands in the place of a section"),
    "resume": (
        GLOBAL + "resume: runs/a\n",
        "resume=runs/a is in a file, but Hydra composes with the settings",
    ),
}


@pytest.mark.parametrize("mistake", COMPOSED)
def test_a_mistake_that_shows_in_the_composition_says_what_to_write(
    program: Callable[..., Outcome], tmp_path: Path, mistake: str
) -> None:
    content, message = COMPOSED[mistake]
    write(tmp_path / "mine" / "experiment" / "my.yaml", content)
    write(tmp_path / "mine" / "env" / "bare.yaml", "id: CartPole-v1\n")
    assert message in program("--config-dir=mine", "experiment=my", "hydra.run.dir=run").error
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_file_of_any_group_is_checked(program: Callable[..., Outcome], tmp_path: Path) -> None:
    write(tmp_path / "mine" / "env" / "my.yaml", "id: CartPole-v1\nfoo.bar: 3\n")
    assert (
        "mine/env/my.yaml, line 2: the key 'foo.bar' has dots" in program("--config-dir=mine", "env=my").error
    )


@pytest.mark.parametrize(
    "content",
    [
        GLOBAL + "seed: 3\n",
        "\n#@package _global_\n\n# My recipe.\nseed: 3\r\n",
        GLOBAL + OPTUNA + PARAMS,
        GLOBAL + "defaults:\n  - override /agent: c51\n  - _self_\nenv:\n  kwargs: {a.b: 1}\n",
        GLOBAL + "agent:\n  network:\n    _target_: my_pkg.Net\nenv:\n  id: my_pkg.envs:My-v0\n",
        GLOBAL + "# 日本\nseed: 3\n",
    ],
)
def test_a_correct_file_is_accepted(program: Callable[..., Outcome], tmp_path: Path, content: str) -> None:
    write(tmp_path / "mine" / "experiment" / "my.yaml", content)
    done = program("--config-dir=mine", "experiment=my", "--cfg=job")
    assert done.status == 0, done.err


def test_a_config_dir_that_does_not_exist_is_named(program: Callable[..., Outcome]) -> None:
    assert "nowhere' not found" in program("--config-dir=nowhere").error
