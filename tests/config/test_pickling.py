"""Composed configurations can be pickled, as PickleJobInfoCallback and the launchers of Hydra do."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from dqn_runner.config.schema import to_plain_config
from tests.conftest import environment
from tests.support.composition import compose_config

LOAD = """
import json, pickle, sys
with open(sys.argv[1], "rb") as file:
    cfg = pickle.load(file)
from dqn_runner.config.schema import to_plain_config
from omegaconf import open_dict
with open_dict(cfg):
    assert cfg.pop("hydra").job.config_name == "config"
print(json.dumps(to_plain_config(cfg)))
"""
"""Loads a pickled configuration before anything else of the package is imported."""


@pytest.mark.parametrize(
    "overrides",
    [[], ["agent=rainbow", "env=minatar"], ["logging=[csv,wandb]"]],
    ids=["default", "rainbow-minatar", "csv-wandb"],
)
def test_a_composed_configuration_can_be_unpickled_in_a_new_process(
    overrides: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "config.pickle"
    file.write_bytes(pickle.dumps(compose_config(*overrides, with_hydra=True)))
    command = [sys.executable, "-c", LOAD, str(file)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = to_plain_config(compose_config(*overrides))
    assert json.loads(done.stdout) == expected
