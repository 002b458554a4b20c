"""A compiled update in the place of that of the learner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dqn_runner.agent.learner import HyperParameters, LearnerState
from dqn_runner.agent.optimizers import CompilableOptimizer
from dqn_runner.agent.update_noise import UpdateNoise
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.types import Transition

FlatUpdate = Callable[[list[torch.Tensor]], Sequence[torch.Tensor]]
"""From the inputs of `program.flat_update` to priorities [batch] and statistics [len(UPDATE_METRICS)]."""


class CompiledUpdate:
    """An `Update` of a single run that calls compiled code; gradients are clipped as it was compiled."""

    def __init__(self, run: FlatUpdate, optimizer: CompilableOptimizer) -> None:
        """`run` is a library, or a CUDA graph."""
        self._run = run
        self._scalars_of = optimizer.scalars
        self._scalars = torch.tensor(optimizer.scalars(1, 1.0))
        self._scalars_memory = self._scalars.numpy()

    def __call__(
        self,
        state: LearnerState,
        transition: Transition,
        weight: torch.Tensor,
        hyper: HyperParameters,
        noise: UpdateNoise | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one step in place; priorities [batch] and statistics [len(UPDATE_METRICS)]."""
        state.updates += 1
        assert isinstance(hyper.learning_rate, float)
        self._scalars_memory[:] = self._scalars_of(state.updates, hyper.learning_rate)
        columns = (*transition.columns(), weight)
        inputs = [state.online, state.target, *state.moments.values(), self._scalars, *columns]
        priority, statistics = self._run([*inputs, *noise] if noise is not None else inputs)
        return priority, statistics


def load_library(path: Path) -> FlatUpdate:
    """The update in a library; loading takes a millisecond and needs nothing but torch itself."""
    return torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run  # pyright: ignore
