"""Environments that draw from global random generators resume exactly, and do not disturb others."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.rng import seed_for
from dqn_runner.envs.base import Vectorization
from dqn_runner.envs.generators import EpisodeGenerators, OwnGenerators
from dqn_runner.envs.gym import GymEnv
from dqn_runner.envs.make_workers import make_worker, worker_factory
from dqn_runner.envs.vector_env import VectorEnv
from dqn_runner.training.evaluator import Evaluator
from tests.support.drawing import LENGTH, Drawing
from tests.support.stepped import stepped

STEPS = 200


def part(num_envs: int = 1, vectorization: str = "sync", **kwargs: Any) -> GymEnv:
    return GymEnv(
        id="tests.support.drawing:Drawing",
        kwargs=kwargs,
        num_envs=num_envs,
        vectorization=Vectorization[vectorization],
    )


def vector_env(env: GymEnv, seed: int = 0, inexact: bool = False) -> VectorEnv:
    return VectorEnv(
        [make_worker(env, seed, index) for index in range(env.num_envs)],
        lambda index, episode: seed_for(seed, "env", index, episode),
        None,
        worker_factory(env, seed),
        inexact,
    )


def play(envs: VectorEnv, steps: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(steps):
        result = stepped(envs, [0] * envs.num_envs)
        found.append([np.asarray(column).tolist() for column in result])
    return found


def disturb() -> None:
    """What another run, or a user, does with the global generators."""
    random.seed(random.randrange(10**9))
    np.random.seed(random.randrange(10**9))  # noqa: NPY002
    torch.manual_seed(random.randrange(10**9))


def run_in_parts(env: GymEnv, cuts: list[int], steps: int = STEPS) -> list[Any]:
    """The steps of a run that is stopped at `cuts` and resumed by a new process each time."""
    found: list[Any] = []
    state: Any = None
    for begin, end in zip([0, *cuts], [*cuts, steps], strict=True):
        disturb()
        with OwnGenerators(5):
            envs = vector_env(env)
            if state is not None:
                envs.load_state_dict(state)
            found += play(envs, end - begin)
            state = envs.state_dict()
            envs.close()
    return found


CASES: dict[str, dict[str, Any]] = {
    **{source: {"source": source} for source in ("random", "numpy", "torch")},
    **{f"rare {source}": {"source": source, "rare": True} for source in ("random", "numpy", "torch")},
    "only rewards": {"what": "reward"},
    "only rewards, numpy": {"source": "numpy", "what": "reward"},
    "only ends": {"source": "numpy", "what": "end"},
    "only rewards, rare": {"source": "random", "what": "reward", "rare": True},
    "two copies": {"num_envs": 2},
    "two copies, numpy": {"num_envs": 2, "source": "numpy", "what": "reward"},
}


@pytest.mark.parametrize("case", CASES)
def test_run_is_a_function_of_its_seed_and_resumes_exactly(case: str) -> None:
    env = part(**CASES[case])
    whole = run_in_parts(env, [])
    assert run_in_parts(env, []) == whole
    for cuts in ([5], [30], [17, 18, 64, 130], [199]):
        assert run_in_parts(env, cuts) == whole


@pytest.mark.parametrize("rare", [False, True], ids=["always", "rarely"])
def test_resume_is_exact_at_every_step(rare: bool) -> None:
    env = part(source="numpy", what="obs", rare=rare)
    whole = run_in_parts(env, [], 60)
    for cut in range(1, 60):
        assert run_in_parts(env, [cut], 60) == whole, cut


@pytest.mark.slow
def test_async_copies_resume_exactly_and_equal_sync_copies() -> None:
    whole = run_in_parts(part(2, source="numpy"), [])
    assert run_in_parts(part(2, "async", source="numpy"), [65]) == whole
    rare = part(2, "async", rare=True, what="reward")
    assert run_in_parts(rare, [70, 95]) == run_in_parts(rare, [])


def test_evaluation_is_a_function_of_its_seeds_and_does_not_disturb_training() -> None:
    env = part(source="numpy", rare=True)
    evaluator = Evaluator(part(source="random", what="reward").make(), lambda k: k, 50)

    def evaluate() -> list[float]:
        return evaluator.run(lambda obs: np.zeros(len(obs), np.int64), 2).returns

    expected = run_in_parts(env, [])
    with OwnGenerators(5):
        envs = vector_env(env)
        found: list[Any] = []
        returns = [evaluate()]
        for _ in range(STEPS // 5):
            found += play(envs, 5)
            returns.append(evaluate())
    assert found == expected
    assert all(each == returns[0] for each in returns)
    assert returns[0][0] != returns[0][1]


def test_global_generators_of_the_user_are_left_as_they_were() -> None:
    disturb()
    np.random.randn()  # noqa: NPY002, the second variate of the pair is cached now
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002
    with OwnGenerators(1):
        for source in ("random", "numpy", "torch"):
            play(vector_env(part(source=source)), 30)
    assert (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()) == before  # noqa: NPY002


def test_env_that_draws_nothing_has_no_own_state_after_its_first_episode() -> None:
    with OwnGenerators(1):
        envs = vector_env(part(source="episodes"))
        play(envs, 30)
        assert envs.state_dict()["episodes"][0]["generators"] == []
        drawing = vector_env(part(source="random"))
        assert drawing.state_dict()["episodes"][0]["generators"] is None
        play(drawing, 30)
        assert drawing.state_dict()["episodes"][0]["generators"] == ["random"]


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(1)], ids=["p", "n", "t"])
def test_one_draw_is_noticed(draw: Any) -> None:
    with OwnGenerators(1):
        generators = EpisodeGenerators(3)
        generators.restart(0, ())
        assert generators.end_episode() == ()
        draw()
        assert len(generators.end_episode()) == 1


HIDDEN: dict[str, tuple[dict[str, Any], str]] = {
    "observations": ({"source": "unseeded"}, r"the observation of the reset differs"),
    "rewards": ({"source": "unseeded", "what": "reward"}, r"the reward of step 1 is "),
    "rewards by episodes": (
        {"source": "episodes", "what": "reward"},
        r"the reward of step 1 is 0\.3\d*, it was 0\.",
    ),
    "ends by episodes": ({"source": "episodes", "what": "end"}, r"it ended in step \d+"),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_state_that_no_seed_determines_is_reported_on_resume(case: str) -> None:
    kwargs, message = HIDDEN[case]
    with OwnGenerators(1):
        envs = vector_env(part(num_envs=2, **kwargs))
        play(envs, 40 if case != "ends by episodes" else 9)
        state = envs.state_dict()
        again = vector_env(part(num_envs=2, **kwargs))
        if case == "ends by episodes":
            for worker in again.workers:
                worker.env.env.unwrapped.episodes = 50  # type: ignore[attr-defined]
        with pytest.raises(UserError, match=rf"Drawing \(1 of 2\) did not repeat .*: {message}"):
            again.load_state_dict(state)
        tolerant = vector_env(part(num_envs=2, **kwargs), inexact=True)
        tolerant.load_state_dict(state)


@pytest.mark.parametrize("what", ["obs", "reward", "end"])
def test_env_that_counts_its_episodes_is_reported_when_only_its_last_episode_shows_it(what: str) -> None:
    env = part(source="episodes", what=what, rare=True)
    messages: list[str] = []
    with OwnGenerators(1):
        envs = vector_env(env)
        for _ in range(24 * LENGTH):
            play(envs, 1)
            state = envs.state_dict()
            if len(state["episodes"][0]["actions"]) == 2:
                try:
                    vector_env(env).load_state_dict(state)
                except UserError as error:
                    messages.append(str(error))
    assert messages
    assert all("did not repeat its last episode" in message for message in messages)


@pytest.mark.parametrize("limit", [LENGTH - 1, LENGTH, LENGTH + 1])
def test_last_episode_may_end_at_the_step_limit(limit: int) -> None:
    def make() -> VectorEnv:
        return VectorEnv([make_worker(part())], lambda _, episode: episode, limit)

    with OwnGenerators(1):
        envs = make()
        play(envs, 2 * LENGTH + 2)
        again = make()
        again.load_state_dict(envs.state_dict())
        assert play(again, 30) == play(envs, 30)


def test_first_draws_of_copies_that_share_a_generator_are_reported_not_resumed_inexactly() -> None:
    """They draw in turn, so that a replay of one after the other cannot repeat it."""
    env = part(num_envs=2, source="random", rare=True, what="reward")
    with OwnGenerators(1):
        whole = vector_env(env)
        results, states = [], []
        for _ in range(120):
            results += play(whole, 1)
            states.append(whole.state_dict())
    rejected = 0
    for cut in range(0, 119, 3):
        with OwnGenerators(1):
            resumed = vector_env(env)
            try:
                resumed.load_state_dict(states[cut])
            except UserError:
                rejected += 1
                continue
            assert play(resumed, 119 - cut) == results[cut + 1 :]
    assert rejected < 10, "only the episodes of the first draws cannot be resumed"


def test_env_is_created_with_seeded_generators() -> None:
    sizes = []
    for _ in range(2):
        disturb()
        envs = vector_env(part(num_envs=2))
        sizes.append([worker.env.env.unwrapped.size for worker in envs.workers])  # type: ignore[attr-defined]
    assert sizes[0] == sizes[1]
    assert sizes[0][0] != sizes[0][1]
    assert isinstance(Drawing().size, float)
