"""Evaluates a new network, to reject before training starts what its updates could not do."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dqn_runner.agent.exploration import Greedy
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.observation_layout import Entry
from dqn_runner.core.rng import stream
from dqn_runner.core.types import Array, EnvSpec, Transition
from dqn_runner.envs.generators import OwnGenerators

if TYPE_CHECKING:
    from torch import nn

    from dqn_runner.agent.config import DQNConfig
    from dqn_runner.agent.networks.modules.flat_network import FlatNetwork

_SEED = 0
"""Of the global generators in each evaluation: a network may draw from them."""


def check_network(network: FlatNetwork, spec: EnvSpec, outputs_per_action: int, device: torch.device) -> None:
    """Evaluate the network twice on `device`: its outputs must fit, and depend on its arguments alone."""
    obs, params = sample_observation(spec).to(device), network.views(network.initial)

    def evaluate() -> Any:
        return _evaluate(lambda: network(params, obs.clone()), spec, device)

    with torch.no_grad():
        first = evaluate()  # a module may create buffers in its first call
        before = _versions(network)
        with _unchanged_inputs(network.module):
            second = evaluate()
    if changed := [key for key, version in _versions(network).items() if before.get(key) != version]:
        raise UserError(
            f"agent.network changes its buffer '{changed[0]}' whenever it is evaluated, so that its values "
            "would depend on all calls before; make it a parameter, or a function of the observation"
        )
    _check_outputs(first, spec, outputs_per_action)
    if not torch.allclose(first, second, equal_nan=True):
        raise UserError(
            "agent.network returns other outputs when it is evaluated again with the same observation: it "
            "keeps state between calls, which no checkpoint holds; make it a function of the observation"
        )


def module_outputs(module: nn.Module, spec: EnvSpec) -> Any:
    """What a module computes for `sample_observation` with its own parameters, after a first evaluation."""
    from dqn_runner.agent.networks.modules.flat_network import module_inputs

    def evaluate() -> Any:
        return _evaluate(lambda: module(module_inputs(sample_observation(spec), spec.layout)), spec)

    with torch.no_grad():
        evaluate()  # a module may create buffers in its first call
        return evaluate()


def check_parameters(
    network: FlatNetwork, learned: Mapping[str, torch.Tensor], expected: Any, spec: EnvSpec
) -> None:
    """Evaluate the network on the CPU, to reject one whose outputs do not follow from its parameters alone.

    `learned` are the parameters of its module, and `expected` its `module_outputs`, before they became those
    of `network`.
    """
    params, obs = network.views(network.initial), sample_observation(spec)
    outputs = _evaluate(lambda: network(params, obs.clone()), spec)
    if isinstance(outputs, torch.Tensor) and outputs.requires_grad:
        _reject_references(outputs, learned)
    if not _same(outputs, expected) and _same(outputs, _evaluate(lambda: network(params, obs.clone()), spec)):
        raise UserError(
            "agent.network computes with what parameters() or state_dict() returns in forward, which has no "
            "parameters while an update evaluates it; use each as the attribute of its layer"
        )


def _reject_references(outputs: torch.Tensor, learned: Mapping[str, torch.Tensor]) -> None:
    """Raise UserError for outputs that have a gradient though the parameters of the network are constants."""
    grads = cast(
        "Sequence[Any]", torch.autograd.grad(outputs.sum(), list(learned.values()), allow_unused=True)
    )
    held = [name for name, grad in zip(learned, grads, strict=True) if grad is not None]
    if held:
        raise UserError(
            f"agent.network uses its parameter '{held[0]}' by a second reference, such as a list or a "
            "closure, of which no update would know; use it as the attribute of its layer in forward"
        )
    raise UserError(
        "agent.network computes with parameters that torch does not find in it, so that no update would "
        "change them; assign each, or its layer, to an attribute of the module, lists as torch.nn.ModuleList"
    )


def _same(outputs: Any, others: Any) -> bool:
    if not isinstance(outputs, torch.Tensor) or not isinstance(others, torch.Tensor):
        return type(outputs) is type(others)
    return outputs.shape == others.shape and torch.allclose(outputs.detach(), others.detach(), equal_nan=True)


def check_compatibility(config: DQNConfig, network: FlatNetwork, taus: int) -> None:
    """Raise UserError if exploration lacks noisy layers, or the loss uses none of the taus of the network."""
    if isinstance(config.exploration, Greedy) and not network.noise_size:
        raise UserError(
            "agent/exploration=greedy needs a network with noisy layers for exploration; set "
            "agent.network.noisy=true or another agent/exploration"
        )
    if network.takes_taus and not taus:
        raise UserError(
            "agent.network.cosine_embedding_dim embeds taus, which "
            f"{type(config.loss).__name__} does not use; set agent.network.cosine_embedding_dim=0 "
            "or agent/loss=implicit_quantile"
        )


def zero_transition(spec: EnvSpec) -> Transition:
    """A batch of one transition of zeros, for code that depends only on shapes."""
    dtype = torch.float32 if spec.layout is None else torch.uint8
    obs, number = torch.zeros(1, *spec.obs_shape, dtype=dtype), torch.zeros(1)
    return Transition(obs, torch.zeros(1, dtype=torch.int64), number, number, obs)


def sample_observation(spec: EnvSpec) -> torch.Tensor:
    """A batch of one observation, the same each time: numbers from 0 to 1, any bytes and categories."""
    rng = stream(_SEED, "network check")
    if spec.layout is None:
        return torch.from_numpy(rng.random((1, *spec.obs_shape), np.float32))
    lead = (1, *spec.layout.lead)
    return torch.from_numpy(
        spec.layout.pack({each.name: _sample(each, lead, rng) for each in spec.layout.entries}, (1,))
    )


def _sample(entry: Entry, lead: tuple[int, ...], rng: np.random.Generator) -> Array:
    shape = (*lead, *entry.shape)
    if entry.dtype == "float32":
        return rng.random(shape, np.float32)
    sizes = np.reshape(entry.sizes, entry.shape) if entry.sizes else 256 if entry.dtype == "uint8" else 2
    return rng.integers(0, sizes, shape).astype(entry.dtype)


def _evaluate(function: Callable[[], Any], spec: EnvSpec, device: torch.device | None = None) -> Any:
    """The outputs, with the same state of the global generators each time."""
    devices = [device] if device is not None and device.type == "cuda" else []
    try:
        with OwnGenerators(_SEED), torch.random.fork_rng(devices=devices):
            torch.manual_seed(_SEED)
            return function()
    except UserError:
        raise
    except Exception as error:
        given = f"shape {spec.obs_shape}" if spec.layout is None else spec.layout.describe()
        raise UserError(
            f"agent.network cannot take observations of {given}: {type(error).__name__}: {error}"
        ) from error


@contextmanager
def _unchanged_inputs(module: nn.Module) -> Generator[None]:
    """Raise UserError if the module changes what it gets: it can be the memory of the replay."""
    seen: list[tuple[torch.Tensor, int, torch.Tensor]] = []

    def note(_: Any, arguments: tuple[Any, ...]) -> None:
        given = arguments[0]
        inputs = cast("dict[str, torch.Tensor]", given) if isinstance(given, dict) else {"": given}
        seen.extend((each, each._version, each.clone()) for each in inputs.values())

    handle = module.register_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()
    if any(tensor._version != version or not tensor.equal(value) for tensor, version, value in seen):
        raise UserError(
            "agent.network changes its observations in place; let it make a new tensor, as in x = x / 255"
        )


def _versions(network: FlatNetwork) -> dict[str, tuple[int, int]]:
    """By buffer, what is different after each change of it."""
    return {name: (id(buffer), buffer._version) for name, buffer in network.module.named_buffers()}


def _check_outputs(outputs: Any, spec: EnvSpec, outputs_per_action: int) -> None:
    if not isinstance(outputs, torch.Tensor):
        raise UserError(f"agent.network returns a {type(outputs).__name__}; it must return a tensor")
    shape, expected = tuple(outputs.shape), (1, spec.num_actions * outputs_per_action)
    if shape != expected:
        raise UserError(
            f"agent.network returns outputs of shape {shape} for one observation; it must return "
            f"{expected}: {outputs_per_action} for each of {spec.num_actions} actions"
        )
    if outputs.dtype is not torch.float32:
        raise UserError(
            f"agent.network returns outputs of {outputs.dtype}; it must return torch.float32, as in x.float()"
        )
