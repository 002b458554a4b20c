"""Runs with action masks: what replay holds, and that every agent learns and resumes exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from dqn_runner.config.build import build_trainer
from dqn_runner.core.exceptions import DamagedError
from dqn_runner.core.rng import stream
from dqn_runner.core.types import EnvSpec
from dqn_runner.replay.prioritized import PrioritizedReplay
from dqn_runner.replay.uniform import UniformReplay
from dqn_runner.training.stored_state import check_state
from dqn_runner.training.trainer import Trainer
from tests.end_to_end.test_learning import TOLERANCE, learned_values, settings_of
from tests.support.masked import ForbiddenValue, Guarded
from tests.support.probes import agent_options, agents_of_ci, compose_run
from tests.training.test_state import stored

pytestmark = pytest.mark.usefixtures("no_curves")

GUARDED = ("env=gym", f"env.id={__name__}:Recorded")
INFO = ("env.action_mask=info",)
KEY = ("env.action_mask=legal", "env.kwargs.form=key")
SMALL = (
    *("agent.batch_size=8", "agent.learning_starts=20", "agent.replay.capacity=300", "agent.train_every=4"),
    *("agent/network=mlp", "agent.network.hidden=[8]", "agent.target_update_every=10", "logging=[]"),
    *("trainer.max_steps_per_episode=7", "trainer.max_steps=null", "trainer.max_episodes=60"),
    "trainer.eval_episodes=2",
)


class Recorded(Guarded):
    """Remembers the mask of every observation."""

    MASKS: ClassVar[dict[bytes, list[bool]]] = {}

    def _answer(self, terminated: bool) -> Any:
        obs, info = super()._answer(terminated)
        sensor = obs["sensor"] if isinstance(obs, dict) else obs
        self.MASKS[sensor.tobytes()] = [True] * self.num_actions if terminated else (self.mask > 0).tolist()
        return obs, info


def make(run_dir: Path, *settings: str) -> Trainer:
    return build_trainer(compose_run([*GUARDED, *SMALL, *settings]), run_dir, {}, None)


def columns_of(trainer: Trainer) -> dict[str, Any]:
    """All transitions of the replay, in the form in which they are drawn."""
    storage: Any = trainer.replay._storage  # pyright: ignore
    ring = storage.ring
    return storage.take(np.arange(ring.start, ring.stop) % ring.capacity)


@pytest.mark.parametrize(
    "settings",
    [
        (*INFO,),
        (*KEY, "agent.n_step=3", "env.num_envs=2", "agent/replay=prioritized"),
        (*INFO, "agent.n_step=2", "env.frame_stack=3", "env.kwargs.image=true"),
        (*KEY, "env.frame_stack=2", "env.kwargs.actions=bits", "agent.replay.capacity=40"),
    ],
    ids=["one step", "three steps", "frames", "key and frames"],
)
def test_replay_holds_the_masks_of_both_states_of_every_transition(
    settings: tuple[str, ...], tmp_path: Path
) -> None:
    """Of the state that is bootstrapped from, truncated ones included, and all actions if it is terminal."""
    trainer = make(tmp_path, *settings)
    trainer.train()
    columns, stacked = columns_of(trainer), "frames" in str(settings) or "frame_stack" in str(settings)
    assert len(columns["mask"]) >= 30
    newest = (lambda obs: obs[-1]) if stacked else (lambda obs: obs)
    bootstraps = 0
    for name, key in (("mask", "obs"), ("next_mask", "next_obs")):
        assert columns[name].dtype == bool
        for obs, mask, discount in zip(columns[key], columns[name], columns["discount"], strict=True):
            recorded = Recorded.MASKS[newest(obs).tobytes()]
            assert mask.tolist() == recorded
            bootstraps += discount > 0 and not all(recorded)
    assert bootstraps > 10
    taken = columns["mask"][np.arange(len(columns["action"])), columns["action"]]
    assert taken.all()


def test_a_replay_without_masks_has_no_column_for_them(tmp_path: Path) -> None:
    trainer = build_trainer(compose_run(["env=cartpole", *SMALL]), tmp_path, {}, None)
    trainer.loop.advance(None, None)
    assert list(trainer.replay.state_dict()["rows"].all()) == [
        "obs",
        "action",
        "reward",
        "discount",
        "next_obs",
    ]
    assert trainer.collector.envs.masks is None


@pytest.mark.parametrize("part", [UniformReplay, PrioritizedReplay])
@pytest.mark.parametrize("actions", [1, 8, 9, 18])
def test_the_memory_of_masks_is_estimated(part: Any, actions: int) -> None:
    """Two masks of a bit for each action."""
    plain, masked = (EnvSpec((4,), actions, has_action_mask=has) for has in (False, True))
    replay = part(capacity=100)
    size = 2 * ((actions + 7) // 8) * 100
    assert replay.num_bytes(masked) - replay.num_bytes(plain) == size
    assert replay.disk_usage(masked).shared - replay.disk_usage(plain).shared == size
    rows = replay.build(masked, 1, 0.9, 1, stream(0, "replay"))
    mask = np.arange(actions) % 3 == 0
    obs = np.zeros(4, np.float32)
    rows.add(0, obs, 0, 0.0, False, True, obs, mask, np.ones(actions, bool))
    drawn = rows.sample(2, 0).transition
    assert drawn.mask.tolist() == [mask.tolist()] * 2
    assert drawn.next_mask.tolist() == [[True] * actions] * 2


@pytest.mark.slow
@pytest.mark.parametrize("option", agent_options())
def test_every_agent_chooses_allowed_actions_only_and_resumes_exactly(option: str, tmp_path: Path) -> None:
    """An action that is not allowed raises. The mask of the open step is restored with its observation."""
    source = (INFO, KEY)[agent_options().index(option) % 2]
    settings = (f"agent={option}", *source, "env.num_envs=2", "agent.n_step=3")
    first, second = make(tmp_path / "1", *settings), make(tmp_path / "2", *settings)
    for _ in range(35):
        first.loop.advance(None, None)
    state = stored(first.state_dict())
    first._evaluate()  # pyright: ignore[reportPrivateUsage]
    second.load_state_dict(state)
    assert np.array_equal(second.collector.envs.masks, first.collector.envs.masks)  # pyright: ignore
    for trainer in (first, second):
        for _ in range(15):
            trainer.loop.advance(None, None)
    assert torch.equal(first.agent.learner.online, second.agent.learner.online)
    one, two = columns_of(first), columns_of(second)
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("option", agents_of_ci("dqn", "rainbow"))
def test_every_agent_learns_the_values_of_an_env_with_masks(option: str, tmp_path: Path) -> None:
    """A target that took the best of all actions would give the first states a value of 0.9."""
    env = ["env=gym", f"env.id={ForbiddenValue.__module__}:ForbiddenValue", "env.action_mask=info"]
    settings = [f"agent={option}", *env, *settings_of(option), "trainer.max_episodes=200"]
    trainer = build_trainer(compose_run(settings), tmp_path, {}, None)
    trainer.train()
    rule = trainer.agent.config.loss.target
    for observation, values in ForbiddenValue.VALUES.items():
        found = trainer.agent.q_values(np.array([[observation]], np.float32))[0]
        expected = values if observation == 0 else learned_values(rule, values)  # at 0 there is no choice
        assert found == pytest.approx(expected, abs=TOLERANCE), observation


@pytest.mark.parametrize("option", ["dqn", "m_iqn", "rainbow"])
def test_a_run_whose_masks_allow_everything_equals_one_without_masks(option: str, tmp_path: Path) -> None:
    runs: list[Any] = []
    for name, settings in {
        "plain": (),
        "masked": ("env.wrappers=[tests.support.masked:AllAllowed]", "env.action_mask=info"),
    }.items():
        given = ["env=cartpole", f"agent={option}", *SMALL, "env.num_envs=2", *settings]
        trainer = build_trainer(compose_run(given), tmp_path / name, {}, None)
        for _ in range(40):
            trainer.loop.advance(None, None)
        state, metrics = trainer.state_dict(), trainer.recorder.metrics.state_dict()
        facts = (state["collector"]["rng"], state["collector"]["returns"], metrics["sums"], metrics["recent"])
        runs.append((trainer.agent.learner.online.tolist(), *facts))
    assert runs[0] == runs[1]


def test_an_episode_that_cannot_be_restored_is_truncated_with_its_mask(tmp_path: Path) -> None:
    """With checkpoint.allow_inexact_resume; its unfinished windows bootstrap from the stored observation."""
    settings = (*INFO, "agent.n_step=3", "checkpoint.allow_inexact_resume=true")
    first, second = make(tmp_path / "1", *settings), make(tmp_path / "2", *settings)
    while len(first.collector.envs.state_dict()["episodes"][0]["actions"]) < 2:
        first.collector.collect(first.agent, first.replay, *progress(first))
    state = stored(first.state_dict())
    state["collector"]["envs"]["episodes"][0]["rewards"][0] += 1
    second.load_state_dict(state)
    before = len(second.replay)
    second.loop.truncate_lost_episodes()
    columns, mask = columns_of(second), state["collector"]["envs"]["masks"][0].tolist()
    assert len(second.replay) == before + 2
    assert columns["next_mask"][-2:].tolist() == [mask, mask]


def progress(trainer: Trainer) -> Any:
    from dqn_runner.training.collector import Progress

    return Progress(trainer.step), trainer.step + 1, 10


FORGED: dict[str, Any] = {
    "state.collector.envs.masks are not 1 action masks": lambda s: s["collector"]["envs"].update(
        masks=torch.zeros(1, 5, dtype=torch.bool)
    ),
    "state.collector.envs.masks is uint8, not bool": lambda s: s["collector"]["envs"].update(
        masks=torch.ones(1, 5, dtype=torch.uint8)
    ),
    "'masks' is missing in state.collector.envs": lambda s: s["collector"]["envs"].pop("masks"),
    "state.replay.n_step.windows has a step that is not one": lambda s: [
        step.pop() for window in s["replay"]["n_step"]["windows"] for step in window
    ],
}


@pytest.mark.parametrize("problem", FORGED)
def test_a_state_with_other_masks_is_rejected(problem: str, tmp_path: Path) -> None:
    settings = (*INFO, "agent.n_step=3")
    first, second = make(tmp_path / "1", *settings), make(tmp_path / "2", *settings)
    while len(first.collector.envs.state_dict()["episodes"][0]["actions"]) < 2:
        first.collector.collect(first.agent, first.replay, *progress(first))
    state, spec = stored(first.state_dict()), first.collector.envs.spec
    check_state(state, second.state_dict(), spec)
    FORGED[problem](state)
    with pytest.raises(ValueError, match=f"^{problem}"):
        check_state(state, second.state_dict(), spec)


def test_stored_transitions_that_allow_no_action_are_damage(tmp_path: Path) -> None:
    first, second = make(tmp_path / "1", *INFO), make(tmp_path / "2", *INFO)
    for _ in range(10):
        first.loop.advance(None, None)
    storage: Any = first.replay._storage  # pyright: ignore
    storage.ring.columns["next_mask"][3] = 0
    with pytest.raises(DamagedError, match="an action mask that allows no action"):
        second.replay.load_state_dict(first.replay.state_dict())
