"""Devices: which one is used, and that every tensor of an update is on it.

No test needs a GPU: tensors of a `FakeTensorMode` have a device, shapes and dtypes, but no values, and an
operation of tensors on different devices raises. They are on `meta`, the only other device that every build
of torch has.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dqn_runner import DQNAgent, UserError
from dqn_runner.agent import device as devices
from dqn_runner.agent.device import WORTH_MULTIPLICATIONS, check_device_name, choose_device
from dqn_runner.agent.device_updates import eager_update
from dqn_runner.agent.learner import HyperParameters, LearnerState, make_update, sync_target
from dqn_runner.agent.update_noise import UpdateNoise
from dqn_runner.checkpointing.format import pack
from dqn_runner.config.build import build_agent
from dqn_runner.core.types import Batch, Transition
from tests.support.probes import agent_options, compose_run

BATCH = 8


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, as far as the choice of the device is concerned."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(devices, "_make_repeatable", lambda: None)


@pytest.mark.parametrize(
    ("name", "convolutions", "work", "expected"),
    [
        ("auto", True, 1, "cuda:0"),
        ("auto", False, WORTH_MULTIPLICATIONS - 1, "cpu"),
        ("auto", False, WORTH_MULTIPLICATIONS, "cuda:0"),
        ("cpu", True, WORTH_MULTIPLICATIONS, "cpu"),
        ("cuda", False, 1, "cuda:0"),
        ("cuda:1", False, 1, "cuda:1"),
    ],
)
@pytest.mark.usefixtures("gpus")
def test_the_device_follows_the_setting_and_the_work(
    name: str, convolutions: bool, work: int, expected: str
) -> None:
    assert str(choose_device(name, convolutions, work)) == expected


@pytest.mark.usefixtures("gpus")
def test_a_gpu_that_does_not_exist_is_rejected() -> None:
    with pytest.raises(UserError, match=r"^device=cuda:2: there are 2 GPUs, numbered from 0; set device=cpu"):
        choose_device("cuda:2", True, 1)


@pytest.mark.usefixtures("gpus")
def test_a_compiled_agent_stays_on_the_cpu_unless_a_device_is_named() -> None:
    assert agent_of("dqn", ["env=minatar", "compile=on"]).device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_rejected() -> None:
    assert str(choose_device("auto", True, WORTH_MULTIPLICATIONS)) == "cpu"
    with pytest.raises(UserError, match=r"^device=cuda: torch .* (is built without CUDA|finds no GPU)"):
        choose_device("cuda", True, 1)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "", "cuda:-1"])
def test_an_unknown_device_is_rejected(name: str) -> None:
    with pytest.raises(UserError, match="device must be auto, cpu, cuda, cuda:N or mps"):
        check_device_name(name)


def agent_of(option: str, env: list[str]) -> DQNAgent:
    settings = [f"agent={option}", *env, f"agent.batch_size={BATCH}", "logging=[]"]
    run = compose_run(settings)
    return build_agent(run.agent, run.env)


def fake_batch(agent: DQNAgent, device: str) -> Transition:
    obs = torch.empty(BATCH, *agent.spec.obs_shape, device=device)
    numbers = torch.empty(BATCH, device=device)
    return Transition(obs, torch.empty(BATCH, dtype=torch.int64, device=device), numbers, numbers, obs)


@pytest.mark.parametrize(
    ("option", "settings"),
    [
        *((option, ["env=minatar"]) for option in agent_options()),
        ("dqn", ["env=cartpole", "agent/optimizer=rmsprop"]),
    ],
)
def test_all_tensors_of_an_update_are_on_the_device(option: str, settings: list[str]) -> None:
    agent = agent_of(option, settings)
    network, config = agent.network, agent.config
    needed = agent._noise_requirements  # pyright: ignore[reportPrivateUsage]
    with FakeTensorMode(allow_non_fake_inputs=False):
        params = torch.empty(network.initial.shape, device="meta")
        for name, buffer in list(network.module.named_buffers()):
            network.module.register_buffer(name, torch.empty(buffer.shape, device="meta"))
        state = LearnerState(params, config.optimizer.init(params), network.views)
        noise = UpdateNoise(
            torch.empty(needed.calls, network.noise_size, device="meta"),
            torch.empty(BATCH, needed.taus, device="meta"),
        )
        update = make_update(network, config.loss, config.optimizer)
        weight = torch.empty(BATCH, device="meta")
        priority, statistics = update(
            state, fake_batch(agent, "meta"), weight, HyperParameters(1e-3, 10.0), noise
        )
        sync_target(state, 0.5)
    assert {priority.device.type, statistics.device.type} == {"meta"}
    assert {tensor.device.type for tensor in (state.online, state.target, *state.moments.values())} == {
        "meta"
    }


@pytest.mark.parametrize("option", ["dqn", "iqn", "rainbow"])
def test_an_agent_on_another_device_computes_the_same(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code for other devices, on tensors of the CPU."""

    plain, moved = agent_of(option, ["env=minatar"]), agent_of(option, ["env=minatar"])

    class Device:
        type = "cuda"

    calls: list[Any] = []
    to = torch.Tensor.to

    def moved_to(tensor: torch.Tensor, *args: Any, **settings: Any) -> torch.Tensor:
        if args and isinstance(args[0], Device):
            calls.append(tensor.shape)
            return tensor.clone()
        return to(tensor, *args, **settings)

    monkeypatch.setattr(torch.Tensor, "to", moved_to)
    moved._update = eager_update(moved._update, Device())  # pyright: ignore
    random = np.random.default_rng(0)
    obs = (random.random((BATCH, *plain.spec.obs_shape)) > 0.5).astype(np.float32)
    numbers = torch.ones(BATCH)
    transition = Transition(
        torch.from_numpy(obs), torch.zeros(BATCH, dtype=torch.int64), numbers, numbers, torch.from_numpy(obs)
    )
    batch = Batch(transition, np.arange(BATCH), numbers / BATCH)
    for step in range(3):
        (one, info), (two, other) = plain.learn(batch, step), moved.learn(batch, step)
        assert torch.equal(one, two)
        assert torch.equal(info, other)
    assert len(calls) >= 6 * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("option", agent_options())
