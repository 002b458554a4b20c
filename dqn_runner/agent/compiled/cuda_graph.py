"""The update of one configuration on a GPU, as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

from dqn_runner.agent.compiled.program import UpdateProgram, flat_update
from dqn_runner.agent.compiled.update import CompiledUpdate
from dqn_runner.agent.learner import LearnerState
from dqn_runner.agent.networks.modules.flat_network import FlatNetwork
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.log import log

Replay = Callable[[], object]
"""Repeats captured work on the same memory."""
Capture = Callable[
    [Callable[[], object], Callable[[], torch.Tensor], torch.device], tuple[torch.Tensor, Replay]
]
"""From work to warm up with, work to capture, and its device, to the memory of the result and a replay."""
_WARM_UPS = 3
"""Runs before a capture, in which libraries allocate what they keep; torch's documentation has as many."""


def graphed_update(
    program: UpdateProgram, network: FlatNetwork, state: LearnerState
) -> CompiledUpdate | None:
    """The graph, or None where the update runs operation by operation; logs why.

    Parts that are not of this package may wait for the device, which a graph cannot. Whether a capture fails
    depends on the update, the version of torch and the GPU, so it is the same in each session of a run.
    """
    own = next(program.own_parts(), None)
    if state.online.device.type != "cuda" or own is not None:
        reason = "it is for CUDA only" if own is None else f"{own} is not a part of dqn_runner"
        log.info("the update is not a CUDA graph: %s", reason)
        return None
    try:
        captured = GraphedUpdate(program, network, state)
    except torch.OutOfMemoryError:  # depends on what else is on the GPU: another session may have room
        raise
    except RuntimeError as error:  # the state is as it was: a capture executes nothing
        log.warning("the update is not a CUDA graph: %s", str(error).partition("\n")[0])
        return None
    log.info("the update is a CUDA graph")
    return CompiledUpdate(captured, program.config.optimizer)


def capture_cuda_graph(
    warm_up: Callable[[], object], work: Callable[[], torch.Tensor], device: torch.device
) -> tuple[torch.Tensor, Replay]:
    """Capture the kernels that `work` starts; it may neither wait for the device nor read from it."""
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                warm_up()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = work()
    return result, graph.replay


class GraphedUpdate:
    """A `FlatUpdate` captured once as a CUDA graph.

    An update is some hundred small kernels, and starting one from Python takes longer than most of them run.
    A graph starts all of them at once. It works on fixed memory: the state of the learner, and copies of the
    inputs.
    """

    def __init__(
        self,
        program: UpdateProgram,
        network: FlatNetwork,
        state: LearnerState,
        capture: Capture = capture_cuda_graph,
    ) -> None:
        """Capture `program`; `state` does not change, and must keep its memory."""
        device = state.online.device
        examples = program.example_inputs(network, state)
        own = (state.online, state.target, *state.moments.values())
        scratch, host = examples[: len(own)], examples[len(own) :]
        pin = device.type == "cuda"
        self._host = [tensor.pin_memory() if pin else tensor for tensor in host]
        """Page-locked memory, from which the device copies by itself."""
        self._inputs = [tensor.to(device, copy=True) for tensor in host]
        self._state_size = len(own)
        self._batch_size = program.config.batch_size
        update = flat_update(program, network, state)

        def run(changed: tuple[torch.Tensor, ...]) -> torch.Tensor:
            return torch.cat(update(*changed, *self._inputs))

        self._result, self._replay = capture(lambda: run(scratch), lambda: run(own), device)

    def __call__(self, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one step in place. `inputs` begin with the state that was captured; the others are copied."""
        for host, fixed, value in zip(self._host, self._inputs, inputs[self._state_size :], strict=True):
            fixed.copy_(host.copy_(value), non_blocking=True)
        self._replay()
        result = self._result.cpu()  # waits, so that the host memory is free again
        return result[: self._batch_size], result[self._batch_size :]
