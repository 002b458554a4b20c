"""The update as a CUDA graph: what it computes, and that every agent's update can be captured.

No test but the last needs a GPU. A stand-in for the capture repeats the work on the same memory, as a graph
does. A capture allows no wait for the device and no read from the host; in a `FakeTensorMode` with tensors on
`meta` both are visible as operations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dqn_runner import DQNAgent
from dqn_runner.agent.compiled import cuda_graph
from dqn_runner.agent.compiled.cuda_graph import GraphedUpdate, Replay
from dqn_runner.agent.compiled.program import UpdateProgram, flat_update, update_program
from dqn_runner.agent.compiled.update import CompiledUpdate
from dqn_runner.agent.learner import HyperParameters, LearnerState
from dqn_runner.agent.losses import base as losses_base
from dqn_runner.agent.losses import categorical
from dqn_runner.agent.losses.q_learning import QLearning
from dqn_runner.config.build import build_agent
from tests.agent.test_functional_update import batches
from tests.support.probes import agent_options, compose_run

BATCH = 8


def agent_of(option: str, *settings: str) -> DQNAgent:
    run = compose_run([f"agent={option}", f"agent.batch_size={BATCH}", "device=cpu", "logging=[]", *settings])
    return build_agent(run.agent, run.env)


def program_of(agent: DQNAgent, dtype: str) -> UpdateProgram:
    return update_program(agent.config, dtype, False, agent._noise_requirements, 1)


def stand_in(
    warm_up: Callable[[], Any], work: Callable[[], torch.Tensor], _: torch.device
) -> tuple[torch.Tensor, Replay]:
    """A capture on the CPU: fixed memory for the result, which each replay overwrites."""
    result = warm_up().clone()
    return result, lambda: result.copy_(work())


@pytest.mark.parametrize("option", ["dqn", "rainbow", "iqn"])
def test_a_graph_takes_the_steps_of_the_plain_update(option: str) -> None:
    """Its fixed inputs get each batch, and the capture itself changes nothing."""
    plain, agent = agent_of(option, "env=cartpole"), agent_of(option, "env=cartpole")
    state, before = agent.learner, copy.deepcopy(agent.learner.state_dict())
    captured = GraphedUpdate(program_of(agent, "float32"), agent.network, state, capture=stand_in)
    graph = CompiledUpdate(captured, agent.config.optimizer)
    assert torch.equal(state.online, before["online"])
    assert all(torch.equal(state.moments[name], before["moments"][name]) for name in state.moments)
    rng = np.random.default_rng(0)
    for rate in (1e-3, 1e-3, 1e-4):
        transition, weight, noise = batches(agent, "float32", rng)
        hyper = HyperParameters(rate, agent.config.max_grad_norm)
        expected = plain._update(plain.learner, transition, weight, hyper, noise)
        found = graph(state, transition, weight, hyper, noise)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state.online, plain.learner.online, rtol=1e-3, atol=1e-6)
    assert state.updates == plain.learner.updates == 3


class NoHostAccess(TorchDispatchMode):
    """Raises for operations that a capture does not allow: reads of values, and tensors of the host.

    And for additions at indices: in some versions of torch their form for CUDA that gives the same bytes each
    time copies the strides of a tensor from the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(func) for name in ("scatter", "index_put", "index_add")), func
        result = func(*args, **(kwargs or {}))
        found: list[Any] = [args, result]
        while found:
            value = found.pop()
            if isinstance(value, list | tuple):
                found += value
            elif isinstance(value, torch.Tensor):
                assert value.device.type == "meta", f"{func} has a tensor on the {value.device}"
        self.operations += 1
        return result


def run_on_device(agent: DQNAgent) -> int:
    """Run the update on a device without values; returns the number of its operations."""
    network, config = agent.network, agent.config
    program = program_of(agent, "uint8")
    with FakeTensorMode(allow_non_fake_inputs=False):
        for name, buffer in list(network.module.named_buffers()):
            network.module.register_buffer(name, torch.empty(buffer.shape, device="meta"))
        params = torch.empty(network.initial.shape, device="meta")
        state = LearnerState(params, config.optimizer.init(params), network.views)
        examples = program.example_inputs(network, state)
        inputs = [torch.empty(each.shape, dtype=each.dtype, device="meta") for each in examples]
        with NoHostAccess() as mode:
            torch.cat(flat_update(program, network, state)(*inputs))
    return mode.operations


