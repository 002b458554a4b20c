"""Hydra's --experimental-rerun: a run is repeated from the configuration that PickleJobInfoCallback saved."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import BUDGET, Outcome, records

pytestmark = pytest.mark.slow

SAVE = "+hydra.callbacks.save._target_=hydra.experimental.callbacks.PickleJobInfoCallback"
RERUN = ("--experimental-rerun", "run/.hydra/config.pickle")


def test_rerun_of_a_finished_run_has_nothing_to_do_and_without_its_results_trains_again(
    run_cli_here: Callable[..., Outcome], tmp_path: Path
) -> None:
    done = run_cli_here(*BUDGET, "logging=[console,jsonl]", SAVE, "hydra.run.dir=run")
    assert done.status == 0, done.err
    before = records(tmp_path / "run")

    done = run_cli_here(*RERUN)
    assert done.status == 0, done.err
    assert done.out.startswith("nothing changed\nbest evaluation ")
    assert "nothing to do: this run has ended" in done.err
    assert records(tmp_path / "run") == before

    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "metrics.json").unlink()
    done = run_cli_here(*RERUN)
    assert done.status == 0, done.err
    assert done.out.startswith("best evaluation ")
    assert (tmp_path / "run" / "checkpoints" / "latest.pt").exists()
    assert records(tmp_path / "run") == before


def test_rerun_finds_the_configuration_directory_of_the_command(
    program: Callable[..., Outcome], run_cli_here: Callable[..., Outcome], tmp_path: Path
) -> None:
    """A rerun does not initialise Hydra, but composes the stored command again to find changed settings."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "lab.yaml").write_text("{defaults: [config, _self_], agent: {batch_size: 16}}")
    config = ("--config-dir=mine", "--config-name=lab")
    done = program(*config, *BUDGET, "trainer.max_steps=600", SAVE, "hydra.run.dir=run")
    assert done.status == 0, done.err
    done = run_cli_here(*RERUN)
    assert done.status == 0, done.err
    assert done.out.startswith("nothing changed\nbest evaluation ")
