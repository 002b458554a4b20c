"""Recordings as local datasets of Minari. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_module
from dqn_runner.core.types import IntArray
from dqn_runner.replay.offline.recording import RawSteps

PREFIX = "minari:"
_MASK = "action_mask"


def files_of(dataset: str) -> Path:
    """The directory of a dataset: below MINARI_DATASETS_PATH, or `.minari/datasets` of the user."""
    root = os.environ.get("MINARI_DATASETS_PATH")
    return (Path(root) if root else Path.home() / ".minari" / "datasets") / dataset / "data"


def digest_of(directory: Path) -> str:
    """SHA-256 of the names and contents of the files in the directory of a dataset."""
    total = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        total.update(path.relative_to(directory).as_posix().encode() + b"\0" + content)
    return total.hexdigest()


def read_minari(dataset: str, source: str, mask_source: str | None) -> tuple[RawSteps, str]:
    """The steps of a dataset, and the SHA-256 of its files.

    Action masks are those in its infos, or if `mask_source` is the key of an observation entry, this entry.
    Raises UserError, which begins with `source`, if the dataset is missing or cannot be read.
    """
    if not dataset:
        raise UserError(f"{source}: write the name of a dataset after {PREFIX}")
    if Path(dataset).is_absolute() or ".." in Path(dataset).parts:
        raise UserError(
            f"{source}: write the name of a dataset, such as {PREFIX}cartpole/expert-v0, not a path; "
            "MINARI_DATASETS_PATH names another directory of datasets"
        )
    minari: Any = import_module("minari", source, extra="minari")
    directory = files_of(dataset)
    if not directory.is_dir():
        raise UserError(
            f"{source}: the dataset {dataset} is missing in {directory.parents[len(Path(dataset).parts)]}; "
            f"'minari download {dataset}' downloads it, 'minari list local' shows those that are there"
        )
    try:
        episodes = list(minari.MinariDataset(directory).iterate_episodes())
        digest = digest_of(directory)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{source}: the dataset cannot be read: {type(error).__name__}: {reason}") from error
    for number, episode in enumerate(episodes):
        _check_lengths(episode, f"{source}: episode {number}")
    episodes = [episode for episode in episodes if len(episode.rewards)]
    if not episodes:
        raise UserError(f"{source}: there are no transitions in it")
    return _steps(episodes, mask_source), digest


def _check_lengths(episode: Any, name: str) -> None:
    """Raise UserError unless an episode of n rewards has n of what a step has, and n + 1 observations."""
    steps = len(episode.rewards)
    found = {key: (len(getattr(episode, key)), steps) for key in ("actions", "terminations", "truncations")}
    found |= {f"observations{key}": (size, steps + 1) for key, size in _sizes(episode.observations, "")}
    if _MASK in episode.infos:
        found[f"infos['{_MASK}']"] = (len(episode.infos[_MASK]), steps + 1)
    for key, (size, expected) in found.items():
        if steps and size != expected:
            raise UserError(f"{name} has {steps} rewards, so {key} must be {expected}, not {size}")


def _sizes(part: Any, key: str) -> Iterator[tuple[str, int]]:
    """The lengths of an array, or of the arrays in nested containers, by key."""
    if isinstance(part, dict):
        for name, item in cast("dict[str, Any]", part).items():
            yield from _sizes(item, f"{key}['{name}']")
    elif isinstance(part, tuple):
        for index, item in enumerate(cast("tuple[Any, ...]", part)):
            yield from _sizes(item, f"{key}[{index}]")
    else:
        yield key, len(part)


def _steps(episodes: Sequence[Any], mask_source: str | None) -> RawSteps:
    lengths = np.array([len(episode.rewards) for episode in episodes])
    # an episode of n steps has n + 1 observations
    at: IntArray = np.arange(int(lengths.sum())) + np.repeat(np.arange(len(episodes)), lengths)
    actions, rewards, terminations, truncations = (
        np.concatenate([getattr(episode, name) for episode in episodes])
        for name in ("actions", "rewards", "terminations", "truncations")
    )
    last = lengths.cumsum() - 1
    truncations[last] |= ~terminations[last]  # an episode that has no end was cut there
    return RawSteps(
        _joined([episode.observations for episode in episodes]),
        at,
        at + 1,
        actions,
        rewards,
        terminations,
        truncations,
        _masks(episodes, mask_source),
    )


def _joined(parts: Sequence[Any]) -> Any:
    """Arrays, or nested containers of arrays, one after the other."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: _joined([part[key] for part in parts]) for key in cast("dict[str, Any]", first)}
    if isinstance(first, tuple):
        return tuple(_joined([part[i] for part in parts]) for i in range(len(cast("Any", first))))
    return np.concatenate(parts)


def _masks(episodes: Sequence[Any], mask_source: str | None) -> Any:
    """The action masks of all observations; None if there are none."""
    if mask_source is None:
        return None
    first = episodes[0]
    if _MASK in first.infos:
        return np.concatenate([episode.infos[_MASK] for episode in episodes])
    if isinstance(first.observations, dict) and mask_source in first.observations:
        return np.concatenate([episode.observations[mask_source] for episode in episodes])
    return None
