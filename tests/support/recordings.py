"""Recordings of random episodes, as npz files, and the datasets of Minari with the same steps."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dqn_runner.agent.exploration import random_actions
from dqn_runner.core.rng import eval_seeds, stream
from dqn_runner.replay.offline.recorder import EpisodeRecorder
from dqn_runner.training.evaluator import Evaluator
from tests.support.probes import compose_run

FILE = "recorded.npz"


def record(overrides: Sequence[str], path: Path, episodes: int = 4) -> Path:
    """Write random episodes of the environment that `overrides` choose."""
    part = compose_run([word for word in overrides if "preload" not in word and "demonst" not in word]).env
    env = part.make(training=False)
    recorder, rng = EpisodeRecorder(env), stream(0, "recording")

    def policy(obs: Any, *mask: Any) -> Any:
        return random_actions((len(obs), recorder.num_actions), rng, *mask)

    Evaluator(env, eval_seeds("recording"), 30).run(policy, episodes, witness=recorder)
    recorder.write(path, {})
    return path


def provide(command: Iterable[str], cwd: Path) -> None:
    """Write the recording that a command in `cwd` begins with, if it names FILE."""
    words = list(command)
    if f"agent.replay.preload={FILE}" in words and not (cwd / FILE).exists():
        record([word for word in words if word.startswith(("env", "agent/network"))], cwd / FILE)


def arrays(path: Path, **changes: Any) -> dict[str, Any]:
    """The arrays of a recording; those of `changes` instead, or none where that is None."""
    with np.load(path) as archive:
        found = {name: archive[name] for name in archive.files}
    return {name: array for name, array in {**found, **changes}.items() if array is not None}


def next_observations(path: Path) -> Any:
    """The observation [n, ...] after each step, of a recording of arrays."""
    found = arrays(path)
    following = np.concatenate([found["observations"][1:], found["observations"][:1]])
    following[found["terminations"] | found["truncations"]] = found["final_observations"]
    return following


def write_minari(path: Path, dataset: str, env: Any, root: Path) -> None:
    """Write a recording of arrays as a dataset of Minari below `root`, which MINARI_DATASETS_PATH names."""
    import minari
    from minari.data_collector import EpisodeBuffer

    assert root.is_dir()
    found, episodes = arrays(path), []
    ends = np.flatnonzero(found["terminations"] | found["truncations"]) + 1
    for number, (first, last) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        rows = slice(first, last)
        seen = [*found["observations"][rows], found["final_observations"][number]]
        masks = {}
        if "action_masks" in found:
            masks = {"action_mask": [*found["action_masks"][rows], found["final_action_masks"][number]]}
        episodes.append(
            EpisodeBuffer(
                id=number,
                observations=list(seen),
                actions=list(found["actions"][rows]),
                rewards=found["rewards"][rows].tolist(),
                terminations=found["terminations"][rows].tolist(),
                truncations=found["truncations"][rows].tolist(),
                infos=masks,
            )
        )
    with warnings.catch_warnings(action="ignore"):  # no author, no version of the code
        minari.create_dataset_from_buffers(
            dataset,
            episodes,
            action_space=env.action_space,
            observation_space=env.observation_space,
            jpeg_encoding=False,
        )
