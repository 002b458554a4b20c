"""Measures the cost of checkpoints: stalls of training, bytes written, share of a run's time, time to resume.

    python benchmarks/checkpoint.py --repeats 5 --json checkpoint.json

Each run is the program in a new process, on CartPole; its replay is filled before the first step, which takes
seconds instead of hours. Prints tables in Markdown. README.md in this folder explains what they contain.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from checkpoint_tables import RESUMES, SHARES, STALLS, resume_row, share_row, stall_rows, table
from machine import machine

REPLAYS = ("uniform", "prioritized")
SIZES = (50_000, 1_000_000)
EVERY = 10_000
"""Env steps between checkpoints."""
NEVER = 10**9
STEPS = 65_000
"""Env steps of a run; its end includes the last write completely."""
MORE = 1_000
"""Env steps that a resumed run continues for."""
RESUMING = "resuming from"
"""Start of the message that a resumed run logs before its first step."""
RUN = (
    "env=cartpole",
    f"trainer.eval_frequency={NEVER}",  # no best.pt: the numbered checkpoints are the only ones
    "trainer.eval_episodes=1",
    "trainer.target_return=null",
    "trainer.early_stopping=false",
    "agent.exploration.schedule.steps=10000",
)
FILL, RESULT = "BENCHMARK_FILL", "BENCHMARK_RESULT"
"""Environment variables: transitions to fill the replay with, and the file for the timeline."""


# Code that runs in the measured process


@dataclass
class Timeline:
    """Times of one process, in seconds of its clocks."""

    building: float = 0.0
    """Time before the trainer is built."""
    first_step: float = 0.0
    """Time after the first steps, up to the first training iteration."""
    started: float = 0.0
    ended: float = 0.0
    """Time at the start and the end of the training loop, without the final evaluation."""
    started_cpu: float = 0.0
    ended_cpu: float = 0.0
    """The same in CPU time of all threads."""
    stalls: list[float] = field(default_factory=list[float])
    """Per checkpoint: how long training was stopped, including the wait for the previous write."""
    writing: list[float] = field(default_factory=list[float])
    """Per checkpoint: CPU time of the thread that wrote it."""
    writes: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """Name and bytes of every file: the new segments of a checkpoint, then the checkpoint."""


def run_here(overrides: Sequence[str]) -> None:
    """Run the program with `overrides`, and record a Timeline."""
    from dqn_runner.checkpointing.checkpointer import Checkpointer
    from dqn_runner.cli import main
    from dqn_runner.config import build
    from dqn_runner.io import files

    timeline = Timeline()
    build_trainer, write_atomically = build.build_trainer, files.write_atomically
    write_checkpoint: Any = Checkpointer._write

    def build_watched(*args: Any) -> Any:
        timeline.building = time.perf_counter()
        trainer = build_trainer(*args)
        fill(trainer, int(os.environ[FILL]))
        watch(trainer, timeline)
        return trainer

    def write_counted(path: Path, content: bytes) -> None:
        write_atomically(path, content)
        timeline.writes.append((path.name, len(content)))

    def write_timed(*args: Any) -> None:
        start = time.thread_time()
        write_checkpoint(*args)
        timeline.writing.append(time.thread_time() - start)

    build.build_trainer, files.write_atomically = build_watched, write_counted
    Checkpointer._write = write_timed
    sys.argv[1:] = overrides
    main.main()
    Path(os.environ[RESULT]).write_text(json.dumps(asdict(timeline)))


def fill(trainer: Any, transitions: int) -> None:
    """Fill the replay with random transitions; only their number matters here."""
    import numpy as np

    obs = np.random.default_rng(0).standard_normal((1024, 4), dtype=np.float32)
    for i in range(transitions):
        row = i % 1023
        trainer.replay.add(0, obs[row], row % 2, 1.0, i % 200 == 199, False, obs[row + 1])


def watch(trainer: Any, timeline: Timeline) -> None:
    """Record the time when the trainer starts and ends its loop, and the duration of each checkpoint."""
    loop, finish, collect = trainer._event_loop, trainer._finish, trainer.collector.collect
    write = trainer._saver._write

    def timed_loop() -> str:
        timeline.started, timeline.started_cpu = time.perf_counter(), time.process_time()
        return loop()

    def timed_finish(*args: Any) -> Any:
        timeline.ended, timeline.ended_cpu = time.perf_counter(), time.process_time()
        return finish(*args)

    def timed_collect(*args: Any) -> None:
        collect(*args)
        timeline.first_step = time.perf_counter()
        trainer.collector.collect = collect  # only the first call is timed

    def timed_write(*args: Any) -> None:
        start = time.perf_counter()
        write(*args)
        timeline.stalls.append(time.perf_counter() - start)

    trainer._event_loop, trainer._finish = timed_loop, timed_finish
    trainer._saver._write, trainer.collector.collect = timed_write, timed_collect


# Code that runs in the measuring process


class Process(NamedTuple):
    """A run of the program, and the seconds from its start until it resumed from a checkpoint."""

    timeline: Timeline
    resumed_after: float | None


def run_fresh(run_dir: Path, transitions: int, overrides: Sequence[str]) -> Process:
    """Run the program in a new process."""
    result = run_dir.with_suffix(".json")
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        FILL: str(transitions),
        RESULT: str(result),
    }
    start, resumed_after, output = time.perf_counter(), None, list[str]()
    with subprocess.Popen(
        [sys.executable, __file__, "--only", *overrides],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        for line in child.stdout or ():
            output.append(line)
            if resumed_after is None and RESUMING in line:
                resumed_after = time.perf_counter() - start
    if child.returncode != 0:
        sys.exit(f"{''.join(output)}\na run failed, see above")
    return Process(Timeline(**json.loads(result.read_text())), resumed_after)


@dataclass
class Case:
    """A replay type and size, and the runs measured with it."""

    replay: str
    transitions: int
    saving: list[Timeline] = field(default_factory=list[Timeline])
    """Runs with a checkpoint every EVERY steps, each paired with one of `plain`."""
    plain: list[Timeline] = field(default_factory=list[Timeline])
    """The same runs without checkpoints."""
    resumed: list[Process] = field(default_factory=list[Process])

    def measure(self, repeats: int, directory: Path) -> None:
        """Measure pairs of runs in alternating order, then resume the last run with checkpoints."""
        replay = (f"agent/replay={self.replay}", f"agent.replay.capacity={self.transitions}")
        for repeat in range(repeats):
            pair = [("saving", EVERY, self.saving), ("plain_", NEVER, self.plain)]
            for name, every, runs in pair if repeat % 2 else reversed(pair):
                budget = (f"trainer.max_steps={STEPS}", f"trainer.checkpoint_frequency={every}")
                target = directory / f"{name}_{repeat}"
                overrides = (*RUN, *replay, *budget, f"hydra.run.dir={target}")
                runs.append(run_fresh(target, self.transitions, overrides).timeline)
        run_dir = directory / f"saving_{repeats - 1}"
        for repeat in range(repeats):
            budget = f"trainer.max_steps={STEPS + (repeat + 1) * MORE}"
            self.resumed.append(run_fresh(run_dir, 0, (f"resume={run_dir}", budget)))

    def checkpoints(self) -> list[list[Checkpoint]]:
        """Checkpoints of each run in order; the last one is written at the end of the run."""
        return [checkpoints_of(run) for run in self.saving]


class Checkpoint(NamedTuple):
    """Cost of one checkpoint."""

    stall: float
    """Seconds for which training was stopped."""
    segments: int
    """Transitions in the segments that were written with it."""
    segment_bytes: int
    bytes: int
    """Size of the .pt file."""


def checkpoints_of(run: Timeline) -> list[Checkpoint]:
    """Checkpoints of a run, each with the segments that were written before it."""
    found: list[Checkpoint] = []
    rows = size = 0
    stalls = iter(run.stalls)
    for name, length in run.writes:
        if name.endswith(".npz"):
            start, stop, _ = name.split("-")
            rows, size = rows + int(stop) - int(start), size + length
        elif name.endswith(".pt"):
            found.append(Checkpoint(next(stalls), rows, size, length))
            rows = size = 0
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs, and resumes, of each case")
    parser.add_argument("--replay", choices=REPLAYS, nargs="+", default=REPLAYS)
    parser.add_argument("--transitions", type=int, nargs="+", default=SIZES, help="sizes of the replay")
    parser.add_argument("--json", type=Path, help="write every measured run to this file")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    cases = [Case(replay, size) for replay in arguments.replay for size in arguments.transitions]
    for case in cases:
        print(f"{case.replay}, {case.transitions:,} transitions", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as directory:
            case.measure(arguments.repeats, Path(directory))
    print(table(STALLS, [row for case in cases for row in stall_rows(case)]))
    print(table(SHARES, [share_row(case) for case in cases]))
    print(table(RESUMES, [resume_row(case) for case in cases]))
    print("{cpu}, {cores} cores".format(**machine()))
    if arguments.json:
        content = {"machine": machine(), "cases": [asdict(case) for case in cases]}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--only"]:
        run_here(sys.argv[2:])
    else:
        main()
