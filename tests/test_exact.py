"""A run that was killed and goes on ends byte for byte as one that was never interrupted."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests import crash
from tests.crash import Kill
from tests.probes import agent_options, short_schedule

ENVS = {
    "cartpole": ["env=cartpole"],
    "four cartpoles": ["env=cartpole", "env.num_envs=4", "agent.n_step=3"],
    "lunarlander": ["env=lunarlander", "agent.n_step=2"],
    "minatar": [
        "env=minatar",
        "agent.network.hidden=16",
        "agent.network.channels=4",
        "agent/network=minatar_cnn",
    ],
}
BUDGET = [
    "trainer.max_steps=1000",
    "trainer.eval_frequency=300",
    "trainer.eval_episodes=2",
    "trainer.checkpoint_frequency=150",
    "trainer.log_frequency=110",
    "trainer.max_steps_per_episode=200",
    "trainer.target_return=null",
    "agent.learning_starts=100",
    "agent.batch_size=16",
    "agent.target_update_every=90",
    "agent.replay.capacity=700",
    "logging=[file,jsonl,csv]",
    "hydra.run.dir=run",
]


@pytest.mark.slow
@pytest.mark.parametrize("option", agent_options())
@pytest.mark.parametrize("env", ENVS)
def test_killed_again_and_again(env: str, option: str, tmp_path: Path) -> None:
    command = [f"agent={option}", *ENVS[env], *BUDGET, *short_schedule(option, 400)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for cwd in (whole, killed):
        cwd.mkdir()
    curves = env == "cartpole"
    assert crash.run(command, whole, curves=curves) == 0, (whole / "output").read_text()
    rng = random.Random(f"{env} {option}")
    total = crash.operations(whole)
    kills = [
        Kill("step", rng.randrange(20, 300)),
        Kill("operation", rng.randrange(1, total // 4)),
        Kill("write", rng.randrange(1, total // 4)),
    ]
    for kill in kills:
        assert crash.run(command, killed, kill) == -9, (kill, (killed / "output").read_text())
    assert crash.run(command, killed, curves=curves) == 0, (killed / "output").read_text()
    assert (whole / "run" / "training_curves.png").exists() == curves
    assert crash.differences(whole / "run", killed / "run") == []
