"""Known mistakes of DQN implementations, numbered as in docs/pitfalls.md: data, evaluation and seeding.

The mistakes in updates and their schedule are in test_pitfalls_updates.py; tests of single parts that carry a
number are with the tests of the part.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from dqn_runner import DQNAgent, DQNConfig, Trainer, TrainingConfig
from dqn_runner.agent.networks.architectures import Mlp
from dqn_runner.config.build import build_trainer
from dqn_runner.core.types import IntArray
from dqn_runner.replay.uniform import UniformReplay
from tests.support.diary import (
    GAMMA,
    NEVER,
    Diaries,
    Diary,
    RecordingExploration,
    StepRecord,
    make_trainer,
    stored_transitions,
    train,
)
from tests.support.probes import agents_of_ci, compose_run

TESTS = Path(__file__).parents[1]
PITFALLS = TESTS.parent / "docs" / "pitfalls.md"

pytestmark = pytest.mark.usefixtures("no_curves")

one_env_and_several = pytest.mark.parametrize("num_envs", [1, 3])


# The checklist


def numbered_tests() -> dict[str, set[str]]:
    """The names of all tests that carry a number of the checklist, by number."""
    found: dict[str, set[str]] = {}
    for path in TESTS.rglob("test_*.py"):
        for name, number in re.findall(r"def (test_pitfall_(\d+[a-z]?)_\w+)", path.read_text()):
            found.setdefault(number, set()).add(name)
    return found


def checklist_items() -> dict[str, str]:
    """The items of docs/pitfalls.md, by number."""
    parts = re.split(r"^### (\d+[a-z]?)\. ", PITFALLS.read_text(), flags=re.MULTILINE)[1:]
    numbers = [number if len(number.rstrip("abc")) == 2 else f"0{number}" for number in parts[::2]]
    return dict(zip(numbers, parts[1::2], strict=True))


def test_every_pitfall_has_a_test_and_every_numbered_test_its_pitfall() -> None:
    assert sorted(checklist_items()) == sorted(numbered_tests())


def test_tests_that_the_checklist_names_exist() -> None:
    tests = numbered_tests()
    for number, text in checklist_items().items():
        named = re.findall(r"`(test_\w+)`", text)
        assert named, f"item {number} names no test"
        assert set(named) <= tests.get(number, set()), f"item {number}"


# 1: terminations and truncations


def test_pitfall_01_only_terminations_stop_bootstrapping(tmp_path: Path) -> None:
    envs = Diaries(ends=("terminated", "truncated", "both"))
    stored = stored_transitions(train(tmp_path, envs, 100))
    assert [t.discount for t in stored] == [t.discount for t in envs.training[0].steps]
    last = [now for now, after in itertools.pairwise(stored) if now.episode != after.episode]
    assert [t.discount for t in last[:6]] == [0.0, GAMMA, 0.0, 0.0, GAMMA, 0.0]


def test_pitfall_01_max_steps_per_episode_truncates(tmp_path: Path) -> None:
    stored = stored_transitions(train(tmp_path, Diaries(ends=("never",)), 40, max_steps_per_episode=4))
    assert [t.obs[2] for t in stored] == [0, 1, 2, 3] * 10
    assert [t.discount for t in stored] == [GAMMA] * 40


def test_pitfall_01_termination_at_the_time_limit_is_a_termination(tmp_path: Path) -> None:
    stored = stored_transitions(train(tmp_path, Diaries(ends=("terminated",)), 36, max_steps_per_episode=3))
    assert [t.discount for t in stored] == [GAMMA, GAMMA, 0.0, *[GAMMA] * 6] * 4


class Endless(gymnasium.Env[Any, Any]):
    """Reward 1 in each step; episodes never end."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.ones(1, np.float32), 1.0, False, False, {}


def test_pitfall_01_truncated_episodes_of_an_endless_task_have_its_infinite_horizon_value(
    tmp_path: Path,
) -> None:
    agent = DQNAgent(
        DQNConfig(
            state_dim=1,
            action_dim=2,
            gamma=GAMMA,
            learning_rate=0.01,
            learning_starts=32,
            batch_size=32,
            train_every=1,
            target_update_every=20,
            network=Mlp(hidden=[16]),
        )
    )
    config = TrainingConfig(max_episodes=150, max_steps_per_episode=2, eval_frequency=NEVER)
    Trainer(agent, Endless(), config, tmp_path, loggers={}).train()
    assert agent.q_values(np.ones((1, 1), np.float32))[0] == pytest.approx(1 / (1 - GAMMA), abs=0.05)


# 2 and 3: resets


@one_env_and_several
@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_pitfall_02_next_obs_at_the_end_of_an_episode_is_its_final_observation(
    num_envs: int, end: str, tmp_path: Path
) -> None:
    for transition in stored_transitions(train(tmp_path, Diaries(num_envs, (end,)), 60)):
        copy, episode, now = transition.obs
        assert transition.next_obs == [copy, episode, now + 1]


