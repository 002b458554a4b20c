"""Kills a sweep at random moments until it ends, and compares it with an uninterrupted one.

    python -m tests.soak.sweeps --kills 15 --seed 0

A sweep of 6 trials with 2 seeds each and a pruner runs one job at a time. At random times it gets SIGKILL,
and its command is repeated; or its job gets SIGKILL, and the sweep restarts the job. At the end, its study
(numbers, settings, states, values, reports) and the files of its runs (records, weights, replay, checkpoints)
must equal those of the uninterrupted sweep. Sweeps are repeated until the number of kills is reached. The
exit status is 1 if any sweep differs.
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
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from dqn_runner.sweep.storages.factory import open_storage
from dqn_runner.sweep.trial_record import RunState, TrialRecord
from tests.conftest import BUDGET, environment
from tests.support import crash

COMMAND = (
    sys.executable,
    "-m",
    "dqn_runner",
    "-m",
    "hydra/sweeper=optuna",
    "hydra.sweep.dir=sweep",
    *BUDGET,
    "logging=[file,jsonl]",
    "agent.learning_rate=tag(log,interval(1e-4,1e-2))",
    "agent.gamma=choice(0.9,0.99)",
    "hydra.sweeper.n_trials=6",
    "hydra.sweeper.seeds=2",
    "hydra.sweeper.sampler.n_startup_trials=2",
    "hydra/sweeper/pruner=median",
    "hydra.sweeper.pruner.n_startup_trials=1",
    "hydra.sweeper.max_restarts=100",
)


def start(cwd: Path) -> subprocess.Popen[bytes]:
    with (cwd / "output").open("ab") as output:
        return subprocess.Popen(
            COMMAND, cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


def job_of(sweep: int) -> int | None:
    """The process of the running job of a sweep."""
    threads = Path(f"/proc/{sweep}/task").iterdir()
    found = [pid for thread in threads for pid in _read(thread / "children").split()]
    assert len(found) <= 1, f"one job at a time, not {found}"
    return int(found[0]) if found else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:  # the thread has ended
        return ""


def killed(cwd: Path, kills: int, longest: float, rng: random.Random) -> int:
    """Run the sweep until it ends, with at most this number of kills; returns their number."""
    process, made = start(cwd), 0
    while made < kills:
        try:
            process.wait(rng.uniform(0.5, longest))
            break
        except subprocess.TimeoutExpired:
            made += 1
        job = job_of(process.pid)
        if job is not None and rng.random() < 0.5:
            os.kill(job, signal.SIGKILL)
            what = "the job"
        else:
            process.kill()
            process.wait()
            what = "the sweep"
            process = start(cwd)
        print(f"  killed {what}", flush=True)
    assert process.wait() == 0, (cwd / "output").read_text()
    return made


def trials_of(cwd: Path) -> list[FrozenTrial]:
    storage = open_storage(str(cwd / "sweep" / "study.journal"))
    return optuna.load_study(study_name="sweep", storage=storage).trials


def content(trial: FrozenTrial) -> dict[str, Any]:
    """The content of a trial in a study, without times and identifiers of processes."""
    record = TrialRecord(trial)
    runs = [run.to_json() for run in record.runs]
    for run in runs:
        run["metrics"].pop("seconds", None)
        del run["directory"]
    return {
        "number": trial.number,
        "state": trial.state.name,
        "params": trial.params,
        "values": trial.values,
        "reports": dict(sorted(trial.intermediate_values.items())),
        "pruned": record.reason(RunState.PRUNED),
        "overrides": record.overrides,
        "runs": runs,
    }


def differences(one: Path, two: Path) -> list[str]:
    """The differences between the sweeps in two directories."""
    a, b = ([content(trial) for trial in trials_of(cwd)] for cwd in (one, two))
    if len(a) != len(b):
        return [f"{len(a)} and {len(b)} trials"]
    pairs = zip(a, b, strict=True)
    found = [
        f"trial {x['number']}: {key} {x[key]} and {y[key]}" for x, y in pairs for key in x if x[key] != y[key]
    ]
    runs = [sorted(str(path.relative_to(cwd)) for path in cwd.glob("sweep/*/seed_*")) for cwd in (one, two)]
    if runs[0] != runs[1]:
        return [*found, f"the runs {runs[0]} and {runs[1]}"]
    return found + [f"{run}: {line}" for run in runs[0] for line in crash.differences(one / run, two / run)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, made, exact = random.Random(arguments.seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        whole, again = Path(folder, "whole"), Path(folder, "killed")
        whole.mkdir()
        started = time.monotonic()
        assert start(whole).wait() == 0, (whole / "output").read_text()
        seconds = time.monotonic() - started
        states = [trial.state.name for trial in trials_of(whole)]
        print(f"uninterrupted: {seconds:.0f} s, {states}", flush=True)
        while made < arguments.kills:
            again.mkdir()
            kills = killed(again, arguments.kills - made, seconds / 4, rng)
            found = differences(whole, again)
            made += kills
            exact += 0 if found else kills
            print(f"a sweep after {kills} kills: {found or 'exact'}", flush=True)
            shutil.rmtree(again)
    print(f"{exact} of {made} kills survived exactly")
    return int(exact != made)


if __name__ == "__main__":
    sys.exit(main())
