"""Agents of Dict observations: predict, modules and exported files take the entries by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dqn_runner import TrainedAgent, UserError, load_agent
from dqn_runner.inference.export import export_agent
from tests.inference.test_load_agent import a_run
from tests.support.mixed import Keys, Stacked

pytestmark = pytest.mark.usefixtures("no_curves")
SMALL = ["env=gym", "agent/network=multi_input", "agent.network.image_hidden=8", "agent.network.hidden=[8]"]


def an_agent(path: Path, env: str, *overrides: str) -> TrainedAgent:
    a_run(path, f"env.id=tests.support.mixed:{env}", "env.kwargs.length=5", *SMALL, *overrides)
    return load_agent(path)


def stacked(trees: list[Any]) -> Any:
    """A batch of observations with the same structure."""
    first = trees[0]
    if isinstance(first, dict):
        return {key: stacked([tree[key] for tree in trees]) for key in first}
    if isinstance(first, tuple):
        return tuple(stacked(list(each)) for each in zip(*trees, strict=True))
    return np.stack(trees)


def by_name(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The entries of a nested observation under their names."""
    if not isinstance(tree, (dict, tuple)):
        return {prefix[:-1]: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {name: each for key, inner in items for name, each in by_name(inner, f"{prefix}{key}.").items()}


def test_single_observations_batches_and_modules_agree(tmp_path: Path) -> None:
    agent = an_agent(tmp_path, "Stacked", "env.normalize_observations=true", "agent=iqn")
    env = Stacked()
    observations = [env.reset(seed=seed)[0] for seed in range(4)]
    values = agent.q_values(stacked(observations))
    assert values.shape == (4, 2)
    np.testing.assert_allclose(agent.q_values(observations[2]), values[2], rtol=1e-4, atol=1e-5)
    flat = by_name(stacked(observations))
    assert np.array_equal(agent.q_values({**flat, "unused": "text"}), values)
    assert np.array_equal(agent.predict(flat), values.argmax(-1))
    tensors = {
        name: torch.as_tensor(value).to(getattr(torch, agent.obs_dtype[name])) for name, value in flat.items()
    }
    with torch.no_grad():
        np.testing.assert_allclose(agent.to_module()(tensors), values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, "got an observation whose entry 'image' has None"),
        ({"category": 0}, "whose entry 'category' has 0, which is not one of the categories"),
        ({"vector": np.zeros((2, 3))}, "whose entry"),
        ({"vector": np.full(3, np.nan)}, "whose entry 'vector' has nan"),
    ],
)
def test_observations_that_do_not_fit_are_rejected(change: Any, message: str, tmp_path: Path) -> None:
    agent = an_agent(tmp_path, "Keys")
    obs = Keys().reset(seed=0)[0]
    with pytest.raises(UserError, match=message):
        agent.predict({**obs, **change})
    for wrong in (None, np.zeros(3), {}):
        with pytest.raises(UserError, match="this agent takes the entries vector, category, image"):
            agent.predict(wrong)


@pytest.mark.slow
def test_exported_files_have_an_input_for_each_entry(tmp_path: Path) -> None:
    import onnxruntime

    agent = an_agent(tmp_path / "run", "Keys", "env.normalize_observations=true")
    export_agent(agent, ["onnx", "torch", "safetensors"], tmp_path)
    env = Keys()
    obs = stacked([env.reset(seed=seed)[0] for seed in range(3)])
    obs = {name: np.asarray(obs[name]).astype(agent.obs_dtype[name]) for name in obs}
    expected = agent.q_values(obs)
    session: Any = onnxruntime.InferenceSession(str(tmp_path / "agent.onnx"))
    assert {each.name for each in session.get_inputs()} == {"image", "vector", "category"}
    np.testing.assert_allclose(session.run(["q_values"], obs)[0], expected, rtol=1e-4, atol=1e-4)
    loaded = torch.export.load(str(tmp_path / "agent.pt2")).module()
    found = loaded({name: torch.from_numpy(each) for name, each in obs.items()})
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-4, atol=1e-4)
