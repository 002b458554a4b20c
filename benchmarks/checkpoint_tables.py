"""Markdown tables of the measurements of checkpoint.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checkpoint import Case


def stall_rows(case: Case) -> list[str]:
    """Rows of the first checkpoint of a run, which writes the whole replay, and of the later ones."""
    runs = case.checkpoints()
    kinds = {
        "first": [run[0] for run in runs],
        "later": [checkpoint for run in runs for checkpoint in run[1:-1]],
    }
    return [
        f"| {case.replay} | {case.transitions:,} | {kind} | {milliseconds(c.stall for c in group)} "
        f"| {mean(c.segments for c in group):,.0f} | {mean_mb(c.segment_bytes for c in group)} "
        f"| {mean_mb(c.bytes for c in group)} |"
        for kind, group in kinds.items()
    ]


def share_row(case: Case) -> str:
    """Share of the checkpoints in the wall time and the CPU time of a run."""
    wall = [run.ended - run.started for run in case.saving]
    without = [run.ended - run.started for run in case.plain]
    cpu = [run.ended_cpu - run.started_cpu for run in case.saving]
    cpu_without = [run.ended_cpu - run.started_cpu for run in case.plain]
    own = [(sum(run.stalls[:-1]), sum(run.writing[:-1])) for run in case.saving]
    return (
        f"| {case.replay} | {case.transitions:,} | {median(without):.2f} s | {median(wall):.2f} s "
        f"| {percent(wall, without)} | {percent(cpu, cpu_without)} "
        f"| {median(stalls / w for (stalls, _), w in zip(own, wall, strict=True)):.2%} "
        f"| {median((stalls + writing) / c for (stalls, writing), c in zip(own, cpu, strict=True)):.2%} |"
    )


def resume_row(case: Case) -> str:
    """Time to resume, within the program and in total."""
    inside = [p.timeline.first_step - p.timeline.building for p in case.resumed]
    whole = [p.resumed_after for p in case.resumed if p.resumed_after is not None]
    return f"| {case.replay} | {case.transitions:,} | {median(inside):.2f} s | {median(whole):.2f} s |"


def milliseconds(seconds: Iterable[float]) -> str:
    """Median and maximum."""
    values = [1000 * value for value in seconds]
    return f"{median(values):.1f} ({max(values):.1f})"


def mean_mb(sizes: Iterable[int]) -> str:
    return f"{mean(sizes) / 1e6:.2f}"


def percent(values: list[float], reference: list[float]) -> str:
    """Relative increase of the median, and the smallest and largest of a pair."""
    pairs = [value / other - 1 for value, other in zip(values, reference, strict=True)]
    return f"{median(values) / median(reference) - 1:+.1%} ({min(pairs):+.1%} to {max(pairs):+.1%})"


STALLS = (
    "replay | transitions | checkpoint | stall, ms: median (longest) "
    "| transitions in segments | in segments, MB | .pt, MB"
)
SHARES = "replay | transitions | without | with | wall time | CPU time | stalls | stalls and writing"
RESUMES = "replay | transitions | trainer built to first step | program start to resuming"


def table(header: str, rows: Sequence[str]) -> str:
    return "\n".join([f"| {header} |", "|---" * (header.count("|") + 1) + "|", *rows, ""])
