"""Mutates what a run or a sweep has stored, resumes, and counts wrong results, tracebacks and hangs.

    python -m tests.soak.fuzz --cases 10000 --seed 0

Each case copies the directory of a half-finished run, changes it as `tests.soak.mutations` says, and resumes
it in a process with limits of time and memory. The run must then end like the uninterrupted one, or be
rejected by one line; nothing outside of its directory may change. In one case of ten the process runs the
whole program; in one of ten a journal is changed instead (`tests.soak.journals`). The exit code is 1 if any
case fails.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

from dqn_runner.checkpointing import segments
from dqn_runner.checkpointing.names import LATEST, numbered_name
from dqn_runner.checkpointing.recovery import has_checkpoints
from dqn_runner.cli import main as program
from dqn_runner.config.build import build_trainer
from dqn_runner.config.resume import check_compatible, read_stored
from dqn_runner.config.schema import fit_defaults, to_plain_config
from dqn_runner.core.exceptions import UserError
from dqn_runner.io import files
from dqn_runner.run import plots, provenance
from tests.soak.journals import continue_with_journal, make_journal
from tests.soak.mutations import MUTATIONS
from tests.support import crash
from tests.support.composition import compose_config

SECONDS, MEMORY = 60, 4 * 2**30
COMMON = (
    *("trainer.max_steps=160", "trainer.eval_frequency=40", "trainer.log_frequency=40"),
    *("trainer.checkpoint_frequency=40", "trainer.eval_episodes=1", "trainer.target_return=null"),
    *(
        "agent.learning_starts=20",
        "agent.batch_size=8",
        "agent.network.hidden=[8]",
        "agent.train_every=4",
    ),
    *("agent.replay.capacity=100", "agent.exploration.schedule.steps=50", "logging=[jsonl,csv,file]"),
)
CARTPOLE = ("env=cartpole", "agent/network=mlp")
TEMPLATES = {
    "uniform": (*CARTPOLE, "agent=dqn", "agent.n_step=2"),
    "prioritized": (*CARTPOLE, "agent=per_dqn", "env.num_envs=2", "agent.n_step=3"),
    "normalized": (*CARTPOLE, "agent=qr_dqn", "agent.normalize_observations=true"),
    "dict": (
        *("agent=per_dqn", "env=gym", "env.id=tests.support.mixed:Keys", "agent/network=multi_input"),
        *("env.kwargs.length=9", "agent.network.image_hidden=8", "agent.normalize_observations=true"),
    ),
}


class Template:
    """A run that was stopped in its middle, and the same run without an interruption."""

    def __init__(self, name: str, folder: Path) -> None:
        self.overrides = [*TEMPLATES[name], *COMMON]
        cfg = compose_config(*self.overrides)
        fit_defaults(cfg)
        self.run = instantiate(cfg, _convert_="object")
        self.source = {
            "config": {key: value for key, value in to_plain_config(cfg).items() if key != "study"},
            "overrides": self.overrides,
            "config_name": "config",
            "config_dir": None,
        }
        self.whole, self.half = folder / name / "whole", folder / name / "half"
        self.resume(folder / name / "warm-up")  # what this process has imported, no case has to import
        for run_dir in (self.whole, self.half):
            status, text = in_process(lambda run_dir=run_dir: self.resume(run_dir), folder / "output")
            assert status == 0, text
        checkpoints = self.half / "checkpoints"
        for entry in (checkpoints / numbered_name(160), checkpoints / LATEST):
            entry.unlink()
        os.link(checkpoints / numbered_name(120), checkpoints / LATEST)

    def resume(self, run_dir: Path) -> None:
        """What `python -m dqn_runner` does in a run directory, without composing the configuration."""
        stored = read_stored(str(run_dir), "resume") if has_checkpoints(run_dir) else None
        if stored:
            check_compatible(stored.config, self.source["config"])
        trainer = build_trainer(self.run, run_dir, self.source, None)
        trainer.prepare(stored.path if stored else None)
        if trainer.finished_reason is None:
            provenance.record_session(run_dir, self.source["config"], self.overrides, [], [])
        trainer.train()

    def run_program(self, run_dir: Path) -> None:
        """`python -m dqn_runner` itself."""
        GlobalHydra.instance().clear()
        sys.argv = ["dqn_runner", *self.overrides, f"hydra.run.dir='{run_dir}'"]
        program.main()


def in_process(work: Callable[[], None], output: Path) -> tuple[int, str]:
    """Call `work` in a child process with limits; returns its status and output, or how it failed."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(SECONDS)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            work()
            status = 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
        except SystemExit as error:
            status = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, ended = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(ended), output.read_text(errors="replace")


