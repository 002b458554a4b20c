"""Compiled updates: when a run has them, and that their libraries are shared, checked and built again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dqn_runner.agent import compiled
from dqn_runner.agent.compiled import choice, library, program
from dqn_runner.agent.compiled.choice import LARGE_PARAMETERS, WORTH_UPDATES, choose_update
from dqn_runner.agent.compiled.library import BuildError
from dqn_runner.agent.compiled.program import UpdateProgram, update_program
from dqn_runner.agent.config import DQNConfig
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.agent.networks.architectures import Mlp
from dqn_runner.agent.optimizers import RMSprop
from dqn_runner.agent.update_noise import NoiseRequirements
from dqn_runner.core.exceptions import UserError
from dqn_runner.io.json_io import read_json
from tests.conftest import Outcome, records

CONFIG = DQNConfig(state_dim=4, action_dim=2, batch_size=16, network=Mlp(hidden=[8]))
PROGRAM = update_program(CONFIG, "float32", False, NoiseRequirements(2, 0), 1)


@dataclass(kw_only=True)
class OwnLoss(QLearning):
    """A loss of a user, whose source the cache cannot know."""


OWN = replace(PROGRAM, config=replace(CONFIG, loss=OwnLoss()))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(library.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is built, by a compiler that writes a text; libraries are not loaded."""
    found: list[str] = []

    def build(_: UpdateProgram, directory: Path, key: str) -> Path:
        found.append(key)
        content = f"library {len(found)}".encode()
        path = directory / f"{key}-{library._digest(content)}.so"
        path.write_bytes(content)
        return path

    monkeypatch.setattr(library, "_build", build)
    monkeypatch.setattr(choice, "load_library", lambda path: path)
    monkeypatch.setattr(choice, "CompiledUpdate", lambda run, _: run)
    return found


class TestChoice:
    """Arguments: the setting, the updates of the run, how it was begun."""

    @pytest.mark.parametrize(
        ("setting", "updates", "begun", "compiled"),
        [
            ("auto", WORTH_UPDATES, None, True),
            ("auto", WORTH_UPDATES - 1, None, False),
            ("auto", None, None, False),
            ("auto", 10, True, True),
            ("auto", WORTH_UPDATES, False, False),
            (True, 10, None, True),
            (True, 10, False, True),
            (False, WORTH_UPDATES, None, False),
            (False, WORTH_UPDATES, True, False),
        ],
    )
    def test_settings_and_the_beginning_of_the_run_decide(
        self,
        setting: bool | str,
        updates: int | None,
        begun: bool | None,
        compiled: bool,
        builds: list[str],
        warnings: list[str],
    ) -> None:
        for _ in range(2):  # the second time with the library in the cache
            assert (choose_update(PROGRAM, setting, 100, updates, begun) is not None) == compiled
        assert len(builds) == int(compiled)
        changed = begun is not None and compiled != begun
        assert [message.endswith("differs in rounding") for message in warnings] == [True, True] * changed

    def test_auto_leaves_large_networks_and_parts_of_the_user_alone(self, builds: list[str]) -> None:
        assert choose_update(PROGRAM, "auto", LARGE_PARAMETERS + 1, WORTH_UPDATES, None) is None
        assert choose_update(OWN, "auto", 100, WORTH_UPDATES, None) is None
        with pytest.raises(UserError, match=r"not tests.agent.test_compiled.OwnLoss; set agent.compile=off"):
            choose_update(OWN, True, 100, WORTH_UPDATES, None)
        assert builds == []
        bfloat16 = replace(PROGRAM, config=replace(CONFIG, precision="bfloat16"))
        assert choose_update(bfloat16, "auto", LARGE_PARAMETERS + 1, WORTH_UPDATES, None) is not None

    def test_without_a_compiler_a_new_run_is_not_compiled_and_an_old_one_says_why_it_cannot_resume(
        self, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
    ) -> None:
        monkeypatch.setenv("PATH", "")
        assert choose_update(PROGRAM, True, 100, 10, None) is None
        assert warnings == [
            "the update is not compiled: the C++ compiler g++ is missing; install it, or set compile=off"
        ]
        with pytest.raises(UserError, match=r"g\+\+ is missing; .* With compile=off it resumes without"):
            choose_update(PROGRAM, "auto", 100, 10, True)


