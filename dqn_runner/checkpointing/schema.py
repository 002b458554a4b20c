"""What the document of a checkpoint must look like before anything uses it."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict, cast

import msgspec

from dqn_runner.checkpointing.names import BEST, numbered_name
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.state import State
from dqn_runner.io.schema import problem_with

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
SegmentName = Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{12,19}-[0-9]{12,19}-[0-9a-f]{32}\.npz\Z")]


class _Document(TypedDict):
    step: Count
    names: list[str]
    source: dict[str, Any]
    state: dict[str, Any]


class _CommandSource(TypedDict):
    """From what the command line built a run."""

    config: dict[str, Any]
    overrides: list[str]
    config_name: str
    config_dir: str | None
    environment: NotRequired[dict[str, str]]


class _ScriptSource(TypedDict, total=False):
    """From what a script built a run, or a test or a tool that stores only a part."""

    config: dict[str, Any]
    agent: dict[str, Any]
    trainer: dict[str, Any]


class _Snapshot(TypedDict):
    start: Count
    stop: Count
    row_bytes: Count
    segments: list[tuple[Count, Count, SegmentName]]
    tail: dict[str, Any]


def problem_with_document(content: State) -> str | None:
    """What is wrong with the content of a checkpoint of the present version; None if nothing is."""
    if problem := problem_with(content, _Document):
        return problem
    source = content["source"]
    if problem := problem_with(source, _CommandSource if "overrides" in source else _ScriptSource):
        return f"source.{problem}"
    ours = (BEST, numbered_name(content["step"]))
    if foreign := [name for name in content["names"] if name not in ours]:
        return f"names: {foreign[0]!r} is not a name of this checkpoint"
    return None


def problem_with_snapshot(stored: State) -> str | None:
    """What is wrong with stored rows, which are one range; None if nothing is."""
    if problem := problem_with(stored, _Snapshot):
        return problem
    tail = list(cast("State", stored["tail"]).values())
    if not tail or not all(isinstance(c, torch.Tensor) and c.dim() and len(c) == len(tail[0]) for c in tail):
        return "tail: expected columns of the same length"
    position: int = stored["start"]
    for start, stop, name in cast("list[tuple[int, int, str]]", stored["segments"]):
        first = position == stored["start"] and start <= position  # it may begin with rows that were dropped
        named = f"{start:012d}-{stop:012d}-"
        if not (first or start == position) or stop <= position or not name.startswith(named):
            return f"segments: {name!r} does not continue at row {position}"
        position = stop
    if position + len(tail[0]) != stored["stop"]:
        return f"stop: expected {position + len(tail[0])}, the end of the rows, got {stored['stop']}"
    return None