def tree(directory: Path) -> dict[str, Any]:
    """What is below a directory."""
    found = sorted(directory.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else path.is_dir() for path in found}


def applied(mutation: Callable[[Path, random.Random], str], run_dir: Path, rng: random.Random) -> str:
    """What a mutation did; it may find nothing to change, or nothing that it can write, after another one."""
    try:
        return mutation(run_dir, rng)
    except Exception as error:
        return f"{mutation.__name__} failed: {type(error).__name__}"


def one_case(template: Template, folder: Path, rng: random.Random) -> tuple[str, list[str], str]:
    """Mutate, resume and judge; returns the mutations, what is wrong, and what happened."""
    run_dir = folder / "run"
    shutil.copytree(template.half, run_dir)
    (folder / "outside").mkdir()
    (folder / "outside" / "file").write_text("mine")
    outside = tree(folder / "outside")
    weights, mutations = zip(*MUTATIONS, strict=True)
    chosen = rng.choices(mutations, weights, k=rng.choice([1, 1, 1, 2, 3]))
    done = "; ".join(applied(mutation, run_dir, rng) for mutation in chosen)
    work = template.run_program if rng.random() < 0.1 else template.resume
    status, text = in_process(lambda: work(run_dir), folder / "output")
    wrong: list[str] = []
    if tree(folder / "outside") != outside:
        wrong.append("something outside of the run directory changed")
    if status < 0:
        wrong.append(f"ended by signal {-status}")
    if status:
        wrong += judge_refusal(text)
        return done, wrong, f"rejected: {text.strip().splitlines()[-1:]}"
    try:
        found = crash.result_differences(template.whole, run_dir)
        wrong += [line for line in found if not is_reported(line, text)]
        latest = [run / "checkpoints" / LATEST for run in (template.whole, run_dir)]
        wrong += [line for line in crash.checkpoint_differences(*latest) if not is_default(line, done)]
    except (OSError, ValueError, UserError) as error:
        wrong.append(f"the result cannot be read: {error}")
    return done, wrong, "exact"


def is_reported(difference: str, text: str) -> bool:
    """Whether the program said that the end of this log file is missing, which nothing can restore."""
    return f"/{difference.partition(' ')[0]} lacks its last " in text


def is_default(difference: str, done: str) -> bool:
    """Whether a removed setting has its default, like one that the version of the checkpoint did not have."""
    numbered = ".names has lengths" in difference and "remove 'checkpoint_frequency'" in done
    return numbered or (".source.config." in difference and "remove " in done)


def judge_refusal(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    wrong = [] if len(lines) == 1 and len(lines[0]) > 20 else ["no single line says what is wrong"]
    return [*wrong, "a traceback"] if "Traceback" in text else wrong


def prepare() -> None:
    """Leave out what takes long and decides nothing here."""
    torch.set_num_threads(1)
    segments.rows_per_segment = lambda _: 16
    plots.draw_training_curves = lambda _: None
    provenance._packages = dict
    provenance.git_state = lambda _: None
    files.sync = lambda _: None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    prepare()
    failed, outcomes, start = 0, dict[str, int](), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        templates = [Template(each, folder) for each in TEMPLATES]
        journal = make_journal(folder)
        for number in range(arguments.first, arguments.first + arguments.cases):
            rng = random.Random(f"{arguments.seed} {number}")
            case = folder / "case"
            case.mkdir()
            if rng.random() < 0.1:
                done, wrong, outcome = continue_with_journal(journal, case, rng, in_process)
            else:
                done, wrong, outcome = one_case(rng.choice(templates), case, rng)
            failed += bool(wrong)
            outcomes[outcome.partition(":")[0]] = outcomes.get(outcome.partition(":")[0], 0) + 1
            if wrong or arguments.verbose:
                print(f"{number}: {done}: {'; '.join(wrong) or 'ok'}; {outcome}", flush=True)
                if wrong:
                    print((case / "output").read_text(errors="replace")[-1500:], flush=True)
            shutil.rmtree(case)
    seconds = time.monotonic() - start
    print(f"{arguments.cases - failed} of {arguments.cases} right, in {seconds:.0f} s; {outcomes}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
