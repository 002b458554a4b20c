"""Runs that begin with recorded transitions: what the replay holds, and how they resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from dqn_runner import DQNAgent, DQNConfig, TrainingConfig
from dqn_runner.agent.exploration import EpsilonGreedy
from dqn_runner.agent.observation_normalizer import ObservationNormalizer
from dqn_runner.agent.schedules import Constant
from dqn_runner.checkpointing.format import load_checkpoint
from dqn_runner.config.build import build_trainer
from dqn_runner.core.exceptions import UserError
from dqn_runner.replay.demonstrations import ReplayWithDemonstrations
from dqn_runner.replay.uniform import UniformReplay
from dqn_runner.training import assembly
from dqn_runner.training.trainer import Trainer
from tests.conftest import Outcome
from tests.support.probes import compose_run
from tests.support.recordings import FILE, arrays, next_observations, provide, record

pytestmark = pytest.mark.usefixtures("no_curves")
SMALL = [
    *("agent.learning_starts=8", "agent.batch_size=16", "agent.replay.capacity=400", "agent.train_every=1"),
    *("trainer.max_steps_per_episode=30", "trainer.max_steps=40", "logging=[]"),
]
SHARE = "agent.replay.demonstrations=0.25"
DICTS = [
    *("env=gym", "env.id=tests.support.mixed:Stacked", "env.frame_stack=2", "agent.n_step=2"),
    *("agent/network=multi_input", "agent.network.hidden=[8]", "agent.network.image_hidden=8"),
    "env.normalize_observations=true",
]
MASKS = [
    *(
        "env=gym",
        "env.id=tests.support.masked:Guarded",
        "env.kwargs={form: key, image: true, actions: joint}",
    ),
    *("env.action_mask=legal", "env.frame_stack=3", "agent/network=mlp", "agent.network.hidden=[8]"),
]


def make(tmp_path: Path, *settings: str, name: str = "run") -> Trainer:
    """A trainer whose recording is `tmp_path`/FILE, made if it is missing."""
    words = [*settings, f"agent.replay.preload={FILE}"]
    provide(words, tmp_path)
    words[-1] = f"agent.replay.preload={tmp_path / FILE}"
    return build_trainer(compose_run([*SMALL, *words]), tmp_path / name, {}, None)


def rows(replay: Any) -> dict[str, Any]:
    return replay.state_dict()["rows"].all()


@pytest.mark.parametrize("n_step", [1, 3])
def test_the_replay_holds_the_recording_before_the_first_step(n_step: int, tmp_path: Path) -> None:
    """n-step returns of scaled and clipped rewards within episodes, whose ends bootstrap or not."""
    found = arrays(record(["env=cartpole"], tmp_path / FILE))
    count = len(found["actions"])
    rewards = np.arange(count) / 10
    np.savez(tmp_path / FILE, **{**found, "rewards": rewards})
    settings = ("env.reward_scale=2", "env.reward_clip=3", f"agent.n_step={n_step}", "agent.gamma=0.5")
    trainer = make(tmp_path, *settings)
    trainer.prepare()
    held, after = rows(trainer.replay), next_observations(tmp_path / FILE)
    assert trainer.step == 0
    ends = np.flatnonzero(found["terminations"] | found["truncations"])
    learned = np.minimum(rewards * 2, 3)
    for index in range(count):
        last = min(index + n_step - 1, ends[ends >= index][0])
        window = np.arange(index, last + 1)
        expected = (learned[window] * 0.5 ** (window - index)).sum()
        discount = 0.0 if found["terminations"][last] else 0.5 ** len(window)
        assert np.array_equal(held["obs"][index], found["observations"][index])
        assert np.array_equal(held["next_obs"][index], after[last])
        assert held["action"][index] == found["actions"][index]
        assert held["reward"][index] == pytest.approx(expected)
        assert held["discount"][index] == discount
    assert len(held["reward"]) == count


def test_an_open_last_episode_is_truncated(tmp_path: Path) -> None:
    found = arrays(record(["env=cartpole"], tmp_path / FILE))
    found["terminations"][-1] = found["truncations"][-1] = False
    np.savez(tmp_path / FILE, **found)
    trainer = make(tmp_path, "agent.n_step=3")
    trainer.prepare()
    held = rows(trainer.replay)
    assert len(held["obs"]) == len(found["actions"])
    assert np.array_equal(held["next_obs"][-1], found["final_observations"][-1])
    assert held["discount"][-1] > 0
    trainer.loop.advance(None, None)  # no window of the recording is open
    assert len(trainer.replay) == len(found["actions"])


@pytest.mark.parametrize("share", [(), (SHARE,)], ids=["ordinary", "reserved"])
def test_statistics_of_observations_begin_with_the_recording(share: tuple[str, ...], tmp_path: Path) -> None:
    trainer = make(tmp_path, "env=cartpole", "env.normalize_observations=true", *share)
    trainer.prepare()
    expected = ObservationNormalizer((4,))
    expected.update(arrays(tmp_path / FILE)["observations"])
    assert np.allclose(trainer.agent.normalization(), (expected.mean, expected.deviation))


@pytest.mark.parametrize(
    "env",
    [["env=cartpole", "env.num_envs=2", "agent.n_step=3"], DICTS, MASKS],
    ids=["vectors", "dicts", "masks"],
)
def test_demonstrations_stay_whole_and_a_resume_is_exact(env: list[str], tmp_path: Path) -> None:
    """The recording is gone when the run resumes: its checkpoint holds the transitions."""
    settings = (*env, "agent/replay=prioritized", "agent.replay.capacity=20", SHARE)
    first = make(tmp_path, *settings)
    first.prepare()
    assert isinstance(first.replay, ReplayWithDemonstrations)
    begun = rows(first.replay.demonstrations)
    for _ in range(30):
        first.loop.advance(None, None)
    first.directory.save(first.state_dict(), first.step, [])
    first.directory.checkpoints.close()
    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "latest.pt")["state"]
    second = make(tmp_path, *settings, name="other")
    (tmp_path / FILE).unlink()
    second.load_state_dict(state)
    for trainer in (first, second):
        for _ in range(10):
            trainer.loop.advance(None, None)
        assert isinstance(trainer.replay, ReplayWithDemonstrations)
        kept = rows(trainer.replay.demonstrations)
        assert all(np.array_equal(kept[name], begun[name]) for name in begun)
    assert len(begun["action"]) == state["preloaded"]["transitions"]
    assert torch.equal(first.agent.learner.online, second.agent.learner.online)
    assert first.preload.origin == second.preload.origin


def test_a_run_without_a_recording_stores_nothing_of_it(tmp_path: Path) -> None:
    trainer = build_trainer(compose_run(SMALL), tmp_path, {}, None)
    state = trainer.state_dict()
    assert "preloaded" not in state
    assert "demonstrations" not in state["replay"]
    assert trainer.preload.origin is None


REJECTED = {
    "agent.replay.capacity=16": r"has \d+ transitions, more than agent.replay.capacity=16",
    "agent.replay.demonstrations=0.01": "of agent.batch_size=16 is less than one transition",
    "agent.replay.demonstrations=2": "agent.replay.demonstrations must be between 0 and 1",
}


@pytest.mark.parametrize("setting", REJECTED)
def test_settings_that_contradict_a_recording_are_rejected(setting: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=REJECTED[setting]):
        make(tmp_path, "env=cartpole", setting).prepare()


def test_demonstrations_need_a_recording() -> None:
    with pytest.raises(Exception, match=r"set agent\.replay\.preload to a recording"):
        compose_run([SHARE])


@pytest.mark.parametrize("forged", ["capacity", "rows"])
def test_forged_demonstrations_are_damage(forged: str, tmp_path: Path) -> None:
    trainer = make(tmp_path, "env=cartpole", SHARE)
    trainer.prepare()
    trainer.directory.save(trainer.state_dict(), 0, [])
    trainer.directory.checkpoints.close()
    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "latest.pt")["state"]
    state["replay"]["demonstrations"][forged] = 10**12 if forged == "capacity" else {}
    with pytest.raises(ValueError, match=r"state\.replay\.demonstrations"):
        make(tmp_path, "env=cartpole", SHARE, name="other").load_state_dict(state)


RUN = [
    *("trainer.max_steps=60", "trainer.frequency_unit=steps", "trainer.eval_frequency=30"),
    *(
        "trainer.eval_episodes=1",
        "trainer.checkpoint_frequency=20",
        "logging=[file,jsonl]",
        "agent.batch_size=16",
    ),
    *("agent.learning_starts=10", "hydra.run.dir=run"),
]
PRELOAD = [f"agent.replay.preload={FILE}", SHARE]


def test_a_run_records_where_its_transitions_are_from(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert program(*RUN, "hydra.run.dir=expert").status == 0
    done = program("mode=record", "checkpoint=expert", "evaluator.episodes=3", "hydra.run.dir=demos")
    assert "transitions of 3 greedy episodes" in done.out, done
    path = tmp_path / "demos" / "transitions.npz"
    again = program("mode=record", "checkpoint=expert", "evaluator.episodes=3", "hydra.run.dir=demos")
    assert "already exists; nothing was changed" in again.error
    assert json.loads(str(arrays(path)["provenance"]))["run"] == "expert"
    preload = f"agent.replay.preload={path}"
    assert program(*RUN, preload, SHARE).status == 0
    session = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"][-1]
    assert session["preloaded"]["episodes"] == 3
    assert session["preloaded"]["transitions"] == len(arrays(path)["actions"])
    log = (tmp_path / "run" / "logs" / "training.log").read_text()
    assert f"of 3 episodes from {path} (sha256 {session['preloaded']['sha256'][:12]}): 25% of each" in log


def test_changed_data_is_noticed_and_missing_data_is_not_needed(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    provide(PRELOAD, tmp_path)
    assert program(*RUN, *PRELOAD).status == 0
    log = tmp_path / "run" / "logs" / "training.log"
    (tmp_path / FILE).unlink()
    assert program(*RUN, *PRELOAD, "trainer.max_steps=90").status == 0
    assert "has changed" not in log.read_text()
    record(["env=cartpole"], tmp_path / FILE, episodes=5)
    assert program(*RUN, *PRELOAD, "trainer.max_steps=120").status == 0
    assert "has changed since this run began" in log.read_text()
    assert "of 5 episodes" not in log.read_text()
    done = program(*RUN, "agent.replay.preload=other.npz", SHARE)
    assert "agent.replay.preload from recorded.npz to other.npz: the stored replay began with" in done.error
    for path in (tmp_path / "run" / "checkpoints").glob("*.pt"):
        path.unlink()
    (tmp_path / "run" / "metrics.json").unlink()  # as of a session that was killed early
    record(["env=cartpole"], tmp_path / FILE, episodes=6)
    assert program(*RUN, *PRELOAD).status == 0
    assert "has changed since the session before, which left no checkpoint" in log.read_text()


def test_memory_and_disk_are_checked_again_with_the_demonstrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, "env=cartpole", SHARE)
    counts: list[Any] = []
    monkeypatch.setattr(assembly, "check_disk", lambda *arguments: counts.append(arguments[-1]))
    trainer.prepare()
    assert trainer.preload.demonstrations > 0
    assert counts == [trainer.preload.demonstrations]


def test_a_bad_recording_writes_no_run(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("hello")
    trainer = make(tmp_path, "env=cartpole")
    with pytest.raises(UserError, match="it is not an npz file"):
        trainer.train()
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_a_script_gives_a_path_and_its_second_call_resumes(tmp_path: Path) -> None:
    path = record(["env=cartpole"], tmp_path / FILE)
    replay: Any = UniformReplay(preload=path, demonstrations=0.5)  # pyright: ignore[reportArgumentType]
    agent = DQNConfig(state_dim=4, action_dim=2, replay=replay, learning_starts=0, batch_size=8)
    agent.exploration = EpsilonGreedy(schedule=Constant(value=0.5))
    found: list[Trainer] = []
    for steps in (20, 40):
        config = TrainingConfig(max_steps=steps, max_episodes=None, eval_episodes=1)
        env = gymnasium.make("CartPole-v1")
        found.append(Trainer(DQNAgent(agent), env, config, tmp_path / "run", loggers={}))
        found[-1].train()
    assert found[0].preload.origin == found[1].preload.origin
    assert found[1].directory.resumed
    assert len(found[1].replay) == found[1].preload.origin["transitions"] + 40  # pyright: ignore
