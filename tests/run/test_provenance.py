"""run.json records what it can find; nothing that it looks for stops a run."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dqn_runner.io.json_io import read_json
from dqn_runner.run import provenance
from dqn_runner.run.provenance import git_state
from tests.conftest import Outcome

SHORT = ("trainer.max_steps=40", "trainer.eval_episodes=1", "logging=[file]")
IDENTITY = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")


def git(directory: Path, *arguments: str) -> None:
    subprocess.run(["git", *IDENTITY, "-C", str(directory), *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit of the file `data`."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "data").write_bytes(b"before\n")
    git(tmp_path, "add", "data")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def state_of(directory: Path) -> dict[str, Any]:
    state = git_state(directory)
    assert state is not None
    return state


def fake_git(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "bin").mkdir()
    program = directory / "bin" / "git"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory / 'bin'}{os.pathsep}{os.environ['PATH']}")


def test_a_run_in_a_work_tree_with_bytes_that_are_not_utf8_records_them_escaped(
    repository: Path, program: Callable[..., Outcome]
) -> None:
    (repository / "data").write_bytes(b"caf\xe9\n")
    (repository / os.fsdecode(b"new\xff")).touch()
    done = program(*SHORT, "hydra.run.dir=run")
    assert done.status == 0, done.err
    state = read_json(repository / "run" / "run.json")["sessions"][0]["git"]
    assert "-before\n+caf\\xe9\n" in state["diff"]
    assert "new\\xff" in state["untracked"]


def test_a_repository_without_a_commit_has_no_commit_and_no_diff(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "new").touch()
    assert state_of(tmp_path) == {"commit": None, "diff": None, "untracked": ["new"]}


def test_a_bare_repository_has_a_commit_only(repository: Path) -> None:
    git(repository, "clone", "--quiet", "--bare", ".", "bare.git")
    state = state_of(repository / "bare.git")
    assert len(state["commit"]) == 40
    assert state["diff"] is None


def test_a_change_in_a_submodule_is_recorded(repository: Path) -> None:
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "--quiet", "./.git", "part")
    git(repository, "commit", "--quiet", "--all", "--message", "second")
    (repository / "part" / "data").write_bytes(b"changed\xff\n")
    assert "Subproject commit" in state_of(repository)["diff"]


def test_a_huge_diff_is_cut(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "GIT_LIMIT", 1000)
    (repository / "data").write_text("line\n" * 100_000)
    diff = state_of(repository)["diff"]
    assert diff.endswith("[cut after 1000 bytes]")
    assert len(diff) < 1100


def test_no_program_of_the_repository_is_run_for_the_diff(repository: Path) -> None:
    git(repository, "config", "diff.external", "touch ran; true")
    (repository / "data").write_bytes(b"after\n")
    assert "+after" in state_of(repository)["diff"]
    assert not (repository / "ran").exists()


@pytest.mark.parametrize("script", ["exit 128", "kill -9 $$", "printf '\\377' >&2; exit 1"])
def test_a_git_that_fails_gives_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    fake_git(tmp_path, script, monkeypatch)
    assert git_state(tmp_path) is None


def test_a_git_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "GIT_SECONDS", 0.1)
    fake_git(tmp_path, "sleep 60 & sleep 60", monkeypatch)
    before = time.monotonic()
    assert git_state(tmp_path) is None
    assert time.monotonic() - before < 30


def test_without_git_there_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None


class Nameless:
    """An installed package whose metadata is damaged."""

    def read_text(self, filename: str) -> str | None:
        return None if filename == "METADATA" else "Summary: no name\n\nName: of the text\n"


@pytest.mark.parametrize("broken", ["hostname", "platform", "packages", "git", "directory"])
def test_what_can_be_found_is_recorded_if_a_part_of_the_provenance_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("out of order")

    owner, name = {
        "hostname": (socket, "gethostname"),
        "platform": (platform, "platform"),
        "packages": (provenance, "distributions"),
        "git": (provenance, "git_state"),
        "directory": (provenance.os, "getcwd"),
    }[broken]
    monkeypatch.setattr(owner, name, fail)
    provenance.record_session(tmp_path, {"seed": 0}, [], [], [])
    (session,) = read_json(tmp_path / "run.json")["sessions"]
    assert session["config_hash"]
    assert None in (session["git"], session["packages"], session["directory"], *session["hardware"].values())


def test_a_package_without_a_name_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(provenance, "distributions", lambda: [Nameless()])
    provenance.record_session(tmp_path, {"seed": 0}, [], [], [])
    assert read_json(tmp_path / "run.json")["sessions"][0]["packages"] == {}