@one_env_and_several
def test_pitfall_03_every_env_step_is_stored_once_and_resets_are_not(num_envs: int, tmp_path: Path) -> None:
    """The stored action is the one that was taken."""
    envs = Diaries(num_envs)
    trainer = train(tmp_path, envs, 60)
    assert trainer.step == 60
    in_order = zip(*(diary.steps for diary in envs.training), strict=True)
    assert stored_transitions(trainer) == [step for steps in in_order for step in steps]


@one_env_and_several
def test_pitfall_03_every_episode_starts_at_its_reset_observation(num_envs: int, tmp_path: Path) -> None:
    envs = Diaries(num_envs)
    trainer = train(tmp_path, envs, 66)
    starts = [t.episode for t in stored_transitions(trainer) if t.obs[2] == 0]
    assert sorted(starts) == sorted([d.copy, e] for d in envs.training for e in range(d.episode + 1))
    lengths = sorted(trainer.recorder.metrics.episodes.columns["length"])
    assert lengths == sorted(Diary.LENGTHS[e % 3] for d in envs.training for e in range(d.episode))


# 4 and 15: n-step transitions and the replay


def check_n_step_transition(transition: StepRecord, n_step: int, ends: tuple[str, ...]) -> None:
    """Its rewards are t+1, t+2, … of one episode, and its discount is that of their number."""
    copy, episode, start = transition.obs
    assert transition.next_obs[:2] == [copy, episode]
    k, last = transition.length, transition.next_obs[2]
    at_end = last == Diary.LENGTHS[int(episode) % 3]
    assert k == n_step or (at_end and 1 <= k < n_step)
    assert transition.reward == sum(GAMMA**i * (start + i + 1) for i in range(k))
    terminated = at_end and ends[int(episode) % len(ends)] != "truncated"
    assert transition.discount == (0.0 if terminated else GAMMA**k)


@one_env_and_several
@pytest.mark.parametrize("ends", [("terminated", "truncated"), ("truncated",), ("terminated",)])
@pytest.mark.parametrize("n_step", [2, 3, 7])
def test_pitfall_04_n_step_transitions_end_with_the_episode_and_are_discounted_by_their_length(
    n_step: int, ends: tuple[str, ...], num_envs: int, tmp_path: Path
) -> None:
    for transition in stored_transitions(train(tmp_path, Diaries(num_envs, ends), 60, n_step=n_step)):
        check_n_step_transition(transition, n_step, ends)


@one_env_and_several
@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_pitfall_04b_every_state_of_an_episode_starts_an_n_step_transition(
    num_envs: int, end: str, tmp_path: Path
) -> None:
    """The last n-1 states start shorter ones."""
    envs = Diaries(num_envs, (end,))
    stored = stored_transitions(train(tmp_path, envs, 60, n_step=3))
    for diary in envs.training:
        for episode in range(diary.episode):
            starts = [t.obs[2] for t in stored if t.episode == [diary.copy, episode]]
            assert starts == list(range(Diary.LENGTHS[episode % 3]))


@pytest.mark.parametrize("capacity", [8, 11])
@pytest.mark.parametrize("n_step", [1, 3])
def test_pitfall_15_a_replay_that_is_overwritten_holds_valid_transitions(
    n_step: int, capacity: int, tmp_path: Path
) -> None:
    envs = Diaries(2)
    trainer = train(tmp_path, envs, 90, n_step=n_step, replay=UniformReplay(capacity=capacity))
    stored = stored_transitions(trainer)
    assert len(stored) == capacity
    assert len({tuple(t.obs) for t in stored}) == capacity
    for transition in stored:
        check_n_step_transition(transition, n_step, envs.ends)


# 10 and 11: returns and evaluation


@one_env_and_several
def test_pitfall_10_returns_are_undiscounted_sums_over_whole_episodes(num_envs: int, tmp_path: Path) -> None:
    """In training and in evaluation."""
    envs = Diaries(num_envs)
    metrics = train(tmp_path, envs, 60, n_step=3, eval_frequency=30, eval_episodes=3).recorder.metrics
    per_length = dict(
        zip(metrics.episodes.columns["length"], metrics.episodes.columns["return"], strict=True)
    )
    assert per_length == {3: 1 + 2 + 3, 4: 1 + 2 + 3 + 4, 5: 1 + 2 + 3 + 4 + 5}
    assert metrics.eval["returns"] == [[6, 15, 10]] * 2


def test_pitfall_11_every_evaluation_is_greedy_and_uses_the_same_seeds(tmp_path: Path) -> None:
    envs = Diaries()
    trainer = make_trainer(
        tmp_path, envs, 60, exploration=RecordingExploration(epsilon=1.0), eval_frequency=20, eval_episodes=3
    )
    greedy = trainer.agent.greedy
    greedy_actions: list[int] = []

    def record_greedy(obs: Any) -> IntArray:
        actions = greedy(obs)
        greedy_actions.extend(actions.tolist())
        return actions

    trainer.agent.greedy = record_greedy
    trainer.train()
    diary = envs.evaluation
    assert [step.action for step in diary.steps] == greedy_actions
    assert len(diary.seeds) == 3 * 3
    assert diary.seeds[:3] == diary.seeds[3:6] == diary.seeds[6:]
    assert len(set(diary.seeds)) == 3
    assert not set(diary.seeds) & set(envs.training[0].seeds)


