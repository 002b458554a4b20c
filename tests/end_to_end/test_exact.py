"""A run that is killed and resumed ends byte for byte like a run that is not interrupted."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.support import crash
from tests.support.crash import Kill
from tests.support.probes import agent_options, short_schedule
from tests.support.recordings import FILE

ENVS = {
    "cartpole": ["env=cartpole"],
    "four cartpoles": [
        "env=cartpole",
        "env.num_envs=4",
        "env.normalize_observations=true",
        "agent.n_step=3",
    ],
    "lunarlander": ["env=lunarlander", "agent.n_step=2"],
    "minatar": [
        "env=minatar",
        "agent.network.hidden=16",
        "agent.network.channels=4",
        "agent/network=minatar_cnn",
    ],
    "subprocess workers": ["env=cartpole", "env.num_envs=2", "env.vectorization=async"],
    "global generators": ["env=gym", "env.id=tests.support.drawing:Drawing", "env.kwargs.source=numpy"],
    "rare draws": [
        "env=gym",
        "env.id=tests.support.drawing:Drawing",
        "env.kwargs.rare=true",
        "env.kwargs.what=reward",
    ],
    "dict observations": [
        "env=gym",
        "env.id=tests.support.mixed:Stacked",
        "env.frame_stack=2",
        "env.normalize_observations=true",
        "agent.n_step=2",
        "agent.network.hidden=[16]",
        "agent.network.image_hidden=16",
        "agent/network=multi_input",
    ],
    "action masks": [
        "env=gym",
        "env.id=tests.support.masked:Guarded",
        "env.action_mask=info",
        "env.num_envs=2",
        "agent.n_step=3",
    ],
    "masked stacks": [
        "env=gym",
        "env.id=tests.support.masked:Guarded",
        "env.kwargs={form: key, image: true, actions: joint}",
        "env.action_mask=legal",
        "env.frame_stack=2",
        "env.vectorization=async",
        "agent/network=mlp",
        "agent.network.hidden=[16]",
    ],
    "demonstrations": [
        "env=cartpole",
        "env.num_envs=2",
        "env.normalize_observations=true",
        "agent.n_step=3",
        f"agent.replay.preload={FILE}",
        "agent.replay.demonstrations=0.25",
    ],
    "preloaded stacks": [
        "env=gym",
        "env.id=tests.support.masked:Guarded",
        "env.kwargs={form: key, image: true, actions: joint}",
        "env.action_mask=legal",
        "env.frame_stack=2",
        f"agent.replay.preload={FILE}",
        "agent.replay.demonstrations=0.5",
        "agent/network=mlp",
        "agent.network.hidden=[16]",
    ],
    "everything": [
        "env=gym",
        "env.id=tests.support.masked:Reporting",
        "env.action_mask=legal",
        "env.info_metrics=[risk]",
        "env.num_envs=2",
        "env.normalize_observations=true",
        "agent.n_step=2",
        f"agent.replay.preload={FILE}",
        "agent/network=multi_input",
        "agent.network.hidden=[16]",
        "agent.network.image_hidden=16",
        "callbacks=stop_on_metric",
        "callbacks.stop_on_metric.metric=choices",
        "callbacks.stop_on_metric.at_least=1e9",
        "+callbacks.own._target_=tests.support.masked.Harder",
    ],
    "stacked images": [
        "env=gym",
        "env.id=tests.support.catch.Catch",
        "env.frame_stack=3",
        "agent.n_step=2",
        "agent.network.hidden=16",
        "agent.network.channels=4",
        "agent/network=minatar_cnn",
    ],
}
ONE_AGENT = {
    "subprocess workers": "double_dqn",
    "stacked images": "per_dqn",
    "dict observations": "rainbow",
    "global generators": "noisy_dqn",
    "rare draws": "dqn",
    "demonstrations": "per_dqn",
    "action masks": "m_iqn",
}
"""Environments that are tested with one agent only, because the agent makes no difference there."""
TURNS = ["four cartpoles", "cartpole", "lunarlander", "minatar"]
"""Environments of which each agent takes one; tests/soak runs every agent in every environment."""
STEPS = 600
EXPLORATION = 250
BUDGET = [
    f"trainer.max_steps={STEPS}",
    "trainer.eval_frequency=200",
    "trainer.eval_episodes=2",
    "trainer.checkpoint_frequency=90",
    "trainer.log_frequency=70",
    "trainer.max_steps_per_episode=200",
    "trainer.target_return=null",
    "agent.learning_starts=100",
    "agent.batch_size=16",
    "agent.target_update_every=90",
    "agent.replay.capacity=400",
    "logging=[file,jsonl,csv]",
    "hydra.run.dir=run",
]


def cases() -> list[tuple[str, str]]:
    """Every agent in one of TURNS; the agents in ONE_AGENT."""
    turns = [(TURNS[number % len(TURNS)], agent) for number, agent in enumerate(agent_options())]
    return turns + list(ONE_AGENT.items())


def marked_cases() -> list[Any]:
    """The cases; agents run at night once each env had its turn. Rainbow, in ONE_AGENT, has most parts.

    Subprocess workers too: tests/envs/test_subprocess_worker.py resumes a run that uses them.
    """
    agents = agent_options()
    nightly = {*agents[len(TURNS) :]}
    return [
        pytest.param(env, agent, marks=pytest.mark.nightly)
        if (agent in nightly and env not in ONE_AGENT) or env == "subprocess workers"
        else (env, agent)
        for env, agent in cases()
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("env", "option"), marked_cases())
def test_run_killed_several_times_equals_an_uninterrupted_run(env: str, option: str, tmp_path: Path) -> None:
    """It is killed while it writes a checkpoint, and between two checkpoints."""
    command = [f"agent={option}", *ENVS[env], *BUDGET, *short_schedule(option, EXPLORATION)]
    compare_with_killed(command, tmp_path, f"{env} {option}", curves=(env, option) == cases()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 2])
def test_run_whose_network_and_environment_draw_from_global_generators(num_envs: int, tmp_path: Path) -> None:
    command = [
        "agent=double_dqn",
        *ENVS["global generators"],
        f"env.num_envs={num_envs}",
        "agent/network=custom",
        "agent.network.target=tests.support.own_networks:Drawing",
        *BUDGET,
        *short_schedule("double_dqn", EXPLORATION),
    ]
    compare_with_killed(command, tmp_path, "drawing network")


def compare_with_killed(command: list[str], tmp_path: Path, name: str, curves: bool = False) -> None:
    """Run `command` as a whole and with interruptions; `name` decides where it is killed."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for cwd in (whole, killed):
        cwd.mkdir()
    assert crash.run(command, whole, curves=curves) == 0, (whole / "output").read_text()
    rng = random.Random(name)
    kills = [
        Kill("checkpoint", rng.randrange(1, crash.operations(whole) // 2)),
        Kill("step", rng.randrange(1, 60)),
    ]
    rng.shuffle(kills)
    for kill in kills:
        assert crash.run(command, killed, kill) == -9, (kill, (killed / "output").read_text())
    assert crash.run(command, killed, curves=curves) == 0, (killed / "output").read_text()
    assert (whole / "run" / "training_curves.png").exists() == curves
    assert crash.differences(whole / "run", killed / "run") == []
