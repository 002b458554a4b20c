"""The state of a run is complete: a resume restores all attributes that change during a run."""

from __future__ import annotations

import copy
import re
import types
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.config.build import build_trainer
from dqn_runner.training.stored_state import check_state
from dqn_runner.training.trainer import Trainer
from tests.support.probes import agents_of_ci, compose_run

DERIVED = {
    ".agent.learner.grad": "written before it is read, in every update",
    ".agent.learner.online_params": "their gradients, and the count of changes that autograd keeps",
    ".agent.network": "a module into which each call puts the parameters of the learner and its noise",
    ".collector.envs.buffers._spare": "written before it is read, in every step",
    ".collector.envs.buffers._spare_masks": "written before it is read, in every step",
    ".collector.envs.buffers.next_obs": "written before it is read, in every step",
    ".collector.envs.buffers.next_masks": "written before it is read, in every step",
    ".collector.envs.buffers._checked_parts": "views of next_obs",
    ".evaluator": "every episode starts with a seeded reset",
    ".recorder.metrics.last": "for a message of this process only",
    ".recorder._stopwatch": "time",
    ".recorder._elapsed_before": "time",
    ".run": "a view of the trainer",
    ".directory.resumed": "whether this process resumed",
    ".directory.loggers": "open files; their offsets are in the state",
    ".directory.checkpoints": "derived from the files on disk",
    "._state._empty": "the structure of a state, by which a stored one is checked",
    "._saver.improved": "set and cleared within one step",
}
"""Attributes that may differ, and why."""


def fingerprints(root: Any) -> dict[str, str]:
    """Every value that is reachable from `root`, by its path, as text that equal values share."""
    found: dict[str, str] = {}
    seen: set[int] = set()

    def visit(value: Any, path: str) -> None:
        if value is None or isinstance(value, bool | int | float | str | bytes | Path | Enum | np.generic):
            found[path] = repr(value)
            return
        if isinstance(value, np.ndarray):
            found[path] = repr((value.dtype, value.shape, value.tobytes()))
            return
        if isinstance(value, torch.Tensor):
            found[path] = repr((value.dtype, tuple(value.shape), value.detach().numpy().tobytes()))
            return
        if id(value) in seen or isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
            return
        seen.add(id(value))
        keep.append(value)
        if isinstance(value, np.random.Generator):
            found[path] = repr(value.bit_generator.state)
        elif isinstance(value, dict):
            for key, item in value.items():
                visit(item, f"{path}[{key!r}]")
        elif isinstance(value, list | tuple | deque | set | frozenset):
            found[f"{path}:length"] = str(len(value))
            for index, item in enumerate(value):
                visit(item, f"{path}[{index}]")
        elif isinstance(value, types.FunctionType):
            for index, cell in enumerate(value.__closure__ or ()):
                visit(cell.cell_contents, f"{path}:cell{index}")
        elif isinstance(value, types.MethodType):
            visit(value.__self__, f"{path}:self")
        elif hasattr(value, "tolist"):
            found[path] = repr(value.tolist())
        else:
            for name, item in getattr(value, "__dict__", {}).items():
                visit(item, f"{path}.{name}")
            for name in getattr(type(value), "__slots__", ()):
                if hasattr(value, name):
                    visit(getattr(value, name), f"{path}.{name}")

    keep: list[Any] = []
    visit(root, "")
    return found


def make(option: str, env: list[str], run_dir: Path) -> Trainer:
    settings = [
        f"agent={option}",
        *env,
        "agent.n_step=3",
        "agent.batch_size=8",
        "agent.learning_starts=20",
        "agent.replay.capacity=64",
        "agent.network.hidden=[8]",
        "agent/network=mlp",
        "agent.target_update_every=10",
        "trainer.max_steps_per_episode=30",
        "logging=[]",
    ]
    return build_trainer(compose_run(settings), run_dir, {}, None)


def advance(trainer: Trainer, iterations: int) -> None:
    for _ in range(iterations):
        trainer.loop.advance(None, None)
    trainer._record(trainer._evaluate())  # pyright: ignore[reportPrivateUsage]
    trainer._log()  # pyright: ignore[reportPrivateUsage]
    for _ in range(3):
        trainer.loop.advance(None, None)


@pytest.mark.slow
@pytest.mark.parametrize("option", agents_of_ci("dqn", "iqn", "rainbow"))
@pytest.mark.parametrize(
    "env",
    [["env=cartpole", "env.num_envs=2", "env.normalize_observations=true"], ["env=minatar"]],
    ids=["cartpoles", "minatar"],
)
def test_all_attributes_that_change_during_a_run_are_restored(
    option: str, env: list[str], tmp_path: Path
) -> None:
    trainer = make(option, env, tmp_path)
    advance(trainer, 60)
    trainer.directory.save(trainer.state_dict(), trainer.step, [])
    trainer.directory.checkpoints.close()
    before = fingerprints(trainer)
    advance(trainer, 43)
    after = fingerprints(trainer)
    changed = {path for path in before | after if before.get(path) != after.get(path)}
    assert any("np_random" in path or "game" in path for path in before), (
        "the walk must reach into environments"
    )
    assert any(path.startswith(".replay.") for path in changed)

    resumed = make(option, env, tmp_path / "another")
    resumed.load_state_dict(load_checkpoint(tmp_path / "checkpoints" / "latest.pt")["state"])
    again = fingerprints(resumed)
    missing = {path for path in changed if before.get(path) != again.get(path)}
    assert sorted(path for path in missing if not path.startswith(tuple(DERIVED))) == []


def set_value(column: Any, value: Any) -> None:
    column[0] = value


FORGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "train has other columns than step, episode, return_mean_100": lambda m: m.update(train=m["episodes"]),
    "episodes does not start at row 0": lambda m: m.update(episodes=replace(m["episodes"], start=1)),
    "episodes does not hold": lambda m: m.update(episodes=replace(m["episodes"], stop=0)),
    "episodes is not a table of rows": lambda m: m.update(episodes={}),
    "eval has values that do not follow from the returns": lambda m: set_value(
        m["eval"]["return_min"], -(2**70)
    ),
    "eval.returns has a value that is not a number": lambda m: set_value(m["eval"]["returns"], []),
    "eval.length_mean has a value that is not a length": lambda m: set_value(m["eval"]["length_mean"], 0.5),
    "eval.step has a value that is not a number from 0": lambda m: set_value(m["eval"]["step"], 10**6),
    "eval.episode has a value that is not a number from 0": lambda m: set_value(m["eval"]["episode"], 1.0),
}


@pytest.mark.parametrize("problem", FORGED)
def test_forged_metrics_are_not_the_state_of_a_run(tmp_path: Path, problem: str) -> None:
    trainer = make("dqn", ["env=cartpole"], tmp_path / "run")
    advance(trainer, 10)
    state = copy.deepcopy(stored(trainer.state_dict()))
    fresh = make("dqn", ["env=cartpole"], tmp_path / "other")
    spec = trainer.collector.envs.spec
    check_state(state, fresh.state_dict(), spec)
    FORGED[problem](state["progress"]["metrics"])
    with pytest.raises(ValueError, match=re.escape(problem)):
        check_state(state, fresh.state_dict(), spec)


def stored(value: Any) -> Any:
    """The state as a checkpoint holds it: arrays as tensors."""
    if isinstance(value, dict):
        return {key: stored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [stored(item) for item in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
