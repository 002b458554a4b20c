"""Updates and training on a GPU, against the CPU of the same machine and stable-baselines3 on the GPU.

    python benchmarks/gpu.py --json gpu.json

Needs about five minutes and a GPU; `--device cpu` tries the script without one. First the update alone: each
network with batches of 32 and 512, from the same state on the CPU, on the device operation by operation, and
as a CUDA graph, with the largest difference to the parameters of the CPU (of the same precision) after one
update, and how often an update waits for the device. Then env steps per second of training, as in speed.py:
of one environment beside stable-baselines3, and of 64 environments in separate processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import speed_runs
import torch
from machine import machine
from speed import versions
from speed_workloads import WORKLOADS, Workload, feasible, make_env

from dqn_runner import DQNAgent
from dqn_runner.agent.device import choose_device, describe
from dqn_runner.core.types import Batch, Transition
from dqn_runner.envs.base import spec_of

UPDATES = ("W2", "W4", "W4-bfloat16", "W5")
BATCH_SIZES = (32, 512)
MANY_ENVS = 64


@dataclasses.dataclass(frozen=True)
class TrainingLine:
    """Runs of one workload, and who trains it where."""

    title: str
    workload: Workload
    kinds: tuple[str, ...] = ("ours", "sb3")
    """`ours` and `sb3` on the GPU, `cpu`: ours on the CPU, once."""
    num_envs: int = 1


def training_lines() -> list[TrainingLine]:
    """What is trained; 64 environments have as many updates per env step as one."""
    pong, minatar = WORKLOADS["W4"], WORKLOADS["W5"]
    vector = dataclasses.replace(
        pong, steady_from=40 * MANY_ENVS, steps=240 * MANY_ENVS, log_every=40 * MANY_ENVS
    )
    return [
        TrainingLine("W4", pong, ("ours", "sb3", "cpu")),
        TrainingLine("W5", minatar, ("ours", "sb3", "cpu")),
        TrainingLine("W4, batch 512", dataclasses.replace(pong, batch_size=512)),
        TrainingLine(f"W4, {MANY_ENVS} environments", vector, ("ours",), MANY_ENVS),
    ]


def agent_of(workload: Workload, device: str, size: int) -> tuple[DQNAgent, str]:
    """The agent of a workload on a device, and the dtype of its observations."""
    env = make_env(workload)
    config = speed_runs.our_config(workload, 0, env, compiled=False)
    config = dataclasses.replace(config, device=device, batch_size=size)
    return DQNAgent(config), spec_of(env).obs_dtype


def batch_of(agent: DQNAgent, dtype: str, size: int) -> Batch:
    random = np.random.default_rng(0)
    obs, next_obs = (
        torch.from_numpy(random.integers(0, 2, (size, *agent.spec.obs_shape)).astype(dtype)) for _ in range(2)
    )
    action = torch.from_numpy(random.integers(agent.spec.num_actions, size=size))
    reward = torch.from_numpy(random.normal(size=size).astype(np.float32))
    transition = Transition(obs, action, reward, torch.full((size,), 0.99), next_obs)
    return Batch(transition, np.arange(size), torch.full((size,), 1 / size))


def microseconds(update: Callable[[], Any], repeats: int = 5, seconds: float = 0.5) -> float:
    """Median time of an update with its results on the CPU, which waits for the device."""
    update()
    times: list[float] = []
    for _ in range(repeats):
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            update()
            count += 1
        times.append((time.perf_counter() - start) / count * 1e6)
    return statistics.median(times)


def waits(update: Callable[[], Any]) -> int | None:
    """How often `update` waits for the GPU, as torch counts it; None on another device."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        update()
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


def measure_update(name: str, device: str, size: int) -> dict[str, Any]:
    """Each way from the same state: time per update, waits, and the difference after the first update."""
    workload, line = WORKLOADS[name], {"workload": name, "batch": size}
    reference: torch.Tensor | None = None
    for way in ("cpu", "eager", "graph"):
        agent, dtype = agent_of(workload, "cpu" if way == "cpu" else device, size)
        if way == "graph":
            agent.choose_update(dtype, None)
        batch = batch_of(agent, dtype, size)

        def update(agent: DQNAgent = agent, batch: Batch = batch) -> None:
            agent.learn(batch, 0)[1].tolist()

        update()
        parameters = agent.learner.online.cpu().clone()
        if reference is None:
            reference = parameters
        else:
            line |= {f"{way}_difference": (parameters - reference).abs().max().item()}
            line |= {f"{way}_waits": waits(update)}
        line |= {f"{way}_us": round(microseconds(update))}
    return line


def steps_per_second(line: TrainingLine, kind: str, device: str) -> float:
    """Of one run, as speed.py measures it, with the learner on `device`."""
    workload = line.workload
    stopwatch = speed_runs.Stopwatch(workload.steady_from, workload.steps)
    if kind == "sb3":
        speed_runs.train_sb3(workload, 0, stopwatch, device)
    else:
        where = "cpu" if kind == "cpu" else device
        speed_runs.train_ours(workload, 0, stopwatch, compiled=False, device=where, num_envs=line.num_envs)
    return stopwatch.result(kind, 0).steps_per_second


def measure_training(line: TrainingLine, device: str, repeats: int) -> list[dict[str, Any]]:
    """All runs of a line, those of the kinds in turn; a run on the CPU is not repeated."""
    results: list[dict[str, Any]] = []
    for repeat in range(repeats):
        for kind in line.kinds:
            if kind != "cpu" or repeat == 0:
                rate = steps_per_second(line, kind, device)
                results.append({"line": line.title, "run": repeat, "kind": kind, "steps_per_second": rate})
                print(results[-1], flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=3, help="training runs of each kind")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = describe(choose_device(arguments.device, True, 0))
    result: dict[str, Any] = {"device": device, "machine": machine(), "versions": versions()}
    print(device, machine(), versions())
    result["updates"] = []
    for name in (name for name in UPDATES if name in feasible()):
        for size in BATCH_SIZES:
            result["updates"].append(measure_update(name, arguments.device, size))
            print(result["updates"][-1], flush=True)
    result["training"] = []
    for line in training_lines():
        result["training"] += measure_training(line, arguments.device, arguments.repeats)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