def test_pitfall_11_max_steps_per_episode_truncates_evaluation_episodes_too(tmp_path: Path) -> None:
    envs = Diaries(ends=("never",))
    trainer = train(tmp_path, envs, 20, max_steps_per_episode=6, eval_frequency=20, eval_episodes=2)
    assert trainer.recorder.metrics.eval["length_mean"] == [6.0]
    assert trainer.recorder.metrics.eval["returns"] == [[21.0, 21.0]]


@one_env_and_several
def test_pitfall_11_evaluation_does_not_change_training(num_envs: int, tmp_path: Path) -> None:
    def run(name: str, **settings: Any) -> tuple[Any, ...]:
        envs = Diaries(num_envs)
        trainer = train(tmp_path / name, envs, 120, early_stopping=False, **settings)
        return [d.steps for d in envs.training], trainer.agent.learner.online.tolist()

    without = run("never")
    assert run("often", eval_frequency=6, eval_episodes=7) == without
    assert run("sometimes", eval_frequency=50, eval_episodes=1) == without


# 22: seeding


def test_pitfall_22_every_episode_of_every_env_has_its_own_seed(tmp_path: Path) -> None:
    def seeds(name: str, seed: int) -> tuple[list[Any], list[Any]]:
        envs = Diaries(num_envs=4)
        train(tmp_path / name, envs, 200, seed=seed, eval_frequency=100)
        return [s for diary in envs.training for s in diary.seeds], envs.evaluation.seeds

    training, evaluation = seeds("first", seed=0)
    assert len(training) > 40
    assert None not in training
    assert len({*training, *evaluation}) == len(training) + len(set(evaluation))
    assert seeds("again", seed=0) == (training, evaluation)
    other_training, other_evaluation = seeds("other", seed=1)
    assert not set(training) & set(other_training)
    assert other_evaluation == evaluation, "different runs are evaluated on the same episodes"


_GLOBAL_SEEDS = itertools.count(3)


class ReseedsGlobals(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Seeds every global generator at each step, as other code in the process may."""

    def step(self, action: Any) -> Any:
        seed_global_generators(next(_GLOBAL_SEEDS))
        return super().step(action)


def seed_global_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


@pytest.fixture
def _restore_global_generators() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002


def cartpole_metrics(run_dir: Path, *overrides: str) -> list[str]:
    """The lines of metrics.jsonl of a short run, without the keys that depend on time."""
    settings = [
        "trainer=default",
        "trainer.max_episodes=16",
        "trainer.eval_frequency=5",
        "trainer.eval_episodes=2",
        "trainer.log_frequency=2",
        "agent.learning_starts=50",
        "agent.batch_size=16",
        "env.num_envs=2",
        "logging=jsonl",
    ]
    build_trainer(compose_run([*settings, *overrides]), run_dir, {}, None).train()
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert {record["kind"] for record in records} == {"episode", "train", "eval"}
    assert any("train/loss" in record for record in records)
    return [json.dumps({k: v for k, v in r.items() if not k.startswith("time/")}) for r in records]


@pytest.mark.usefixtures("_restore_global_generators")
@pytest.mark.parametrize("option", agents_of_ci("dqn", "iqn", "rainbow"))
def test_pitfall_22_a_run_depends_only_on_its_seed(option: str, tmp_path: Path) -> None:
    """Not on the state of the global generators of Python, numpy and torch, even if it changes."""
    reseeds = f"env.wrappers=[{__name__}:ReseedsGlobals]"
    seed_global_generators(1)
    first = cartpole_metrics(tmp_path / "first", f"agent={option}")
    seed_global_generators(2)
    assert cartpole_metrics(tmp_path / "again", f"agent={option}", reseeds) == first
    assert cartpole_metrics(tmp_path / "other", f"agent={option}", "seed=1") != first


@pytest.mark.usefixtures("_restore_global_generators")
def test_pitfall_22_a_run_does_not_change_the_global_generators(tmp_path: Path) -> None:
    def states() -> tuple[Any, ...]:
        _, keys, *rest = np.random.get_state()  # noqa: NPY002
        return random.getstate(), keys.tolist(), rest, torch.get_rng_state().tolist()

    before = states()
    cartpole_metrics(tmp_path)
    assert states() == before


def test_pitfall_22_a_run_does_not_depend_on_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = cartpole_metrics(tmp_path / "normal")
    now = 0.0

    def an_hour_later() -> float:
        nonlocal now
        now += 3600
        return now

    monkeypatch.setattr(time, "perf_counter", an_hour_later)
    assert cartpole_metrics(tmp_path / "fast clock") == expected