@pytest.mark.parametrize("option", agent_options())
def test_the_update_of_every_agent_can_be_captured(option: str) -> None:
    assert run_on_device(agent_of(option, "env=minatar")) > 50


@pytest.mark.parametrize("option", agent_options())
def test_the_forms_of_a_gpu_take_the_steps_of_the_cpu(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where additions at indices are slow, losses compare with all indices instead."""
    plain, agent = agent_of(option, "env=cartpole"), agent_of(option, "env=cartpole")
    rng = np.random.default_rng(0)
    for _ in range(3):
        transition, weight, noise = batches(agent, "float32", rng)
        hyper = HyperParameters(1e-3, agent.config.max_grad_norm)
        expected = plain._update(plain.learner, transition, weight, hyper, noise)
        with monkeypatch.context() as patched:
            for module in (losses_base, categorical):
                patched.setattr(module, "adds_at_indices", lambda _: False)
            found = agent._update(agent.learner, transition, weight, hyper, noise)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(agent.learner.online, plain.learner.online, rtol=1e-5, atol=1e-6)


@dataclass(kw_only=True)
class ReadsValues(QLearning):
    """A loss that waits for the device."""

    def __call__(self, *arguments: Any) -> Any:
        result = super().__call__(*arguments)
        return result._replace(loss=result.loss * float(result.loss.sum()))


@dataclass(kw_only=True)
class ReadsHost(QLearning):
    """A loss that copies a number to the device."""

    def __call__(self, *arguments: Any) -> Any:
        result = super().__call__(*arguments)
        return result._replace(loss=result.loss * torch.tensor([2.0]).to(result.loss.device))


@pytest.mark.parametrize("loss", [ReadsValues(), ReadsHost()])
def test_an_update_that_needs_the_host_is_noticed(loss: QLearning) -> None:
    agent = agent_of("dqn", "env=minatar")
    agent.config.loss = loss
    with pytest.raises((AssertionError, RuntimeError)):
        run_on_device(agent)


def test_an_update_that_cannot_be_captured_runs_operation_by_operation(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore lines")

    monkeypatch.setattr(cuda_graph, "GraphedUpdate", fails)
    agent = agent_of("dqn", "env=cartpole")
    state: Any = SimpleNamespace(online=SimpleNamespace(device=torch.device("cuda")))
    assert cuda_graph.graphed_update(program_of(agent, "float32"), agent.network, state) is None
    assert caplog.messages == [
        "the update is not a CUDA graph: CUDA error: operation not permitted when stream is capturing"
    ]


def test_a_gpu_without_memory_for_the_graph_is_not_taken_for_one_that_cannot_capture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A resumed run would take the other path if there is room then."""

    def fails(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(cuda_graph, "GraphedUpdate", fails)
    agent = agent_of("dqn", "env=cartpole")
    state: Any = SimpleNamespace(online=SimpleNamespace(device=torch.device("cuda")))
    with pytest.raises(torch.OutOfMemoryError):
        cuda_graph.graphed_update(program_of(agent, "float32"), agent.network, state)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("option", agent_options())
def test_a_graph_on_a_gpu_takes_the_steps_of_the_cpu(option: str) -> None:
    plain, agent = agent_of(option, "env=minatar"), agent_of(option, "env=minatar", "device=cuda")
    captured = GraphedUpdate(program_of(agent, "uint8"), agent.network, agent.learner)
    graph = CompiledUpdate(captured, agent.config.optimizer)
    rng = np.random.default_rng(0)
    for _ in range(3):
        transition, weight, noise = batches(plain, "uint8", rng)
        hyper = HyperParameters(1e-3, agent.config.max_grad_norm)
        expected = plain._update(plain.learner, transition, weight, hyper, noise)
        found = graph(agent.learner, transition, weight, hyper, noise)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(agent.learner.online.cpu(), plain.learner.online, rtol=1e-3, atol=1e-4)
