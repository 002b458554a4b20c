"""The package works without what only POSIX systems have: fcntl, resource, some signals, flags of `open`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHOUT_POSIX = """
import os, select, signal, sys
import filelock, multiprocessing.util, psutil, subprocess, torch  # they have their own code for Windows
from matplotlib import pyplot
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "pthread_sigmask"):
    delattr(signal, name)
signal.Signals = type("Signals", (), {"__members__": {n: signal.Signals[n] for n in ("SIGINT", "SIGTERM")},
    "__class_getitem__": staticmethod({n: signal.Signals[n] for n in ("SIGINT", "SIGTERM")}.__getitem__)})
for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_DIRECTORY", "fork", "mkfifo", "getuid", "geteuid", "pwrite"):
    delattr(os, name)
del select.poll
"""


@pytest.mark.slow
@pytest.mark.nightly  # test_no_module_imports_what_windows_lacks_at_its_top is quick
def test_a_run_trains_resumes_and_is_evaluated(tmp_path: Path) -> None:
    budget = [
        "trainer.max_steps=60",
        "trainer.eval_episodes=1",
        "agent.learning_starts=20",
        "logging=[jsonl]",
    ]
    budget += ["agent.exploration.schedule.steps=30", "hydra.run.dir=run"]
    commands = (budget, ["resume=run", "trainer.max_steps=90"], ["mode=eval", "checkpoint=run"])
    program = [f"sys.argv[1:] = {command}\nmain()\n" for command in commands]
    script = "".join([WITHOUT_POSIX, "from dqn_runner.cli.main import main\n", *program])
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["env_steps"] == 90
    assert done.stdout.rstrip().endswith("eval.json")


def test_no_module_imports_what_windows_lacks_at_its_top() -> None:
    pattern = re.compile(r"^(?:import|from) (?:fcntl|resource|pwd|grp|termios)\b", re.MULTILINE)
    found = [path.name for path in (ROOT / "dqn_runner").rglob("*.py") if pattern.search(path.read_text())]
    assert found == []
