"""Estimates of memory and disk: against arithmetic, and against the size of real checkpoints."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dqn_runner import DQNConfig, TrainingConfig, UserError
from dqn_runner.checkpointing import segments
from dqn_runner.checkpointing.checkpointer import Checkpointer
from dqn_runner.checkpointing.names import BEST, LATEST, numbered_name
from dqn_runner.checkpointing.retention import Retention
from dqn_runner.core.rng import stream
from dqn_runner.core.types import EnvSpec
from dqn_runner.replay.prioritized import PrioritizedReplay
from dqn_runner.replay.uniform import UniformReplay
from dqn_runner.training import resources
from dqn_runner.training.config import FrequencyUnit
from dqn_runner.training.resources import ResourceEstimate, estimate_resources

MIB = 2**20
VECTOR = EnvSpec(obs_shape=(4,), num_actions=2)
"""48 bytes a transition, 16,384 of them in a segment: 0.75 MiB."""
STACK = EnvSpec((4, 8, 8), 2, "uint8", frame_stack=4)


def estimate(replay: Any = UniformReplay, **trainer: Any) -> ResourceEstimate:
    """For a replay of 48 MiB, and 1 MiB of everything else in each checkpoint."""
    agent = DQNConfig(replay=replay(capacity=MIB))
    trainer = {"frequency_unit": FrequencyUnit.steps, "checkpoint_frequency": MIB // 4, **trainer}
    return estimate_resources(agent, TrainingConfig(**trainer), VECTOR, state=MIB)


@pytest.mark.parametrize(
    ("trainer", "replay_mib"),
    [
        ({"keep_last": 0}, 2 * 48),  # best.pt may be old and share no segment with latest.pt
        ({"keep_last": 2}, 48 + 48 + 2 * 12),
        ({"keep_last": 2, "checkpoint_frequency": 4 * MIB}, 4 * 48),  # too far apart to share segments
        (
            {"keep_last": 2, "frequency_unit": FrequencyUnit.episodes, "checkpoint_frequency": 128},
            48 + 48 + 2 * 6,
        ),
        (
            {"keep_last": 2, "frequency_unit": FrequencyUnit.episodes, "max_steps_per_episode": None},
            4 * 48,
        ),
        ({"keep_last": 2, "max_steps": MIB}, 48),  # the run ends when the replay is full
        ({"keep_last": 2, "max_steps": 2 * MIB}, 2 * 48),
    ],
)
def test_disk_estimate_counts_replay_segments_that_checkpoints_share_once(
    trainer: dict[str, Any], replay_mib: float
) -> None:
    trainer = {"max_steps_per_episode": 2**10, **trainer}
    files = 3 + trainer["keep_last"]
    assert estimate(**trainer) == ResourceEstimate(48 * MIB, int((replay_mib + files * (1 + 0.75)) * MIB))


def test_disk_estimate_includes_the_priorities_in_every_checkpoint() -> None:
    more = estimate(PrioritizedReplay, keep_last=2).disk - estimate(keep_last=2).disk
    assert more == 5 * 8 * MIB


def test_estimate_of_a_short_run_counts_only_the_filled_part_of_the_replay() -> None:
    uniform = estimate(keep_last=0, max_steps=2**10)
    assert uniform == ResourceEstimate(48 * 2**10, 48 * 2**10 + 3 * (MIB + 48 * 2**10))
    assert estimate(PrioritizedReplay, keep_last=0, max_steps=2**10).disk == uniform.disk + 3 * 8 * 2**10


def test_estimate_includes_the_demonstrations_beside_the_replay() -> None:
    agent, trainer = DQNConfig(replay=UniformReplay(capacity=MIB)), TrainingConfig(keep_last=0)
    without = estimate_resources(agent, trainer, VECTOR, 0)
    found = estimate_resources(agent, trainer, VECTOR, 0, demonstrations=100)
    assert found.memory - without.memory == 48 * 100
    assert found.disk - without.disk == 48 * 100 + 3 * 48 * 100


def test_the_estimate_is_logged_when_a_run_starts(finished_run: Path) -> None:
    log = (finished_run / "logs" / "training.log").read_text()
    assert "the replay needs at most 0.1 MiB of memory, the checkpoints at most " in log


def test_available_memory_is_a_plausible_number_of_bytes() -> None:
    assert 2**20 < resources.available_memory() < 2**50


@pytest.mark.parametrize(("period", "steps"), [(3_000, 21_000), (9_000, 36_000)], ids=["often", "rarely"])
@pytest.mark.parametrize(
    ("part", "spec"), [(UniformReplay, VECTOR), (PrioritizedReplay, VECTOR), (PrioritizedReplay, STACK)]
)
def test_checkpoints_take_at_most_the_estimated_disk_space_and_at_least_80_percent(
    part: Any, spec: EnvSpec, period: int, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size is largest just before files are deleted, when best.pt is old and a segment was completed."""
    monkeypatch.setattr(segments, "rows_per_segment", lambda _: 1024)
    capacity, sizes = 8_000, [0]
    apply = Retention.delete_expired

    def measured(self: Retention, unwritten: Any) -> None:
        files = {path.stat().st_ino: path.stat().st_size for path in tmp_path.rglob("*.*") if path.is_file()}
        sizes.append(sum(files.values()))
        apply(self, unwritten)

    monkeypatch.setattr(Retention, "delete_expired", measured)
    replay = part(capacity=capacity).build(spec, 1, 0.9, 1, stream(0, "replay"))
    checkpointer = Checkpointer(tmp_path, keep_last=2)
    frames = (
        np.random.default_rng(0).integers(256, size=(steps + 8, *spec.obs_shape[1:])).astype(spec.obs_dtype)
    )
    for step in range(1, steps + 1):
        obs, next_obs = (frames[at : at + 4].reshape(spec.obs_shape) for at in (step - 1, step))
        replay.add(0, obs, 0, 0.0, False, False, next_obs)
        if step % period == 0 or step == 8_500:
            names = [BEST] if step == 8_500 else [numbered_name(step)]
            checkpointer.save(
                {"source": {}, "state": {"replay": replay.state_dict()}}, step, [*names, LATEST]
            )
    checkpointer.close()
    trainer = TrainingConfig(frequency_unit=FrequencyUnit.steps, checkpoint_frequency=period, keep_last=2)
    estimated = estimate_resources(DQNConfig(replay=part(capacity=capacity)), trainer, spec, state=0).disk
    assert 0.8 * estimated < max(sizes) <= estimated


def test_disk_check_counts_the_space_of_existing_checkpoints_of_the_run_as_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They will be replaced. Several names (hard links) of one file count once."""
    agent, trainer = DQNConfig(replay=UniformReplay(capacity=8_000)), TrainingConfig(keep_last=0)
    needed = estimate_resources(agent, trainer, VECTOR, state=0).disk
    latest = tmp_path / "checkpoints" / "latest.pt"
    latest.parent.mkdir()
    latest.write_bytes(bytes(1000))
    latest.with_name("best.pt").hardlink_to(latest)
    usage = resources.shutil.disk_usage(tmp_path)
    for missing in (1000, 1001):
        free = usage._replace(free=needed - missing)
        monkeypatch.setattr(resources.shutil, "disk_usage", lambda _, free=free: free)
        with nullcontext() if missing == 1000 else pytest.raises(UserError, match="of this run need up to"):
            resources.check_disk(tmp_path, agent, trainer, VECTOR, state=0)
