"""Composed configurations can be pickled, as PickleJobInfoCallback and the launchers of Hydra do."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

from dqn_runner.config.schema import to_plain_config
from tests.conftest import environment
from tests.support.composition import compose_config

LOAD = """
import json, pickle, sys
with open(sys.argv[1], "rb") as file:
    found = [pickle.load(file) for _ in range(int(sys.argv[2]))]
from dqn_runner.config.schema import to_plain_config
from omegaconf import open_dict
for cfg in found:
    with open_dict(cfg):
        assert cfg.pop("hydra").job.config_name == "config"
    print(json.dumps(to_plain_config(cfg)))
"""
"""Loads pickled configurations before anything else of the package is imported."""


CONFIGURATIONS: list[list[str]] = [[], ["agent=rainbow", "env=minatar"], ["logging=[csv,wandb]"]]


def test_composed_configurations_can_be_unpickled_in_a_new_process(tmp_path: Path) -> None:
    file = tmp_path / "config.pickle"
    with file.open("wb") as pickles:
        for overrides in CONFIGURATIONS:
            pickle.dump(compose_config(*overrides, with_hydra=True), pickles)
    command = [sys.executable, "-c", LOAD, str(file), str(len(CONFIGURATIONS))]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = [to_plain_config(compose_config(*overrides)) for overrides in CONFIGURATIONS]
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected
