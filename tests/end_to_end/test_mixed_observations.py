"""Runs with Dict observations: every agent finds the informative entry, in every way of running."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqn_runner.agent.losses.categorical import Categorical
from dqn_runner.config.build import build_trainer
from tests.conftest import Outcome, records
from tests.support.mixed import Keys
from tests.support.probes import agent_options, compose_run, short_schedule

pytestmark = pytest.mark.usefixtures("no_curves")
STEPS = 300
SETTINGS = [
    *("env=gym", "env.id=tests.support.mixed:Keys", "agent/network=multi_input", "logging=[]"),
    *("agent.network.image_hidden=16", "agent.network.vector_hidden=[16]", "agent.network.hidden=[32]"),
    *("agent.learning_rate=3e-3", "agent.batch_size=32", "agent.learning_starts=50", "agent.train_every=1"),
    *("agent.target_update_every=5", f"trainer.max_steps={STEPS}", f"trainer.eval_frequency={STEPS}"),
    *("trainer.eval_episodes=40", "trainer.checkpoint_frequency=100000"),
]
KEYS = ["image", "vector", "category"]


def cases() -> list[Any]:
    """DQN with each entry and Rainbow, which has the parts of most agents; at night every agent with each."""
    return [
        (agent, key)
        if agent == "dqn" or (agent, key) == ("rainbow", "vector")
        else pytest.param(agent, key, marks=pytest.mark.nightly)
        for agent in agent_options()
        for key in KEYS
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("option", "key"), cases())
def test_every_agent_finds_the_entry_that_matters(option: str, key: str, tmp_path: Path) -> None:
    """The others are noise. A policy that ignores the entry is right in half of the episodes."""
    categorical = isinstance(compose_run([f"agent={option}"]).agent.loss, Categorical)
    support = ["agent.loss.v_min=-2", "agent.loss.v_max=2"] if categorical else []
    overrides = [f"agent={option}", *SETTINGS, *support, *short_schedule(option, 150)]
    stats = build_trainer(
        compose_run([*overrides, f"env.kwargs.informative={key}"]), tmp_path, {}, None
    ).train()
    assert stats.best_mean > 0.9


SHORT = [
    *SETTINGS[:-5],
    *("trainer.max_steps=120", "trainer.eval_frequency=60", "trainer.eval_episodes=2", "logging=[jsonl]"),
    *("agent.learning_starts=20", "agent.replay.capacity=200", "env.kwargs.length=7"),
]


def rows(directory: Path) -> list[Any]:
    """What a run logged, without times."""
    return [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in records(directory)
    ]


@pytest.mark.slow
def test_separate_processes_give_the_same_run(program: Callable[..., Outcome], tmp_path: Path) -> None:
    for how in ("sync", "async"):
        done = program(
            *SHORT, "env.num_envs=2", f"env.vectorization={how}", f"hydra.run.dir={tmp_path / how}"
        )
        assert done.status == 0, done.err
    assert rows(tmp_path / "sync") == rows(tmp_path / "async") != []


def test_several_keys_stay_apart_for_this_network_only(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    keys = ["env.observation_keys=[image,vector]", f"hydra.run.dir={tmp_path}"]
    shown = program(*SHORT, *keys, "--cfg", "job").out
    assert "separate_keys: true" in shown or "separate_keys: null" in shown
    assert program(*SHORT, *keys).status == 0
    assert program("mode=eval", f"checkpoint={tmp_path}", "evaluator.episodes=1", "trust=true").status == 0
    done = program(*SHORT, *keys, "env.flatten_observation=true", "resume=never", "env.separate_keys=false")
    assert done.status != 0
    assert "agent/network=multi_input needs Dict observations" in done.err


def test_a_changed_layout_is_another_run(program: Callable[..., Outcome], tmp_path: Path) -> None:
    directory = f"hydra.run.dir={tmp_path}"
    assert program(*SHORT, "env.observation_keys=[image,vector]", directory).status == 0
    done = program(*SHORT, "env.observation_keys=[image,category]", directory)
    assert done.status != 0
    assert "observation_keys" in done.err
    assert "Traceback" not in done.err


def test_a_script_gives_the_space_of_its_environment(tmp_path: Path) -> None:
    from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig, load_agent

    env = Keys(length=5)
    agent = DQNAgent(
        DQNConfig(state_dim=env.observation_space, action_dim=2, learning_starts=20, batch_size=8)
    )
    Trainer(agent, env, TrainingConfig(max_steps=60, max_episodes=None, eval_episodes=1), tmp_path).train()
    loaded = load_agent(tmp_path)
    obs, _ = env.reset(seed=1)
    batch = {key: np.stack([obs[key], obs[key]]) for key in obs}
    assert loaded.predict(obs) in (0, 1)
    assert loaded.predict(batch).shape == (2,)
