"""Exported agents compute what the agent does, also in a program that has only onnxruntime and numpy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from dqn_runner import TrainedAgent, UserError, load_agent
from dqn_runner.inference import export
from dqn_runner.inference.export import FORMATS, export_agent
from tests.conftest import Outcome
from tests.inference.test_load_agent import SHORT, VARIANTS, a_run, observations
from tests.support.checkpoints import rewrite

pytestmark = pytest.mark.usefixtures("no_curves")
KEYS = {"input", "output", "preprocessing", "actions", "action_mask", "provenance"}


def trained(variant: str, path: Path) -> TrainedAgent:
    a_run(path / "run", *VARIANTS[variant])
    return load_agent(path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", [pytest.param("rainbow", marks=pytest.mark.nightly), "iqn", "normalized", "byte images"]
)
def test_exported_networks_compute_the_values_of_the_agent(variant: str, tmp_path: Path) -> None:
    import onnxruntime

    agent = trained(variant, tmp_path)
    names = ["onnx", "torch"] if variant == "rainbow" else ["torch", "safetensors"]
    paths = export_agent(agent, names, tmp_path)
    assert [path.name for path in paths] == [f"agent.{FORMATS[name][0]}" for name in names]
    obs = observations(agent, 3)
    expected = agent.q_values(obs)
    texts = dict.fromkeys((f"dqn_runner.{key}" for key in KEYS), "")
    loaded = torch.export.load(str(tmp_path / "agent.pt2"), extra_files=texts).module()
    assert json.loads(texts["dqn_runner.provenance"]) == agent.provenance
    np.testing.assert_allclose(loaded(torch.from_numpy(obs)).detach(), expected, rtol=1e-4, atol=1e-4)
    if "onnx" in names:
        session: Any = onnxruntime.InferenceSession(str(tmp_path / "agent.onnx"))
        found = session.run(["q_values"], {"observation": obs})[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        about = session.get_modelmeta().custom_metadata_map
    else:
        modes = {path.stat().st_mode for path in paths}
        assert len(modes) == 1, "the library lets only the owner read its files"
        with safe_open(tmp_path / "agent.safetensors", "pt") as file:
            about = file.metadata()
            assert sum(file.get_tensor(key).numel() for key in file.keys()) >= 100  # noqa: SIM118
    assert {key.removeprefix("dqn_runner.") for key in about} == KEYS
    assert json.loads(about["dqn_runner.provenance"]) == agent.provenance
    assert json.loads(about["dqn_runner.input"])["shape"] == ["batch", *agent.obs_shape]


def test_a_file_that_differs_from_the_agent_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = trained("dqn", tmp_path)

    def write(agent: TrainedAgent, path: Path) -> Callable[[Any], Any]:
        path.write_text("wrong")
        return lambda obs: agent.q_values(obs) + 0.01

    monkeypatch.setattr(export, "FORMATS", {"wrong": ("wrong", write)})
    with pytest.raises(
        UserError, match=r"the format wrong differs from the agent by 0\.0\d+, more than 0\.0001"
    ):
        export_agent(agent, ["wrong"], tmp_path)
    assert not list(tmp_path.glob("agent.*"))


@pytest.mark.parametrize("formats", [[], ["onx"], ["safetensors", "onx"]])
def test_an_unknown_format_is_rejected_before_anything_is_written(formats: list[str], tmp_path: Path) -> None:
    agent = trained("dqn", tmp_path)
    with pytest.raises(UserError, match=r"choose from onnx, torch, safetensors"):
        export_agent(agent, formats, tmp_path)
    assert not list(tmp_path.glob("agent.*"))


def test_export_imports_what_the_command_names_and_not_what_it_replaces(
    program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    net = "import torch\ndef net(shape, num_outputs):\n    return torch.nn.Linear(shape[0], num_outputs)\n"
    for name in ("mine", "evil"):
        touch = f"from pathlib import Path\nPath({str(tmp_path / name)!r}).touch()\n"
        (tmp_path / f"{name}_nets.py").write_text(touch + net)
    custom = ("agent/network=custom", "agent.network.target=mine_nets:net")
    done = program(*custom, *SHORT[:-2], "logging=[]", "trainer.target_return=null", "hydra.run.dir=run")
    assert done.status == 0, done.err

    def replace(document: dict[str, Any]) -> None:
        source = document["source"]
        source["config"]["agent"]["network"]["target"] = "evil_nets:net"
        source["overrides"] = [text.replace("mine_nets", "evil_nets") for text in source["overrides"]]

    rewrite(tmp_path / "run" / "checkpoints" / "latest.pt", replace)
    (tmp_path / "mine").unlink()
    export = ("mode=export", "checkpoint=run", "export=[safetensors]", "hydra.run.dir=out")
    assert "agent.network.target=evil_nets:net" in program(*export).error
    done = program(*export, *custom)
    assert done.status == 0, done.err
    assert not (tmp_path / "evil").exists()


def test_program_exports_a_checkpoint(
    program: Callable[..., Outcome], finished_run: Path, tmp_path: Path
) -> None:
    best = finished_run / "checkpoints" / "best.pt"
    command = ("mode=export", f"checkpoint={best}", "hydra.run.dir=out")
    done = program(*command, "export=[safetensors]")
    assert done.status == 0, done.err
    assert "written and checked: " in done.out
    assert [path.name for path in (tmp_path / "out").glob("agent.*")] == ["agent.safetensors"]
    assert "choose from onnx" in program(*command, "export=[onx]").error
    assert "mode=export needs checkpoint=PATH" in program("mode=export").error
    assert "mode=export takes checkpoint=PATH, not resume=" in program("mode=export", f"resume={best}").error
