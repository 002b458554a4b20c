"""Writes a trained agent in formats that other programs read.

Each file is checked against the agent before it gets its name, and carries where it comes from.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dqn_runner.core.exceptions import UserError
from dqn_runner.core.imports import import_module
from dqn_runner.core.lazy_imports import torch
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
        "input": {"name": INPUT, "shape": ["batch", *agent.obs_shape], "dtype": agent.obs_dtype},
        "output": {"name": OUTPUT, "shape": ["batch", agent.num_actions], "dtype": "float32"},
        "preprocessing": "in the network",
        "actions": agent.describe_actions(),
        "action_mask": "choose among the allowed actions only" if agent.has_action_mask else None,
        "provenance": agent.provenance,
    }


Compute = Callable[[Array], FloatArray]
"""What a written file computes: action values [n, actions] of observations."""


def _write_onnx(agent: TrainedAgent, path: Path) -> Compute:
    _, onnx, onnxruntime = (
        import_module(module, "export=[onnx]", extra=EXTRA)
        for module in ("onnxscript", "onnx", "onnxruntime")
    )
    dynamic = ({0: torch.export.Dim("batch")},)
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT]}
    with _quiet():
        program: Any = torch.onnx.export(
            agent.to_module(), (_example(agent),), dynamo=True, dynamic_shapes=dynamic, verbose=False, **names
        )
        model: Any = program.model_proto
    onnx.helper.set_model_props(model, _as_texts(description(agent)))
    path.write_bytes(model.SerializeToString())
    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda obs: session.run([OUTPUT], {INPUT: obs})[0]


def _write_torch(agent: TrainedAgent, path: Path) -> Compute:
    dynamic = ({0: torch.export.Dim("batch")},)
    with _quiet():
        program = torch.export.export(agent.to_module(), (_example(agent),), dynamic_shapes=dynamic)
        with path.open("wb") as file:
            torch.export.save(program, file, extra_files=_as_texts(description(agent)))
        with path.open("rb") as file:
            loaded = torch.export.load(file).module()
    return _compute(loaded)


def _write_safetensors(agent: TrainedAgent, path: Path) -> Compute:
    library = import_module("safetensors.torch", "export=[safetensors]", extra=EXTRA)
    module = agent.to_module()
    tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    library.save_file(tensors, path, metadata=_as_texts(description(agent)))
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
    rng = np.random.default_rng(0)
    shape = (CHECKED, *agent.obs_shape)
    obs = rng.normal(size=shape) if agent.obs_dtype == "float32" else rng.integers(256, size=shape)
    obs = (obs % 2 if agent.obs_dtype == "bool" else obs).astype(agent.obs_dtype)
    expected = agent.q_values(obs)
    found = np.concatenate([compute(obs[:1]), compute(obs[1:])])
    same_shape = found.shape == expected.shape
    error = float((np.abs(found - expected) / (1 + np.abs(expected))).max()) if same_shape else np.inf
    if not error <= TOLERANCE:
        raise UserError(
            f"the network in the format {name} differs from the agent by {error:.2g}, more than "
            f"{TOLERANCE:g}; the file was not kept"
        )


def _example(agent: TrainedAgent) -> torch.Tensor:
    return torch.zeros(2, *agent.obs_shape, dtype=getattr(torch, agent.obs_dtype))


def _compute(module: Any) -> Compute:
    def compute(obs: Array) -> FloatArray:
        with torch.no_grad():
            return module(torch.from_numpy(obs)).numpy()

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
