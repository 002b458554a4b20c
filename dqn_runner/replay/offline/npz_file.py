"""Recordings as npz files of numpy, read and written; docs/howto/offline-data.md describes the arrays."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.types import Array
from dqn_runner.io.entries import problem_with_file
from dqn_runner.io.files import make_directory, write_atomically
from dqn_runner.replay.offline.recording import RawSteps, flags

STEPS: tuple[str, ...] = ("actions", "rewards", "terminations", "truncations")
OBSERVATIONS, MASKS = "observations", "action_masks"
NEXT, FINAL = "next_", "final_"
"""Prefixes of the arrays with what follows each step, or only each end of an episode."""
PROVENANCE = "provenance"

_OTHER_NAMES = {
    "observations": ("obs", "states", "observation"),
    "actions": ("action", "acts"),
    "rewards": ("reward", "rews"),
    "terminations": ("terminals", "terminated"),
    "truncations": ("timeouts", "truncated"),
}


def read_npz(path: Path, source: str) -> tuple[RawSteps, str]:
    """The steps in a file, and the SHA-256 of its content.

    Nothing is unpickled. Raises UserError, which begins with `source`, if it is not such a file.
    """
    if problem := problem_with_file(path):
        raise UserError(f"{source}: {path} {problem}; give an .npz file or minari:DATASET")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if not zipfile.is_zipfile(file):
                raise ValueError("it is not an npz file, as numpy.savez writes it")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return _steps(_Arrays(archive)), digest
    except (OSError, ValueError, MemoryError, zipfile.BadZipFile, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{source}: {reason}") from error
    except Exception as error:  # zlib, struct, and others that a damaged file makes numpy raise
        raise UserError(f"{source}: the file is damaged ({type(error).__name__}: {error})") from error


def write_npz(
    path: Path,
    steps: Mapping[str, Array],
    observations: Mapping[str, Array],
    final: Mapping[str, Array],
    provenance: Mapping[str, Any],
) -> None:
    """Write a recording durably.

    `steps` are the arrays STEPS, and the action masks, if there are any. `observations` are those at which
    the steps begin, and `final` those after the last step of each episode, with their masks: the names of
    entries to arrays, or "" for observations of one array.
    """
    named = {_name(OBSERVATIONS, key): array for key, array in observations.items()}
    named |= {f"{FINAL}{_name(OBSERVATIONS, key)}": array for key, array in final.items() if key != MASKS}
    if MASKS in final:
        named[FINAL + MASKS] = final[MASKS]
    content = io.BytesIO()
    arrays: dict[str, Any] = {**named, **steps, PROVENANCE: np.array(json.dumps(provenance))}
    np.savez_compressed(content, allow_pickle=False, **arrays)
    make_directory(path.parent)
    write_atomically(path, content.getvalue())


class _Arrays:
    """The arrays of a file, each read when it is asked for."""

    def __init__(self, archive: Any) -> None:
        self.names: list[str] = list(archive.files)
        self._archive = archive

    def __getitem__(self, name: str) -> Array:
        """An array with at least one axis; raises ValueError if it is missing or not of numbers."""
        if name not in self.names:
            known = next((other for other in _OTHER_NAMES.get(name, ()) if other in self.names), None)
            hint = f"; save {known} under the name {name}" if known else ""
            raise ValueError(f"the array {name} is missing; it has {', '.join(self.names) or 'none'}{hint}")
        try:
            array: Any = self._archive[name]
        except ValueError as error:
            if "pickle" in str(error):
                raise ValueError(
                    f"{name} is an array of Python objects, which is never unpickled; save numbers"
                ) from None
            raise
        if not np.ndim(array):
            raise ValueError(f"{name} is not an array with an entry for each step")
        return array

    def entries(self, name: str) -> dict[str, Array]:
        """The array of this name under "", or those of the entries `name.KEY` by key."""
        found = [each for each in self.names if each.startswith(f"{name}.")]
        if name in self.names or not found:
            return {"": self[name]}
        return {each.removeprefix(f"{name}."): self[each] for each in found}


def _steps(arrays: _Arrays) -> RawSteps:
    actions, rewards, terminations, truncations = (arrays[name] for name in STEPS)
    observations = arrays.entries(OBSERVATIONS)
    steps = len(next(iter(observations.values())))
    if not steps:
        raise ValueError("there are no transitions in it")
    for name, array in (
        *_named(OBSERVATIONS, observations),
        *zip(STEPS, (actions, rewards, terminations, truncations), strict=True),
    ):
        if len(array) != steps:
            raise ValueError(f"{name} has {len(array)} entries, but there are {steps} observations")
    prefix, next_at = _following(arrays, steps, terminations, truncations)
    following = arrays.entries(prefix + OBSERVATIONS)
    if following.keys() != observations.keys():
        raise ValueError(f"{prefix}{OBSERVATIONS} and {OBSERVATIONS} have different entries")
    count = int(next_at.max()) + 1 - steps
    joined = {
        key: _joined(array, following[key], count, _name(OBSERVATIONS, key), prefix)
        for key, array in observations.items()
    }
    masks = None
    if MASKS in arrays.names:
        masks = _joined(arrays[MASKS], arrays[prefix + MASKS], count, MASKS, prefix)
    return RawSteps(
        joined.get("", joined),
        np.arange(steps),
        next_at,
        actions,
        rewards,
        terminations,
        truncations,
        masks,
    )


def _following(arrays: _Arrays, steps: int, terminations: Array, truncations: Array) -> tuple[str, Any]:
    """The prefix of the arrays with what follows, and where [n] each step ends in all of the observations."""
    given = [
        prefix
        for prefix in (NEXT, FINAL)
        if any(name.partition(".")[0] == prefix + OBSERVATIONS for name in arrays.names)
    ]
    if not given:
        raise ValueError(
            f"there is neither {NEXT}{OBSERVATIONS}, one for each step, nor {FINAL}{OBSERVATIONS}, one for "
            "each end of an episode"
        )
    if len(given) > 1:
        raise ValueError(f"there are both {NEXT}{OBSERVATIONS} and {FINAL}{OBSERVATIONS}; keep one of them")
    if given[0] == NEXT:
        return NEXT, steps + np.arange(steps)
    ends = flags(terminations, "terminations", steps) | flags(truncations, "truncations", steps)
    ends[-1] = True  # the last episode may be open
    following = np.arange(1, steps + 1)
    following[ends] = steps + np.arange(int(ends.sum()))
    return FINAL, following


def _joined(begin: Array, after: Array, count: int, name: str, prefix: str) -> Array:
    if len(after) != count:
        meaning = "one for each step" if prefix == NEXT else "one for each end of an episode"
        raise ValueError(f"{prefix}{name} has {len(after)} entries, not {count}, {meaning}")
    if begin.shape[1:] != after.shape[1:]:
        raise ValueError(f"{name} has entries of shape {begin.shape[1:]}, {prefix}{name} {after.shape[1:]}")
    return np.concatenate([begin, after])


def _named(name: str, entries: Mapping[str, Array]) -> list[tuple[str, Array]]:
    return [(_name(name, key), array) for key, array in entries.items()]


def _name(name: str, key: str) -> str:
    return f"{name}.{key}" if key else name