def test_an_update_on_a_gpu_agrees_with_that_of_the_cpu_and_repeats(option: str) -> None:
    agents = [agent_of(option, ["env=minatar", f"device={name}"]) for name in ("cpu", "cuda", "cuda")]
    random = np.random.default_rng(0)
    shape = agents[0].spec.obs_shape
    images = [torch.from_numpy(random.random((BATCH, *shape)).astype(np.float32)) for _ in range(2)]
    reward = torch.from_numpy(random.normal(size=BATCH).astype(np.float32))
    action = torch.from_numpy(random.integers(agents[0].spec.num_actions, size=BATCH))
    transition = Transition(images[0], action, reward, torch.full((BATCH,), 0.9), images[1])
    batch = Batch(transition, np.arange(BATCH), torch.full((BATCH,), 1 / BATCH))
    results = [[part.cpu() for part in agent.learn(batch, 0)] for agent in agents]
    for cpu, gpu in zip(results[0], results[1], strict=True):
        torch.testing.assert_close(cpu, gpu, rtol=1e-3, atol=1e-4)
    for agent in agents[1:]:
        for step in range(20):
            agent.learn(batch, step)
    assert torch.equal(agents[1].learner.online, agents[2].learner.online)


def test_a_checkpoint_holds_tensors_of_the_cpu() -> None:
    with FakeTensorMode():
        tensor = torch.empty(2, device="cuda")
        packed = pack({"online": tensor}, lambda *_: {})
    assert packed["online"].device.type == "cpu"


def test_a_run_that_changes_the_device_reports_it(caplog: pytest.LogCaptureFixture) -> None:
    agent = agent_of("dqn", ["env=cartpole"])
    state = {**agent.state_dict(), "device": "cuda"}
    agent.load_state_dict(state)
    with caplog.at_level(logging.WARNING):
        agent.choose_update("float32", 100)
    assert "this run was on the device cuda, and is on cpu now; from here on it differs" in caplog.text
    with pytest.raises(ValueError, match=r"state.agent.device is not one of cpu, cuda, mps"):
        agent.load_state_dict({**state, "device": "tpu"})


@pytest.mark.parametrize(("setting", "expected"), [("auto", True), (False, False)])
def test_a_compiled_run_that_visits_a_gpu_is_compiled_again_on_a_cpu(
    setting: bool | str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool | None] = []

    def choose(*arguments: Any) -> None:
        asked.append(arguments[-1])

    monkeypatch.setattr("dqn_runner.agent.compiled.choice.choose_update", choose)
    on_gpu = agent_of("dqn", ["env=cartpole"])
    on_gpu.load_state_dict({**on_gpu.state_dict(), "compiled": True})
    on_gpu.config.compile = setting
    on_gpu.device = torch.device("mps")
    on_gpu.choose_update("float32", 100)
    assert asked == [], "updates on a GPU are not compiled"
    state = on_gpu.state_dict()
    assert state["compiled"] is expected, "how the run was begun, unless compile=off changed it for good"
    again = agent_of("dqn", ["env=cartpole"])
    again.load_state_dict(state)
    again.choose_update("float32", 100)
    assert asked == [expected]


def test_a_run_that_begins_on_a_gpu_is_not_compiled_later() -> None:
    agent = agent_of("dqn", ["env=cartpole"])
    agent.device = torch.device("mps")
    agent.choose_update("float32", 10_000_000)
    assert agent.state_dict()["compiled"] is False


def test_an_operation_without_a_deterministic_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = agent_of("dqn", ["env=cartpole"])
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_: tensor)

    def update(*_: Any) -> None:
        raise RuntimeError(
            "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. You can turn off determinism."
        )

    agent._update = eager_update(update, torch.device("cuda"))  # pyright: ignore
    numbers = torch.ones(BATCH)
    batch = Batch(fake_batch(agent, "cpu"), np.arange(BATCH), numbers)
    with pytest.raises(UserError) as caught:
        agent.learn(batch, 0)
    assert str(caught.value) == (
        "the network or the loss uses adaptive_avg_pool2d_backward_cuda, which has no deterministic kernel "
        "on device=cuda: a run could not be repeated exactly. Use another operation, or set device=cpu"
    )


def test_the_command_line_rejects_an_unknown_device(program: Any, tmp_path: Path) -> None:
    assert "device must be auto, cpu" in program("device=gpu", "hydra.run.dir=run").error
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_command_line_rejects_a_device_that_the_machine_lacks(program: Any, tmp_path: Path) -> None:
    assert "device=cuda: torch" in program("device=cuda", "hydra.run.dir=run").error
    assert not (tmp_path / "run" / "checkpoints").exists()