class TestLibrary:
    def test_it_is_built_once_and_again_if_it_is_damaged(
        self, builds: list[str], warnings: list[str]
    ) -> None:
        path = library.library(PROGRAM, "key")
        assert library.library(PROGRAM, "key") == path
        path.write_bytes(b"library X")
        again = library.library(PROGRAM, "key")
        assert again != path
        assert not path.exists()
        assert builds == ["key", "key"]
        assert warnings == [f"{path} is damaged; it is built again"]

    def test_of_several_that_want_it_at_once_one_builds_it(self, builds: list[str]) -> None:
        paths: list[Path] = []
        threads = [
            threading.Thread(target=lambda: paths.append(library.library(PROGRAM, "key"))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert builds == ["key"]
        assert len(paths) == 8
        assert len(set(paths)) == 1

    def test_a_build_that_fails_says_its_last_line_and_leaves_nothing(
        self, monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "broken_build.py").write_text("raise SystemExit('no space for the object file')")
        monkeypatch.setattr(library, "BUILD", "broken_build")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(BuildError, match="ended with status 1: no space for the object file"):
            library.library(PROGRAM, "key")
        assert not list(cache.glob("*.so"))

    def test_a_cache_that_cannot_be_used_is_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv(library.CACHE, str(tmp_path / "file"))
        with pytest.raises(BuildError, match=r"file cannot be used: .*; DQN_RUNNER_CACHE names another"):
            library.library(PROGRAM, "key")

    def test_the_build_stops_when_the_process_that_wants_it_has_ended(self, tmp_path: Path) -> None:
        """Its standard input closes; it deletes its folder."""
        folder = tmp_path / "folder"
        folder.mkdir()
        script = (
            "from pathlib import Path; from dqn_runner.agent.compiled import build; "
            f"build._stop_with_stdin(Path({str(folder)!r}))"
        )
        done = subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 1
        assert not folder.exists()


def test_the_key_differs_where_the_code_may_differ_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(compiler: str = "g++ 12", **changes: Any) -> str:
        return update_program(replace(CONFIG, **changes), "float32", False, PROGRAM.noise, 1).key(compiler)

    same = [key(), key(seed=5), key(learning_rate=0.5), key(tau=0.1), key(n_step=3)]
    assert len(set(same)) == 1
    others = [
        key("g++ 13"),
        key(batch_size=17),
        key(network=Mlp(hidden=[9])),
        key(loss=QLearning(error="squared")),  # pyright: ignore[reportArgumentType]
        key(optimizer=RMSprop()),
        key(max_grad_norm=None),
        update_program(CONFIG, "uint8", False, PROGRAM.noise, 1).key("g++ 12"),
        update_program(CONFIG, "float32", False, PROGRAM.noise, 2).key("g++ 12"),
    ]
    monkeypatch.setattr(program.torch, "__version__", "3.0")
    others.append(key())
    monkeypatch.setattr(program, "_digest_of_sources", lambda: "changed")
    others.append(key())
    assert len({same[0], *others}) == 1 + len(others)


RUN = (
    *("compile=on", "trainer.max_steps=400", "trainer.eval_frequency=200", "trainer.eval_episodes=1"),
    *("trainer.checkpoint_frequency=100", "trainer.log_frequency=50", "trainer.target_return=null"),
    *("agent.learning_starts=50", "agent.exploration.schedule.steps=100", "agent.network.hidden=[8]"),
    *("agent/network=mlp", "agent.batch_size=16", "logging=[file,jsonl]"),
)


@pytest.fixture
def compiler_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the arguments of each call of g++, a line each."""
    log, wrapper = tmp_path / "calls", tmp_path / "bin" / "g++"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {shutil.which("g++")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")
    return log


@pytest.mark.slow
def test_a_compiled_run_is_repeatable_resumes_exactly_and_agrees_with_one_that_is_not(
    program: Callable[..., Outcome], tmp_path: Path, cache: Path, compiler_log: Path
) -> None:
    for name, changes in {
        "whole": (),
        "repeated": (),
        "parts": ("trainer.max_steps=200",),
        "plain": ("compile=off",),
    }.items():
        done = program(*RUN, *changes, f"hydra.run.dir={name}")
        assert done.status == 0, done.err
    assert len(list(cache.glob("*.so"))) == 1
    calls = compiler_log.read_text()
    assert ".wrapper.cpp" in calls
    assert "c++-header" not in calls, "a precompiled header takes 15 seconds, and is used once"
    done = program("resume=parts", "trainer.max_steps=400")
    assert done.status == 0, done.err
    whole = records(tmp_path / "whole")
    assert records(tmp_path / "repeated") == whole
    assert records(tmp_path / "parts")[-3:] == whole[-3:]
    log = (tmp_path / "whole" / "logs" / "training.log").read_text()
    assert "the update is compiled, once for all runs" in log
    assert "the compiled update is in the cache" in (tmp_path / "parts/logs/training.log").read_text()
    first, plain = (
        next(r for r in records(tmp_path / name) if "train/loss" in r) for name in ("whole", "plain")
    )
    assert first["train/loss"] == pytest.approx(plain["train/loss"], rel=1e-4)
    assert read_json(tmp_path / "whole" / "run.json")["config"]["compile"] == "on"
    os.environ["PATH"], path = "", os.environ["PATH"]
    try:
        rejected = program("resume=whole", "trainer.max_steps=500")
    finally:
        os.environ["PATH"] = path
    assert "With compile=off it resumes without" in rejected.error


def test_the_directory_of_the_cache_follows_the_conventions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled.library.cache_directory() == Path(os.environ[library.CACHE])
    monkeypatch.delenv(library.CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert library.cache_directory() == Path("/x/dqn_runner")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert library.cache_directory() == Path.home() / ".cache" / "dqn_runner"
