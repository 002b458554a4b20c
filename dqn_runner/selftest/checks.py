"""The checks of the self-test. Each uses the program as a user does: a command line in a new process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import dqn_runner
from dqn_runner.core.exceptions import UserError

STEPS = 1_600
"""Env steps of the runs that are compared."""
SHORT = (
    f"trainer.max_steps={STEPS}",
    "trainer.eval_frequency=400",
    "trainer.checkpoint_frequency=400",
    "trainer.log_frequency=200",
    "trainer.eval_episodes=2",
    "trainer.target_return=null",
    "agent.learning_starts=200",
    "agent.batch_size=32",
    "logging=[jsonl,file]",
)
PATIENCE = 300.0
"""Seconds after which a command counts as hanging."""
EXTRAS = {"box2d": "Box2D", "minatar": "minatar", "atari": "ale_py", "minigrid": "minigrid"}
"""Extras of dqn_runner with environments, and the module that each brings."""


class CheckFailedError(Exception):
    """A check did not find what it expected; the message says what it found."""


class Program(NamedTuple):
    """The program, run in a folder of its own."""

    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command, whose output goes to a file."""
        with (self.folder / "output.txt").open("w", encoding="utf-8") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "dqn_runner", *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def run(self, *arguments: str) -> str:
        """Run a command and return its output; raises CheckFailedError unless it ends with status 0."""
        process = self.start(*arguments)
        try:
            status = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            status = f"none: it took more than {PATIENCE:.0f} s"
        output = (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace")
        if status != 0:
            lines = "\n        ".join(output.splitlines()[-8:])
            raise CheckFailedError(
                f"dqn_runner {' '.join(arguments)}\n        status {status}\n        {lines}"
            )
        return output


Check = Callable[[Program], str]
"""Returns what it found, in a few words; raises CheckFailedError. Its docstring is its name."""


def check_installation(_: Program) -> str:
    """Installation."""
    versions = [f"Python {platform.python_version()}"]
    for name in ("dqn-runner", "torch", "gymnasium", "hydra-core", "optuna"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            if name != "dqn-runner":
                raise CheckFailedError(f"the package {name} is missing") from None
            versions.append(f"dqn-runner from {Path(dqn_runner.__file__).parent}")
    return ", ".join(versions)


def check_environments(_: Program) -> str:
    """Environments."""
    import gymnasium

    env = gymnasium.make("CartPole-v1")
    env.reset(seed=0)
    env.step(0)
    env.close()
    there = [extra for extra, module in EXTRAS.items() if importlib.util.find_spec(module)]
    missing = [extra for extra in EXTRAS if extra not in there]
    hint = f"; not installed: the extras {', '.join(missing)}" if missing else ""
    return f"{', '.join(['CartPole', *there])}{hint}"


def check_training(program: Program) -> str:
    """Training leaves its files."""
    program.run(*SHORT, "hydra.run.dir=whole")
    run = program.folder / "whole"
    expected = ("checkpoints/latest.pt", "checkpoints/best.pt", "metrics.json", "metrics.jsonl", "run.json")
    if missing := [name for name in expected if not (run / name).is_file()]:
        raise CheckFailedError(f"the run left no {', '.join(missing)}")
    if not (run / "training_curves.png").read_bytes().startswith(b"\x89PNG"):
        raise CheckFailedError("training_curves.png is not a picture")
    return f"{STEPS:,} steps of CartPole, {len(expected)} files, curves"


def check_resume(program: Program) -> str:
    """A run that is killed and resumed is exact."""
    return _kill_and_compare(program, "killed", [400])


def check_evaluation(program: Program) -> str:
    """Evaluation of a checkpoint."""
    arguments = ("checkpoint=whole/checkpoints/best.pt", "evaluator.episodes=3", "hydra.run.dir=evaluation")
    program.run("mode=eval", *arguments)
    result = json.loads((program.folder / "evaluation" / "eval.json").read_text(encoding="utf-8"))
    return f"{result['episodes']} greedy episodes, mean {sum(result['returns']) / len(result['returns']):g}"


def check_agent(program: Program) -> str:
    """A trained agent is loaded and acts."""
    import numpy as np

    try:
        agent = dqn_runner.load_agent(program.folder / "whole")
    except UserError as error:
        raise CheckFailedError(str(error)) from error
    actions = np.asarray(agent.predict(np.zeros((5, 4), np.float32)))
    if actions.shape != (5,) or not {*actions.tolist()} <= {0, 1}:
        raise CheckFailedError(f"it answered {actions} to five observations")
    return "five observations, five actions"


def check_sweep(program: Program) -> str:
    """A sweep."""
    sweep = ("hydra.sweep.dir=sweep", "hydra.sweeper.n_trials=2", "agent.learning_rate=interval(1e-4,1e-3)")
    program.run("-m", "hydra/sweeper=optuna", *sweep, *SHORT, "trainer.max_steps=400")
    if not (program.folder / "sweep" / "optimization_results.yaml").is_file():
        raise CheckFailedError("it left no optimization_results.yaml")
    return "2 trials, results written"


def check_kills(program: Program) -> str:
    """A run that is killed four times is exact."""
    return _kill_and_compare(program, "killed_often", [400, 800, 1200, 1400])


def check_family(program: Program) -> str:
    """Every agent trains."""
    from dqn_runner.config.schema import CONF

    agents = ["dqn", *sorted(path.stem for path in (CONF / "agent").glob("*.yaml"))]
    for name in agents:
        program.run(f"agent={name}", *SHORT, "trainer.max_steps=400", f"hydra.run.dir=agents/{name}")
    return ", ".join(agents)


def check_async_envs(program: Program) -> str:
    """Environments in processes of their own."""
    several = ("env.num_envs=2", "env.vectorization=async", "trainer.max_steps=400")
    program.run(*SHORT, *several, "hydra.run.dir=async")
    return "2 environments"


def check_learning(program: Program) -> str:
    """CartPole is learned."""
    program.run("seed=1", "logging=[jsonl]", "hydra.run.dir=learned")
    best = json.loads((program.folder / "learned" / "metrics.json").read_text(encoding="utf-8"))["best"]
    if best["return_mean"] < 400:
        raise CheckFailedError(f"the best evaluation has a mean return of {best['return_mean']:g} of 500")
    return f"best evaluation {best['return_mean']:g} of 500, at step {best['step']:,}"


QUICK: tuple[Check, ...] = (
    check_installation,
    check_environments,
    check_training,
    check_resume,
    check_evaluation,
    check_agent,
    check_sweep,
)
FULL: tuple[Check, ...] = (check_kills, check_family, check_async_envs, check_learning)


def _kill_and_compare(program: Program, name: str, steps: list[int]) -> str:
    """Kill a run as soon as it has reached each of `steps`, and compare its end with the run `whole`."""
    command = (*SHORT, f"hydra.run.dir={name}")
    run = program.folder / name
    kills = 0
    for step in steps:
        process = program.start(*command)
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and _last_step(run) < step and time.monotonic() < deadline:
            time.sleep(0.01)
        kills += process.poll() is None
        process.kill()
        process.wait()
    if kills < len(steps):
        raise CheckFailedError("the run ended before it was killed")
    program.run(*command)
    whole = program.folder / "whole"
    for file in ("metrics.jsonl", "metrics.json"):
        if _without_times(run / file) != _without_times(whole / file):
            raise CheckFailedError(f"{run / file} is not that of {whole}, which was not killed")
    return f"{kills} kill{'s' if kills != 1 else ''}, then the same numbers to the last bit"


def _last_step(run: Path) -> int:
    """The env step of the last whole record of a run; 0 before the first one."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def _without_times(path: Path) -> Any:
    """The content of a metrics file without times, which differ between any two runs."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return {key: value for key, value in json.loads(text).items() if key != "time"}
    lines = [json.loads(line) for line in text.splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]
