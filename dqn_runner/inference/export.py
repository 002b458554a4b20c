"""Writes a trained agent in formats that other programs read.

Each file is checked against the agent before it gets its name, and carries where it comes from.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_module
from dqn_runner.core.lazy_imports import torch
from dqn_runner.core.observation_layout import ObservationLayout
from dqn_runner.core.types import Array, FloatArray
from dqn_runner.inference.trained_agent import TrainedAgent

INPUT, OUTPUT = "observation", "q_values"
"""Names of the input and the output of an exported network."""
CHECKED = 1000
"""Observations on which an exported network must agree with the agent."""
TOLERANCE = 1e-4
"""Of values, relative to 1 plus their size."""
EXTRA = "export"


def export_agent(agent: TrainedAgent, formats: list[str], directory: Path) -> list[Path]:
    """Write `agent` in these formats of FORMATS to `directory`; returns the files.

    Raises UserError for an unknown format, for a package that is not installed, and for a file that does not
    compute what the agent does; nothing is left of that file.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        known = ", ".join(FORMATS)
        raise UserError(f"export=[{','.join(unknown)}]: choose from {known}, as in export=[onnx,safetensors]")
    directory.mkdir(parents=True, exist_ok=True)
    found: list[Path] = []
    for name in formats:
        suffix, write = FORMATS[name]
        with tempfile.TemporaryDirectory(dir=directory, prefix="export-") as folder:
            unfinished = Path(folder) / f"agent.{suffix}"
            _check(agent, write(agent, unfinished), name)
            found.append(unfinished.replace(directory / unfinished.name))
    return found


def description(agent: TrainedAgent) -> dict[str, Any]:
    """What a program must know to use an exported network, and where the network comes from."""
    return {
        **_describe_inputs(agent.obs_shape, agent.obs_dtype),
        "output": {"name": OUTPUT, "shape": ["batch", agent.num_actions], "dtype": "float32"},
        "preprocessing": "in the network",
        "actions": agent.describe_actions(),
        "action_mask": "choose among the allowed actions only" if agent.has_action_mask else None,
        "provenance": agent.provenance,
    }


def _describe_inputs(shape: Any, dtype: Any) -> dict[str, Any]:
    """One input, or an input for each entry of a Dict observation."""

    def describe(name: str, shape: Sequence[int], dtype: str) -> dict[str, Any]:
        return {"name": name, "shape": ["batch", *shape], "dtype": dtype}

    if isinstance(dtype, str):
        return {"input": describe(INPUT, shape, dtype)}
    return {"inputs": [describe(name, shape[name], dtype[name]) for name in dtype]}


Observations = Array | dict[str, Array]
"""A batch of observations; of Dict observations, the batches of the entries by name."""

Compute = Callable[[Any], FloatArray]
"""What a written file computes: action values [n, actions] of observations."""


def _write_onnx(agent: TrainedAgent, path: Path) -> Compute:
    _, onnx, onnxruntime = (
        import_module(module, "export=[onnx]", extra=EXTRA)
        for module in ("onnxscript", "onnx", "onnxruntime")
    )
    inputs = [INPUT] if agent.layout is None else list(agent.layout.entry_shapes)
    settings: dict[str, Any] = {"input_names": inputs, "output_names": [OUTPUT], "verbose": False}
    with _quiet():
        program: Any = torch.onnx.export(
            agent.to_module(), kwargs=_example(agent), dynamo=True, dynamic_shapes=_dynamic(agent), **settings
        )
        model: Any = program.model_proto
    onnx.helper.set_model_props(model, _as_texts(description(agent)))
    path.write_bytes(model.SerializeToString())
    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda obs: session.run([OUTPUT], {INPUT: obs} if agent.layout is None else obs)[0]


def _write_torch(agent: TrainedAgent, path: Path) -> Compute:
    with _quiet():
        example = (_example(agent)["obs"],)
        program = torch.export.export(agent.to_module(), example, dynamic_shapes=_dynamic(agent))
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files=_as_texts(description(agent)))
        with path.open("rb") as file:
            loaded = torch.export.load(file).module()
    return _compute(loaded)


