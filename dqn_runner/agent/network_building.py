"""Builds the network of an agent, and checks it before training starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.rng import seed_for, torch_seeded
from dqn_runner.core.types import EnvSpec, Transition

if TYPE_CHECKING:
    from torch import nn

    from dqn_runner.agent.config import DQNConfig
    from dqn_runner.agent.networks.modules.flat_network import FlatNetwork


def build_network(config: DQNConfig, spec: EnvSpec) -> nn.Module:
    """A new module of the configuration, with the initial parameters of its seed.

    Raises UserError if there is none, whatever the reason. Torch's global generator is left as it was.
    """
    try:
        with torch_seeded(seed_for(config.seed, "init")):
            module = config.network.build(spec, config.loss.outputs_per_action)
            _initialize_lazy_layers(module, spec)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"agent.network cannot be built: {_reason(error)}") from error
    if not isinstance(module, torch.nn.Module):
        kind = module.__name__ if isinstance(module, type) else f"a {type(module).__name__}"
        raise UserError(f"agent.network must make a torch.nn.Module, but made {kind}")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UserError(f"agent.network made a {type(module).__name__} without parameters to learn")
    return module


def check_output_shape(
    network: FlatNetwork, spec: EnvSpec, outputs_per_action: int, device: torch.device
) -> None:
    """Evaluate the network on `device`, to reject one that does not fit before training starts."""
    expected = (1, spec.num_actions * outputs_per_action)
    obs, params = zero_transition(spec).obs.to(device), network.views(network.initial)
    with torch.no_grad():
        try:
            outputs = network(params, obs)  # a module may create buffers in its first call
            before = _versions(network)
            network(params, obs)
        except UserError:
            raise
        except Exception as error:
            given = _describe_observations(spec)
            raise UserError(f"agent.network cannot take observations of {given}: {_reason(error)}") from error
    if changed := [key for key, version in _versions(network).items() if before.get(key) != version]:
        raise UserError(
            f"agent.network changes its buffer '{changed[0]}' whenever it is evaluated, so that its values "
            "would depend on all calls before; make it a parameter, or a function of the observation"
        )
    if not isinstance(outputs, torch.Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UserError(f"agent.network returns a {type(outputs).__name__}; it must return a tensor")
    shape = tuple(outputs.shape)
    if shape != expected:
        raise UserError(
            f"agent.network returns outputs of shape {shape} for one observation; it must return "
            f"{expected}: {outputs_per_action} for each of {spec.num_actions} actions"
        )


def zero_transition(spec: EnvSpec) -> Transition:
    """A batch of one transition of zeros, for code that depends only on shapes."""
    dtype = torch.float32 if spec.layout is None else torch.uint8
    obs, number = torch.zeros(1, *spec.obs_shape, dtype=dtype), torch.zeros(1)
    return Transition(obs, torch.zeros(1, dtype=torch.int64), number, number, obs)


def _initialize_lazy_layers(module: Any, spec: EnvSpec) -> None:
    """Evaluate a module that takes the sizes of layers from its first input (torch.nn.LazyLinear)."""
    if not isinstance(module, torch.nn.Module):
        return
    if any(isinstance(parameter, torch.nn.UninitializedParameter) for parameter in module.parameters()):
        obs, layout = zero_transition(spec).obs, spec.layout
        with torch.no_grad():
            module(obs if layout is None else layout.inputs(layout.unpack(obs)))


def _versions(network: FlatNetwork) -> dict[str, tuple[int, int]]:
    """By buffer, what is different after each change of it."""
    return {name: (id(buffer), buffer._version) for name, buffer in network.module.named_buffers()}


def _describe_observations(spec: EnvSpec) -> str:
    """The observations of an environment in a few words, for messages."""
    return f"shape {spec.obs_shape}" if spec.layout is None else spec.layout.describe()


def _reason(error: Exception) -> str:
    if isinstance(error, RuntimeError) and "allocate memory" in str(error):
        return "its parameters do not fit into memory"
    return f"{type(error).__name__}: {error}"
