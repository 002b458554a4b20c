"""Results of every agent with its default recipe for an environment and several seeds, as a Markdown table.

    python benchmarks/agents.py --env cartpole --seeds 5 --out results/agents
    python benchmarks/agents.py --env lunarlander --seeds 3 --out results/agents trainer.target_return=null

Each run is `python -m dqn_runner agent=AGENT env=ENV seed=SEED ...`, followed by `mode=eval` of its best
checkpoint on 100 test episodes, which were not used to select it. Runs with an eval.json are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

AGENTS = (
    "dqn",
    "double_dqn",
    "dueling_dqn",
    "per_dqn",
    "noisy_dqn",
    "c51",
    "qr_dqn",
    "iqn",
    "munchausen",
    "m_iqn",
    "rainbow",
)


def program(*arguments: str) -> None:
    command = [sys.executable, "-m", "dqn_runner", "logging=[file,jsonl]", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def run(agent: str, env: str, seed: int, out: Path, overrides: list[str]) -> dict[str, Any]:
    """Metrics of one run, with the test results of its best checkpoint as `test`."""
    run_dir = out / env / f"{agent}-{seed}"
    test = run_dir / "test" / "eval.json"
    if not test.exists():
        program(f"agent={agent}", f"env={env}", f"seed={seed}", f"hydra.run.dir={run_dir}", *overrides)
        best = run_dir / "checkpoints" / "best.pt"
        program("mode=eval", f"checkpoint={best}", f"hydra.run.dir={test.parent}")
    return json.loads((run_dir / "metrics.json").read_text()) | {"test": json.loads(test.read_text())}


def row(agent: str, runs: list[dict[str, Any]], threshold: float) -> str:
    test = [each["test"]["return_mean"] for each in runs]
    training = statistics.fmean(statistics.fmean(each["episodes"]["return"][-100:]) for each in runs)
    solved = sum(each["best"]["return_mean"] >= threshold for each in runs)
    steps = statistics.median(each["env_steps"] for each in runs)
    seconds = statistics.median(each["time"]["training_seconds"] for each in runs)
    tested = f"{statistics.fmean(test):.1f} ({min(test):.1f} to {max(test):.1f})"
    cells = (agent, f"{solved} of {len(runs)}", tested, f"{training:.1f}", f"{steps:,.0f}", f"{seconds:.0f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", default="cartpole")
    parser.add_argument(
        "--threshold",
        type=float,
        help="return from which the environment is solved; default: 475 for cartpole, 200 for others",
    )
    parser.add_argument("--agents", nargs="*", default=AGENTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/agents"))
    options, overrides = parser.parse_known_args()
    threshold = options.threshold or {"cartpole": 475.0}.get(options.env, 200.0)
    with ThreadPoolExecutor(options.workers) as pool:
        futures = {
            agent: [
                pool.submit(run, agent, options.env, seed, options.out, overrides)
                for seed in range(options.seeds)
            ]
            for agent in options.agents
        }
        print(f"{options.env}: solved means an evaluation return of at least {threshold:g}\n")
        print("| agent | solved | best.pt, 100 test episodes | last 100 in training | env steps | seconds |")
        print("|---|---|---|---|---|---|")
        for agent, runs in futures.items():
            print(row(agent, [future.result() for future in runs], threshold), flush=True)


if __name__ == "__main__":
    main()
