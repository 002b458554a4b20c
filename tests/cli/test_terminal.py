"""Terminals that cannot show every character: printing never ends a run."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from dqn_runner.cli import main as program_main
from tests.conftest import Outcome


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_characters_that_a_terminal_cannot_show_are_escaped(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding, write_through=True))
    monkeypatch.setattr(sys, "stderr", None)  # as for a process without a terminal
    monkeypatch.setattr(program_main, "make_job", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        program_main._run_job(None, [])  # pyright: ignore[reportArgumentType, reportPrivateUsage]
    print("398.5 ± 144 … 日本 \udcff")
    text = shown.getvalue().decode(encoding)
    assert text.startswith("398.5 ")
    assert "\\udcff" in text
    assert ("±" in text) is (encoding != "ascii")


@pytest.mark.slow
def test_a_sweep_on_an_ascii_terminal_prints_its_table(run_cli_here: Callable[..., Outcome]) -> None:
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    sweep = ("-m", "hydra/sweeper=optuna", "agent.gamma=0.9,0.99", "hydra.sweeper.n_trials=1")
    budget = ("trainer.max_steps=60", "trainer.eval_episodes=1", "logging=[file]")
    command = (*sweep, "hydra.sweeper.seeds=2", *budget, "hydra.sweep.dir=s")
    assert "±" in run_cli_here(*command).out
    done = run_cli_here(*command, env=variables)  # all is finished, only the table is printed
    assert done.status == 0, done.err
    assert "standard deviation" in done.out
    assert "Traceback" not in done.err
