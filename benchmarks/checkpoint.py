"""What checkpoints cost: the stall of training, bytes written, the share of a run's time, and time to resume.

    python benchmarks/checkpoint.py --repeats 5 --json checkpoint.json

Every run is the program itself, on CartPole and in a process of its own; its replay is filled to the size in
question before the first step, which takes seconds instead of hours. Prints tables in Markdown. See README.md
in this folder for what is measured and how to read them.
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
from statistics import mean, median
from typing import Any, NamedTuple

from speed_vs_sb3 import machine

REPLAYS = ("uniform", "prioritized")
SIZES = (50_000, 1_000_000)
EVERY = 10_000
"""Env steps between checkpoints."""
NEVER = 10**9
STEPS = 65_000
"""Of a run; the last write ends before the clock stops, and is paid for in full."""
MORE = 1_000
"""Steps that a resumed run goes on for."""
GOING_ON = "resuming from"
"""The line of a resumed run before its first step."""
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


# In the measured process


@dataclass
class Timeline:
    """What one process did, in seconds of its clocks."""

    building: float = 0.0
    """Before the trainer is built."""
    first_step: float = 0.0
    """After the first steps, up to the first round of learning."""
    begun: float = 0.0
    ended: float = 0.0
    """Around the loop, without what concludes a run."""
    begun_cpu: float = 0.0
    ended_cpu: float = 0.0
    """The same in CPU time, of all threads."""
    stalls: list[float] = field(default_factory=list[float])
    """Per checkpoint: how long training stood still, with the wait for the write before."""
    writing: list[float] = field(default_factory=list[float])
    """Per checkpoint: CPU time of the thread that writes it."""
    writes: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """Name and bytes of every file: the new segments of a checkpoint, then the checkpoint."""


def run_here(overrides: Sequence[str]) -> None:
    """The program with `overrides`, watched."""
    from dqn_runner.checkpointing.checkpointer import Checkpointer
    from dqn_runner.cli import main
    from dqn_runner.config import build
    from dqn_runner.io import files

    timeline = Timeline()
    build_trainer, write_atomically = build.build_trainer, files.write_atomically
    write_job: Any = Checkpointer._write

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
        write_job(*args)
        timeline.writing.append(time.thread_time() - start)

    build.build_trainer, files.write_atomically = build_watched, write_counted
    Checkpointer._write = write_timed
    sys.argv[1:] = overrides
    main.main()
    Path(os.environ[RESULT]).write_text(json.dumps(asdict(timeline)))


def fill(trainer: Any, transitions: int) -> None:
    """Experience that nobody made: what it says does not matter here, only how much it is."""
    import numpy as np

    obs = np.random.default_rng(0).standard_normal((1024, 4), dtype=np.float32)
    for i in range(transitions):
        row = i % 1023
        trainer.replay.add(0, obs[row], row % 2, 1.0, i % 200 == 199, False, obs[row + 1])


def watch(trainer: Any, timeline: Timeline) -> None:
    """Read the clocks where the trainer goes from one duty to the next."""
    loop, conclude, collect = trainer._loop, trainer._conclude, trainer.collector.collect
    write = trainer._write_checkpoint

    def timed_loop() -> str:
        timeline.begun, timeline.begun_cpu = time.perf_counter(), time.process_time()
        return loop()

    def timed_conclude(*args: Any) -> Any:
        timeline.ended, timeline.ended_cpu = time.perf_counter(), time.process_time()
        return conclude(*args)

    def timed_collect(*args: Any) -> None:
        collect(*args)
        timeline.first_step = time.perf_counter()
        trainer.collector.collect = collect  # the next ones are not watched

    def timed_write(*args: Any) -> None:
        start = time.perf_counter()
        write(*args)
        timeline.stalls.append(time.perf_counter() - start)

    trainer._loop, trainer._conclude = timed_loop, timed_conclude
    trainer._write_checkpoint, trainer.collector.collect = timed_write, timed_collect


# In the measuring process


class Process(NamedTuple):
    """A run of the program, and seconds from its start until it went on from a checkpoint."""

    timeline: Timeline
    going_on: float | None


def run_fresh(run_dir: Path, transitions: int, overrides: Sequence[str]) -> Process:
    """The program in a new process."""
    result = run_dir.with_suffix(".json")
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        FILL: str(transitions),
        RESULT: str(result),
    }
    start, going_on, output = time.perf_counter(), None, list[str]()
    with subprocess.Popen(
        [sys.executable, __file__, "--only", *overrides],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        for line in child.stdout or ():
            output.append(line)
            if going_on is None and GOING_ON in line:
                going_on = time.perf_counter() - start
    if child.returncode != 0:
        sys.exit(f"{''.join(output)}\na run failed, see above")
    return Process(Timeline(**json.loads(result.read_text())), going_on)


@dataclass
class Case:
    """A replay of one kind and size, and what was measured with it."""

    replay: str
    transitions: int
    saving: list[Timeline] = field(default_factory=list[Timeline])
    """Runs with a checkpoint every 10,000 steps, each beside one of `plain`."""
    plain: list[Timeline] = field(default_factory=list[Timeline])
    """The same runs without."""
    resumed: list[Process] = field(default_factory=list[Process])

    def measure(self, repeats: int, directory: Path) -> None:
        """Pairs of runs, in turns the one or the other first; then the last with checkpoints is resumed."""
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
        """Of each run, in order; the last one of a run concludes it."""
        return [checkpoints_of(run) for run in self.saving]


class Checkpoint(NamedTuple):
    """One checkpoint, as training and the disk saw it."""

    stall: float
    """Seconds."""
    segments: int
    """Transitions in segments that were written for it."""
    segment_bytes: int
    bytes: int
    """Of the .pt file."""


def checkpoints_of(run: Timeline) -> list[Checkpoint]:
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


# Tables


def stall_rows(case: Case) -> list[str]:
    """The first checkpoint of a run, which writes the whole replay, and those after it."""
    runs = case.checkpoints()
    kinds = {
        "first": [run[0] for run in runs],
        "later": [checkpoint for run in runs for checkpoint in run[1:-1]],
    }
    return [
        f"| {case.replay} | {case.transitions:,} | {kind} | {milliseconds(c.stall for c in group)} "
        f"| {mean(c.segments for c in group):,.0f} | {mean_mb(c.segment_bytes for c in group)} "
        f"| {mean_mb(c.bytes for c in group)} |"
        for kind, group in kinds.items()
    ]


def share_row(case: Case) -> str:
    wall = [run.ended - run.begun for run in case.saving]
    without = [run.ended - run.begun for run in case.plain]
    cpu = [run.ended_cpu - run.begun_cpu for run in case.saving]
    cpu_without = [run.ended_cpu - run.begun_cpu for run in case.plain]
    own = [(sum(run.stalls[:-1]), sum(run.writing[:-1])) for run in case.saving]
    return (
        f"| {case.replay} | {case.transitions:,} | {median(without):.2f} s | {median(wall):.2f} s "
        f"| {percent(wall, without)} | {percent(cpu, cpu_without)} "
        f"| {median(stalls / w for (stalls, _), w in zip(own, wall, strict=True)):.2%} "
        f"| {median((stalls + writing) / c for (stalls, writing), c in zip(own, cpu, strict=True)):.2%} |"
    )


def resume_row(case: Case) -> str:
    inside = [p.timeline.first_step - p.timeline.building for p in case.resumed]
    whole = [p.going_on for p in case.resumed if p.going_on is not None]
    return f"| {case.replay} | {case.transitions:,} | {median(inside):.2f} s | {median(whole):.2f} s |"


def milliseconds(seconds: Any) -> str:
    values = [1000 * value for value in seconds]
    return f"{median(values):.1f} ({max(values):.1f})"


def mean_mb(sizes: Any) -> str:
    return f"{mean(sizes) / 1e6:.2f}"


def percent(values: list[float], reference: list[float]) -> str:
    """How much more the median is, and the least and most of a pair."""
    pairs = [value / other - 1 for value, other in zip(values, reference, strict=True)]
    return f"{median(values) / median(reference) - 1:+.1%} ({min(pairs):+.1%} to {max(pairs):+.1%})"


STALLS = (
    "replay | transitions | checkpoint | stall, ms: median (longest) "
    "| transitions sealed | in segments, MB | .pt, MB"
)
SHARES = "replay | transitions | without | with | wall time | CPU time | stalls | stalls and writing"
RESUMES = "replay | transitions | trainer built to first step | program start to going on"


def table(header: str, rows: Sequence[str]) -> str:
    return "\n".join([f"| {header} |", "|---" * (header.count("|") + 1) + "|", *rows, ""])


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
