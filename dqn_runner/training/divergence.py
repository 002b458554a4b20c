"""Diagnosis of diverged learning: an error message, and the batch of the update."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from dqn_runner.agent.agent import DQNAgent
from dqn_runner.agent.learner import UPDATE_METRICS
from dqn_runner.core.exceptions import DivergedError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.types import Batch, Transition
from dqn_runner.io.files import write_atomically

FILE = "diverged.pt"
LARGE = 1e4
"""Observations beyond it are named as a possible cause."""
ADVICE = (
    "the last good checkpoint is kept. Likely remedies: a smaller agent.learning_rate, agent.max_grad_norm, "
    "smaller or clipped rewards, a longer agent.target_update_every"
)


def diagnose(
    run_dir: Path,
    step: int,
    agent: DQNAgent,
    batch: Batch,
    statistics: list[float],
    good: list[float] | None,
) -> DivergedError:
    """The error to raise after an update whose `statistics` (UPDATE_METRICS) are not finite.

    Writes the batch to `diverged.pt` in `run_dir`. `good` are the statistics of the update before it.
    """
    transition = batch.transition
    content: dict[str, Any] = {
        "step": step,
        "update": agent.learner.updates,
        "statistics": _named(statistics),
        "indices": torch.from_numpy(batch.indices),
        "weight": batch.weight,
        **{name: column for name, column in transition._asdict().items() if column is not None},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        write_atomically(run_dir / FILE, buffer.getvalue())
        where = f"the batch is in {run_dir / FILE}"
    except OSError as error:
        where = f"the batch could not be written ({error})"
    return DivergedError(
        f"learning diverged at step {step}, update {agent.learner.updates}: {_show(statistics)}"
        f"{f' (the update before: {_show(good)})' if good is not None else ''}; "
        f"{_cause(transition)}{where}; {ADVICE}"
    )


def _cause(transition: Transition) -> str:
    """What in the batch explains the divergence; empty if nothing does."""
    columns = (transition.obs, transition.reward, transition.next_obs)
    if not all(bool(torch.isfinite(column).all()) for column in columns):
        return "the environment gave observations or rewards that are not finite; "
    largest = max(float(each.abs().max()) for each in (transition.obs, transition.next_obs))
    if not transition.obs.is_floating_point() or largest <= LARGE:
        return ""
    return (
        f"the batch has observations of up to {largest:.3g}, which env.normalize_observations=true scales; "
    )


def _show(statistics: list[float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in _named(statistics).items())


def _named(statistics: list[float]) -> dict[str, float]:
    return dict(zip(UPDATE_METRICS, statistics, strict=True))
