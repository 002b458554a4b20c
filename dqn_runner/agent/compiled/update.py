"""The compiled update in the place of that of the learner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dqn_runner.agent.learner import HyperParameters, LearnerState
from dqn_runner.agent.optimizers import LearningRate
from dqn_runner.agent.update_noise import UpdateNoise
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.types import Transition


class CompiledUpdate:
    """An `Update` of a single run that calls a library; gradients are clipped as it was compiled."""

    def __init__(self, path: Path) -> None:
        """Load the library, which takes a millisecond and needs nothing but torch itself."""
        runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)  # pyright: ignore
        self._run: Callable[[list[torch.Tensor]], list[torch.Tensor]] = runner.run
        self._count = torch.zeros((), dtype=torch.float64)
        self._learning_rate = torch.zeros((), dtype=torch.float64)
        self._filled: LearningRate = 0.0

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
        self._count.fill_(state.updates)
        if self._filled != hyper.learning_rate:
            self._filled = hyper.learning_rate
            self._learning_rate.fill_(self._filled)
        scalars = (self._count, self._learning_rate)
        inputs = [state.online, state.target, *state.moments.values(), *scalars, *transition, weight]
        priority, statistics = self._run([*inputs, *noise] if noise is not None else inputs)
        return priority, statistics
