"""Every setting of the other program is in the table of its page, and every name of ours exists."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqn_runner.config.other_names import what_to_write
from tests.coming_from.pages import PAGES, ROOT, code, names, rows, section

SB3 = "stable-baselines3"
INTERNAL = {"self", "observation_space", "action_space", "lr_schedule"}
"""Arguments that stable-baselines3 passes itself."""

REFERENCE = (ROOT / "docs" / "reference.md").read_text()
KEYS = set(re.findall(r"^\| `([^`]+)` \|", REFERENCE, re.MULTILINE))
OPTIONS = set(re.findall(r"`([a-z_/]+=[a-z0-9_]+)`", REFERENCE))
GROUPS = ("agent", "env", "trainer", "evaluator", "logging", "callbacks", "hydra")
LOOSE = (
    *("hydra.run.dir", "hydra.sweep.dir", "env.kwargs.", "agent.optimizer.", "callbacks.", "study."),
    *("hydra.sweeper.sampler.", "hydra.sweeper.pruner.", "logging.console."),
)
"""Keys that the reference has no row for, or only as those of a part."""


def arguments(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) - INTERNAL


def sb3_arguments() -> dict[str, set[str]]:
    """The arguments, methods and classes of stable-baselines3, by the heading of their table."""
    from sb3_contrib.qrdqn.policies import QRDQNPolicy
    from stable_baselines3 import DQN
    from stable_baselines3.common import callbacks, vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    wrappers = {
        "DummyVecEnv",
        "SubprocVecEnv",
        *(n for n in vec_env.__all__ if re.fullmatch("Vec[A-Z].*", n)),
    }
    kinds = [kind for kind in vars(callbacks).values() if inspect.isclass(kind)]
    return {
        "Arguments of `DQN`": arguments(DQN.__init__),
        "`policy_kwargs`": arguments(QRDQNPolicy.__init__),
        "Arguments of `learn`": arguments(DQN.learn),
        "Methods": {name for name in dir(DQN) if not name.startswith("_") and callable(getattr(DQN, name))},
        "`evaluate_policy`": arguments(evaluate_policy),
        "Callbacks": {kind.__name__ for kind in kinds if issubclass(kind, callbacks.BaseCallback)},
        "`EvalCallback`": arguments(callbacks.EvalCallback.__init__),
        "`CheckpointCallback`": arguments(callbacks.CheckpointCallback.__init__),
        "Environments and wrappers": {
            *(wrappers - {"VecEnv", "VecEnvWrapper"}),
            *("make_vec_env", "make_atari_env", "Monitor", "AtariWrapper"),
        },
    }


@pytest.mark.slow  # stable-baselines3 takes seconds to import
def test_tables_of_stable_baselines3_are_complete() -> None:
    from sb3_contrib import QRDQN
    from stable_baselines3 import DQN

    for heading, theirs in sb3_arguments().items():
        assert names(SB3, heading) == theirs, heading
    assert arguments(QRDQN.__init__) == arguments(DQN.__init__)


@pytest.mark.parametrize("name", sorted(names(SB3, "Arguments of `DQN`") | names("cleanrl", "Arguments")))
def test_the_program_knows_the_names_of_other_programs(name: str) -> None:
    """A setting that is typed under its name there is answered with what to write."""
    ours = {key.rpartition(".")[2] for key in KEYS}
    assert what_to_write(name) or name in ours or name == "env" or name.startswith("_")


def options_of(script: Path) -> set[str]:
    """The long options that a script gives to argparse."""
    calls = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Call)]
    added = [call for call in calls if getattr(call.func, "attr", "") == "add_argument"]
    texts = [arg.value for call in added for arg in call.args if isinstance(arg, ast.Constant)]
    return {text for text in texts if isinstance(text, str) and text.startswith("--")}


@pytest.mark.parametrize("script", ["train", "enjoy"])
def test_tables_of_the_zoo_have_every_option(zoo: Path, script: str) -> None:
    assert names("rl-zoo", f"Options of `{script}`") == options_of(zoo / f"{script}.py")


def test_table_of_the_zoo_has_every_key_of_a_file(zoo: Path) -> None:
    """Those that its manager reads, and those that its files for DQN contain."""
    source = (zoo / "exp_manager.py").read_text()
    manager = set(re.findall(r'hyperparams(?:\.get\(|\[)"(\w+)"', source)) - {"env_id"}
    in_file = set(re.findall(r"^  (\w+):", (zoo / "hyperparams" / "dqn.yml").read_text(), re.MULTILINE))
    ours = names("rl-zoo", "Keys of `hyperparams/dqn.yml`") | names(SB3, "Arguments of `DQN`")
    assert manager | in_file <= ours | {"action_noise"}


def fields_of(module: Path) -> dict[str, set[str]]:
    """The fields of each dataclass of a module, which is not imported: it would register its options."""
    classes = [node for node in ast.parse(module.read_text()).body if isinstance(node, ast.ClassDef)]
    return {
        node.name: {line.target.id for line in node.body if isinstance(line, ast.AnnAssign)}  # type: ignore[union-attr]
        for node in classes
    }


def test_tables_of_the_optuna_sweeper_are_complete(published: Path) -> None:
    fields = fields_of(published / "config.py")
    assert names("hydra-optuna-sweeper", "Settings") == fields.pop("OptunaSweeperConf")
    samplers = {
        code(row[0])[0]: set(code(row[1]))
        for row in rows(section("hydra-optuna-sweeper", "Samplers"))
        if code(row[0])
    }
    theirs = {
        name.removesuffix("SamplerConfig").lower(): found - {"_target_", "_partial_"}
        for name, found in fields.items()
        if name.endswith("SamplerConfig") and name != "SamplerConfig"
    }
    assert samplers == theirs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_name_of_ours_exists(page: Path) -> None:
    for row in rows(page.read_text()):
        for span in [span for cell in row[1:] for span in code(cell)]:
            for word in span.split():
                check_name(word)


def check_name(word: str) -> None:
    """Fail if a word looks like a setting of ours and is none."""
    key, _, value = word.partition("=")
    root = re.split(r"[./]", key)[0]
    if root not in GROUPS or root == word or (key == root and value.startswith("[")):
        return
    if "/" in key or key == root:
        assert f"{key}={value}" in OPTIONS or not value or value.isupper(), word
    else:
        assert key in KEYS or key.startswith(LOOSE), word
