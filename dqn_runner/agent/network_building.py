"""Builds the network of an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dqn_runner.agent.network_check import check_parameters, module_outputs, zero_transition
from dqn_runner.core.exceptions import UserError
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.rng import seed_for, torch_seeded
from dqn_runner.core.types import EnvSpec
from dqn_runner.envs.generators import OwnGenerators

if TYPE_CHECKING:
    from torch import nn

    from dqn_runner.agent.config import DQNConfig
    from dqn_runner.agent.networks.modules.flat_network import FlatNetwork


def build_flat_network(config: DQNConfig, spec: EnvSpec) -> FlatNetwork:
    """The network of `build_network` as a function of its parameters.

    Raises UserError for one that would use other parameters than those.
    """
    from dqn_runner.agent.networks.modules.flat_network import FlatNetwork

    module = build_network(config, spec)
    learned = {name: value for name, value in module.named_parameters() if value.requires_grad}
    outputs = module_outputs(module.eval(), spec)
    network = FlatNetwork(module, spec.layout)
    check_parameters(network, learned, outputs, spec)
    return network


def build_network(config: DQNConfig, spec: EnvSpec) -> nn.Module:
    """A new module of the configuration, with the initial parameters of its seed.

    Raises UserError if there is none, whatever the reason. The global generators are left as they were.
    """
    try:
        seed = seed_for(config.seed, "init")
        with OwnGenerators(seed), torch_seeded(seed):
            module = config.network.build(spec, config.loss.outputs_per_action)
            _initialize_lazy_layers(module, spec)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"agent.network cannot be built: {_reason(error)}") from error
    if not isinstance(module, torch.nn.Module):
        kind = module.__name__ if isinstance(module, type) else f"a {type(module).__name__}"
        raise UserError(f"agent.network must make a torch.nn.Module, but made {kind}")
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise UserError(
            f"agent.network made a TorchScript module ({type(module).__name__}), whose parameters cannot be "
            "replaced; return the module itself, without torch.jit.script or torch.jit.trace"
        )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise UserError(f"agent.network made a {type(module).__name__} without parameters to learn")
    return module


def _initialize_lazy_layers(module: Any, spec: EnvSpec) -> None:
    """Evaluate a module that takes the sizes of layers from its first input (torch.nn.LazyLinear)."""
    if not isinstance(module, torch.nn.Module):
        return
    if any(isinstance(parameter, torch.nn.UninitializedParameter) for parameter in module.parameters()):
        from dqn_runner.agent.networks.modules.flat_network import module_inputs

        with torch.no_grad():
            module(module_inputs(zero_transition(spec).obs, spec.layout))


def _reason(error: Exception) -> str:
    if isinstance(error, RuntimeError) and "allocate memory" in str(error):
        return "its parameters do not fit into memory"
    return f"{type(error).__name__}: {error}"
