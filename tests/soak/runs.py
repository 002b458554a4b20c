"""Kills the program at random moments, and counts the runs that resume exactly.

    python -m tests.soak.runs --kills 200 --seed 0
    python -m tests.soak.runs --kills 20 compile=on

Further arguments are settings of every run. Each run is killed once by SIGKILL at a random moment (of
wall-clock time, between disk operations, in the middle of a write, or between env steps). The same command
then resumes it, and its directory is compared with that of an uninterrupted run. Exit code 1 if any differs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.end_to_end.test_exact import BUDGET, ENVS, EXPLORATION, STEPS
from tests.support import crash
from tests.support.crash import Kill
from tests.support.probes import agent_options, short_schedule

DELAY = "delay"


class UninterruptedRun:
    """A run that is not killed, with its duration and its number of disk operations."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        cwd.mkdir(parents=True)
        start = time.perf_counter()
        assert crash.run(command, cwd) == 0, (cwd / "output").read_text()
        self.seconds = time.perf_counter() - start
        self.run_dir = cwd / "run"
        self.operations = crash.operations(cwd)


def run_killed(command: list[str], cwd: Path, reference: UninterruptedRun, rng: random.Random) -> str:
    """Run `command`, and kill it at a random moment, which is returned; repeat if it ends before that."""
    while True:
        cwd.mkdir(parents=True)
        what = rng.choice([DELAY, DELAY, "operation", "write", "checkpoint", "step"])
        if what == DELAY:
            seconds = rng.uniform(0.1, 1.0) * reference.seconds
            process = crash.start(command, cwd)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            if process.poll() is None and (cwd / "pid").exists():
                os.kill(crash.process_id(cwd), signal.SIGKILL)
            moment, status = f"after {seconds:.2f} s", process.wait()
        else:
            number = rng.randrange(1, STEPS if what == "step" else reference.operations)
            moment, status = f"at {what} {number}", crash.run(command, cwd, Kill(what, number))
        if status == -signal.SIGKILL:
            return moment
        assert status == 0, (cwd / "output").read_text()
        shutil.rmtree(cwd)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    exact = 0
    with tempfile.TemporaryDirectory() as folder:
        references: dict[str, UninterruptedRun] = {}
        for number in range(1, arguments.kills + 1):
            option, env = rng.choice(agent_options()), rng.choice(list(ENVS))
            name = f"{option} on {env}"
            command = [f"agent={option}", *ENVS[env], *BUDGET, *short_schedule(option, EXPLORATION)]
            command += arguments.overrides
            if name not in references:
                references[name] = UninterruptedRun(command, Path(folder) / "uninterrupted" / name)
            cwd = Path(folder) / "killed"
            moment = run_killed(command, cwd, references[name], rng)
            status = crash.run(command, cwd)
            found = [f"exit status {status}: {(cwd / 'output').read_text()[-500:]}"] if status else []
            found = found or crash.differences(references[name].run_dir, cwd / "run")
            exact += not found
            print(f"{number}/{arguments.kills} {name}, killed {moment}: {found or 'exact'}", flush=True)
            shutil.rmtree(cwd)
    print(f"{exact} of {arguments.kills} exact")
    return int(exact != arguments.kills)


if __name__ == "__main__":
    sys.exit(main())
