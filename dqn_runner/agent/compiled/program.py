"""What is compiled: the update of one configuration, as a function of a flat list of tensors."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

from dqn_runner.agent.config import DQNConfig
from dqn_runner.agent.functional_update import UpdateInputs, make_functional_update
from dqn_runner.agent.learner import LearnerState
from dqn_runner.agent.networks.modules.flat_network import FlatNetwork
from dqn_runner.agent.own_parts import is_ours
from dqn_runner.agent.precision import network_of_updates
from dqn_runner.agent.update_noise import NoiseRequirements, UpdateNoise
from dqn_runner.core import processor
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.registry import import_path, slots
from dqn_runner.core.types import Transition

_PACKAGE = Path(__file__).parents[2]
_SOURCES = ("agent", "core/types.py", "core/observation_layout.py")
"""The files of the package that define the update."""


@dataclass(frozen=True)
class UpdateProgram:
    """An update whose shapes and settings are fixed; the learning rate is an input."""

    config: DQNConfig
    """With `state_dim` and `action_dim`."""
    obs_dtype: str
    """Of the observations in a batch."""
    has_action_mask: bool
    """Whether transitions have action masks."""
    noise: NoiseRequirements
    threads: int

    def key(self, compiler: str) -> str:
        """A text that differs wherever the compiled code may differ: settings, versions, processor."""
        config = self.config
        parts = (config.network, config.loss, config.optimizer)
        facts = {
            "parts": [repr(part) for part in parts],
            "shapes": [repr(config.state_dim), config.action_dim, config.batch_size, self.obs_dtype],
            "masks": self.has_action_mask,
            "clipping": config.max_grad_norm,
            "precision": config.precision,
            "noise": list(self.noise),
            "threads": self.threads,
            "sources": _digest_of_sources(),
            "torch": torch.__version__,
            "compiler": compiler,
            "processor": _processor_features(),
        }
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def own_parts(self) -> Iterator[str]:
        """The parts that are not of this package: their source is unknown, so they cannot be cached."""
        pending: list[Any] = [self.config.network, self.config.loss, self.config.optimizer]
        while pending:
            part = pending.pop()
            cls = cast("type[object]", type(part))
            if not is_ours(part):
                yield import_path(cls)
            else:
                pending += [getattr(part, name) for name in slots(cls)]

    def trace(self, network: FlatNetwork, state: LearnerState) -> tuple[Any, tuple[torch.Tensor, ...]]:
        """The function as a graph, and inputs of its shapes."""
        from torch.fx.experimental.proxy_tensor import make_fx

        function = flat_update(self, network, state)
        inputs = self.example_inputs(network, state)
        return make_fx(function)(*(each.clone() for each in inputs)), inputs

    def example_inputs(self, network: FlatNetwork, state: LearnerState) -> tuple[torch.Tensor, ...]:
        """Inputs of `flat_update` with any values."""
        config, size = self.config, self.config.batch_size
        spec = config.spec()
        obs = torch.zeros(size, *spec.obs_shape, dtype=getattr(torch, self.obs_dtype))
        numbers = torch.zeros(size)
        masks = [torch.ones(size, spec.num_actions, dtype=torch.bool)] * 2 * self.has_action_mask
        batch = [obs, torch.zeros(size, dtype=torch.int64), numbers, numbers, obs, *masks]
        drawn = UpdateNoise(
            torch.zeros(self.noise.calls, network.noise_size), torch.zeros(size, self.noise.taus)
        )
        noise = drawn if self.takes_noise(network) else ()
        scalars = torch.tensor(config.optimizer.scalars(1, 1.0))
        inputs = (state.online, state.target, *state.moments.values(), scalars, *batch, numbers, *noise)
        return tuple(each.detach().clone() for each in inputs)

    def takes_noise(self, network: FlatNetwork) -> bool:
        """Whether the update reads random numbers."""
        return bool(network.noise_size or self.noise.taus)


def flat_update(
    program: UpdateProgram, network: FlatNetwork, state: LearnerState
) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """The update as a function of: online, target, each moment, the scalars of the optimizer, the columns of
    the transition, weight, and the noise if there is any. It changes the parameters and moments in place, and
    returns priorities and statistics.
    """
    config = program.config
    update = make_functional_update(
        network_of_updates(network, config.precision),
        network.views,
        config.loss,
        config.optimizer,
        config.max_grad_norm,
    )
    names = list(state.moments)
    count = 7 if program.has_action_mask else 5

    def function(online: Any, target: Any, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        moments = dict(zip(names, rest, strict=False))
        scalars, *columns = rest[len(names) :]
        transition, weight, noise = Transition(*columns[:count]), columns[count], columns[count + 1 :]
        drawn = UpdateNoise(*noise) if noise else None
        found = update(UpdateInputs(online, target, moments, scalars, transition, weight, drawn))
        online.copy_(found.online)
        for name, moment in moments.items():
            moment.copy_(found.moments[name])
        return found.priority, found.statistics

    return function


def update_program(
    config: DQNConfig, obs_dtype: str, has_action_mask: bool, noise: NoiseRequirements, threads: int
) -> UpdateProgram:
    """The program of a configuration; the settings that do not change the update are left out."""
    floats = config.normalize_observations and config.spec().layout is None
    dtype = "float32" if floats else obs_dtype
    return UpdateProgram(replace(config, seed=0), dtype, has_action_mask, noise, threads)


def compiler_version() -> str | None:
    """The first line of `g++ --version`; None without the compiler."""
    try:
        done = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0]


@cache
def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        path = _PACKAGE / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _processor_features() -> str:
    """The features that a compiler may use."""
    found = " ".join(sorted(processor.features()))
    return found or f"{platform.machine()} {platform.processor()} {torch.backends.cpu.get_cpu_capability()}"
