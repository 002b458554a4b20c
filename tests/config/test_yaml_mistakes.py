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
    "anchor of itself": (GLOBAL + "env: &env\n  kwargs: *env\n", "an anchor in it contains itself"),
    "3000 brackets": (GLOBAL + "seed: " + 3000 * "[", "is nested too deeply"),
    "5000 digits": (GLOBAL + "seed: " + 5000 * "9", "is not valid YAML: Exceeds the limit"),
    "value in the defaults": (
        GLOBAL + "defaults:\n  - seed: 3\n",
        "'- {'seed': 3}' in defaults is not a choice; write one a line, as in '- env: gym'",
    ),
    "two choices in one entry": (
        GLOBAL + "defaults:\n  - override /env: gym\n    override /agent: c51\n",
        "in defaults is not a choice",
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
        "has settings, but does not say of which part; begin its YAML file with 'defaults: [gym, _self_]'",
    ),
    "settings that all envs have": (
        GLOBAL + "defaults:\n  - override /env: common\n",
        "begin its YAML file with 'defaults: [NAME, _self_]' (known: atari, gym, minatar)",
    ),
    "a logger without a class": (
        GLOBAL + "logging:\n  mine: {level: 3}\n",
        "logging.mine is not a logger; name its class, as in logging.mine._target_=my_pkg.MyLogger",
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
    write(tmp_path / "mine" / "env" / "common.yaml", "num_envs: 2\n")
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


PRIMARY = "defaults:\n  - config\n  - _self_\n"
PRIMARIES: dict[str, tuple[str | bytes, str]] = {
    "no defaults": ("seed: 3\n", "has only some settings; begin it with 'defaults: [config, _self_]'"),
    "only itself": ("defaults: [_self_]\nseed: 3\n", "has only some settings"),
    "empty": ("", "is empty; it must contain settings"),
    "latin-1": ((PRIMARY + "# caf\xe9\n").encode("latin-1"), ", line 4: a character is not in UTF-8"),
    "UTF-16": (PRIMARY.encode("utf-16"), "is in UTF-16"),
    "defaults as a text": ("defaults: config\nseed: 3\n", "defaults must be a list"),
    "dotted key": (PRIMARY + "agent.gamma: 0.9\n", ", line 4: the key 'agent.gamma' has dots"),
    "part as a value": (PRIMARY + "agent: c51\n", "write '- override /agent: c51' under 'defaults:'"),
    "second choice": ("defaults:\n  - config\n  - agent: c51\n", "write '- override /agent: c51' instead of"),
}


@pytest.mark.parametrize("mistake", PRIMARIES)
def test_a_mistake_in_a_whole_configuration_is_named_with_the_file(
    program: Callable[..., Outcome], tmp_path: Path, mistake: str
) -> None:
    content, message = PRIMARIES[mistake]
    write(tmp_path / "mine" / "lab.yaml", content)
    error = program("--config-dir=mine", "--config-name=lab", "trainer.max_steps=20").error
    assert error.startswith("mine/lab.yaml")
    assert message in error


@pytest.mark.parametrize("choice", ["- override agent: c51", "- override /agent: c51"])
def test_a_whole_configuration_overrides_a_part_with_or_without_a_slash(
    program: Callable[..., Outcome], tmp_path: Path, choice: str
) -> None:
    write(tmp_path / "mine" / "lab.yaml", f"defaults:\n  - config\n  {choice}\n  - _self_\nseed: 7\n")
    done = program("--config-dir=mine", "--config-name=lab", "--cfg=job")
    assert "num_atoms" in done.out
    assert "seed: 7" in done.out


def test_an_option_is_not_a_whole_configuration(program: Callable[..., Outcome], tmp_path: Path) -> None:
    write(tmp_path / "mine" / "experiment" / "my.yaml", GLOBAL + "seed: 3\n")
    error = program("--config-dir=mine", "--config-name=experiment/my").error
    assert error.endswith("is an option and no whole configuration; choose it by experiment=my")


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "--config-dir=mine", "experiment=good,bad", "trainer.max_steps=20"),
        ("hydra.searchpath=[file://mine]", "experiment=bad"),
        ("--config-dir=mine", "experiment=by_name"),
        ("--config-dir=mine", "agent=by_part"),
    ],
)
def test_a_file_is_checked_however_it_is_chosen(
    program: Callable[..., Outcome], tmp_path: Path, command: tuple[str, ...]
) -> None:
    bad = "foo.bar: 3\n"
    write(tmp_path / "mine" / "experiment" / "good.yaml", GLOBAL + "seed: 3\n")
    write(tmp_path / "mine" / "experiment" / "bad.yaml", GLOBAL + bad)
    write(tmp_path / "mine" / "experiment" / "by_name.yaml", GLOBAL + "defaults:\n  - bad\n  - _self_\n")
    part = "defaults:\n  - dqn\n  - override loss: bad\n  - _self_\n"
    write(tmp_path / "mine" / "agent" / "by_part.yaml", part)
    write(tmp_path / "mine" / "agent" / "loss" / "bad.yaml", bad)
    assert "bad.yaml, line" in program(*command).error
    assert not [*tmp_path.rglob("checkpoints")]


def test_files_that_choose_each_other_are_named(program: Callable[..., Outcome], tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        write(tmp_path / "mine" / "env" / f"{name}.yaml", f"defaults:\n  - {other}\n  - _self_\nseed: 3\n")
    assert program("--config-dir=mine", "env=a").error.endswith("without end: env/a -> env/b -> env/a")
    write(tmp_path / "mine" / "lab.yaml", "defaults:\n  - lab\n  - _self_\n")
    assert program("--config-dir=mine", "--config-name=lab").error.endswith("without end: lab -> lab")


def test_an_experiment_adds_another_but_cannot_replace_itself(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    write(tmp_path / "mine" / "experiment" / "other.yaml", GLOBAL + "seed: 3\n")
    write(tmp_path / "mine" / "experiment" / "my.yaml", GLOBAL + "defaults: [override /experiment: other]\n")
    assert program("--config-dir=mine", "experiment=my").error.endswith("write '- other' to add its settings")
    write(tmp_path / "mine" / "experiment" / "my.yaml", GLOBAL + "defaults: [other]\n")
    assert "\nseed: 3\n" in program("--config-dir=mine", "experiment=my", "--cfg=job").out


def test_a_key_of_a_callback_may_have_a_slash(program: Callable[..., Outcome], tmp_path: Path) -> None:
    content = "mine:\n  _target_: my_pkg.My\n  limits: {eval/return_mean: 3}\n"
    write(tmp_path / "mine" / "callbacks" / "my.yaml", content)
    assert program("--config-dir=mine", "callbacks=[my]", "--cfg=job").status == 0


def test_a_defaults_list_is_never_suggested_as_a_setting(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    write(tmp_path / "mine" / "agent" / "loss" / "my.yaml", "defaults: [q_learning]\ndefault: 3\n")
    error = program("--config-dir=mine", "agent/loss=my").error
    assert error.startswith("unknown key 'agent.loss.default'")
    assert "defaults'" not in error