def _write_safetensors(agent: TrainedAgent, path: Path) -> Compute:
    library = import_module("safetensors.torch", "export=[safetensors]", extra=EXTRA)
    module = agent.to_module()
    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    path.touch()  # with the permissions of other files; the library lets only the owner read it
    permissions = path.stat().st_mode
    library.save_file(tensors, path, metadata=_as_texts(description(agent)))
    path.chmod(permissions)
    again = agent.to_module()
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    again.load_state_dict(library.load_file(path))
    return _compute(again)


FORMATS: Mapping[str, tuple[str, Callable[[TrainedAgent, Path], Compute]]] = {
    "onnx": ("onnx", _write_onnx),
    "torch": ("pt2", _write_torch),
    "safetensors": ("safetensors", _write_safetensors),
}
"""File suffix and writer of each format."""


def _check(agent: TrainedAgent, compute: Compute, name: str) -> None:
    """Raise UserError unless `compute` agrees with the agent, for one observation and for many."""
    obs = _observations(agent)
    expected = agent.q_values(obs)
    found = np.concatenate([compute(_slice(obs, slice(1))), compute(_slice(obs, slice(1, None)))])
    same_shape = found.shape == expected.shape
    error = float((np.abs(found - expected) / (1 + np.abs(expected))).max()) if same_shape else np.inf
    if not error <= TOLERANCE:
        raise UserError(
            f"the network in the format {name} differs from the agent by {error:.2g}, more than "
            f"{TOLERANCE:g}; the file was not kept"
        )


def _observations(agent: TrainedAgent) -> Observations:
    """Any CHECKED observations."""
    rng = np.random.default_rng(0)
    if agent.layout is not None:
        return _entries(agent.layout, rng)
    return _numbers(rng, (CHECKED, *cast("tuple[int, ...]", agent.obs_shape)), cast("str", agent.obs_dtype))


def _entries(layout: ObservationLayout, rng: np.random.Generator) -> dict[str, Array]:
    """Any CHECKED observations with these entries."""
    found: dict[str, Array] = {}
    obs: Array
    for entry in layout.entries:
        shape, dtype = (CHECKED, *layout.lead, *entry.shape), layout.entry_dtypes[entry.name]
        if entry.sizes:
            sizes, start = (np.reshape(each, entry.shape) for each in (entry.sizes, entry.start))
            obs = start + rng.integers(sizes, size=shape)
        else:
            obs = _numbers(rng, shape, dtype)
        found[entry.name] = obs.astype(dtype)
    return found


def _numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Any numbers of a dtype."""
    numbers: Array = rng.normal(size=shape) if dtype == "float32" else rng.integers(256, size=shape)
    return (numbers % 2 if dtype == "bool" else numbers).astype(dtype)


def _slice(obs: Observations, part: slice) -> Observations:
    return {name: each[part] for name, each in obs.items()} if isinstance(obs, dict) else obs[part]


def _example(agent: TrainedAgent) -> dict[str, Any]:
    """Two observations, as an argument of the module."""
    return {"obs": _as_tensors(_slice(_observations(agent), slice(2)))}


def _dynamic(agent: TrainedAgent) -> Any:
    """That the first axis of each input is a batch of any size."""
    batch = {0: torch.export.Dim("batch")}
    return {"obs": batch if agent.layout is None else dict.fromkeys(agent.layout.entry_shapes, batch)}


def _as_tensors(obs: Observations) -> Any:
    if isinstance(obs, dict):
        return {name: torch.from_numpy(each) for name, each in obs.items()}
    return torch.from_numpy(obs)


def _compute(module: Any) -> Compute:
    def compute(obs: Observations) -> FloatArray:
        with torch.no_grad():
            return module(_as_tensors(obs)).numpy()

    return compute


def _as_texts(content: Mapping[str, Any]) -> dict[str, str]:
    return {f"dqn_runner.{key}": json.dumps(value) for key, value in content.items()}


@contextmanager
def _quiet() -> Generator[None]:
    """Keep what the exporters say about themselves from the terminal."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
