"""The state of CMA-ES in a study: read as Optuna wrote it, and never executed."""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cmaes
import numpy as np
import pytest
from optuna.samplers import CmaEsSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from dqn_runner.core.exceptions import UserError
from dqn_runner.sweep import cmaes_state
from tests.sweep.test_study import LEARNING_RATE, a_study, proposals

OPTUNAS_OWN = CmaEsSampler._restore_optimizer
"""Collected before any test replaces it."""
KINDS = pytest.mark.parametrize("kind", [{}, {"use_separable_cma": True}, {"with_margin": True}], ids=str)
POINTS = (LEARNING_RATE, "agent.gamma=interval(0.9,0.99)", "agent.n_step=range(1,8)")


@pytest.fixture(autouse=True)
def _as_optuna_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on one before it, which replaced the method for the process."""
    monkeypatch.setattr(CmaEsSampler, "_restore_optimizer", OPTUNAS_OWN)


def sampler(**more: Any) -> dict[str, Any]:
    return {"_target_": "optuna.samplers.CmaEsSampler", "seed": None, "popsize": 4, **more}


def optimizers() -> list[Any]:
    """One of each class, with a state that is not that of its start."""
    bounds = np.array([[-1.0, 1.0], [-1.0, 1.0]])
    made = [
        cmaes.CMA(np.zeros(2), 1.0, bounds=bounds, seed=0, lr_adapt=True),
        cmaes.SepCMA(np.zeros(2), 1.0, bounds=bounds, seed=0),
        cmaes.CMAwM(np.zeros(2), 1.0, bounds=bounds, steps=np.array([0.0, 0.5]), seed=0),
    ]
    for optimizer in made:
        optimizer.tell(points(optimizer))
    return made


def points(optimizer: Any) -> list[tuple[Any, float]]:
    drawn = np.random.default_rng(0).uniform(-1, 1, (optimizer.population_size, 2))
    return [(point, float(number)) for number, point in enumerate(drawn)]


def states(optimizer: Any) -> dict[str, Any]:
    """Its attributes with their types, as bytes, without the generator."""
    return {
        name: states(value) if name == "_cma" else (type(value), np.asarray(value).tobytes())
        for name, value in vars(optimizer).items()
        if name != "_rng"
    }


def trial_with(stored: bytes | str) -> FrozenTrial:
    text = stored if isinstance(stored, str) else stored.hex()
    parts = {f"cma:optimizer:{n}": text[at : at + 2045] for n, at in enumerate(range(0, len(text), 2045))}
    return create_trial(value=1.0, system_attrs=parts)


def restored(stored: bytes | str) -> Any:
    cmaes_state.read_as_data()
    return CmaEsSampler()._restore_optimizer([trial_with(stored)])


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("optimizer", optimizers(), ids=lambda o: type(o).__name__)
def test_state_is_read_as_it_was_written(optimizer: Any, protocol: int) -> None:
    stored = pickle.dumps(optimizer, protocol)
    made, expected = restored(stored), pickle.loads(stored)
    assert type(made) is type(expected)
    assert states(made) == states(expected)
    made.tell(points(made))
    expected.tell(points(expected))
    assert states(made) == states(expected)


@KINDS
def test_resumed_sweep_proposes_the_trials_of_an_uninterrupted_one(
    tmp_path: Path, kind: dict[str, bool]
) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    changes: dict[str, Any] = {"sampler": sampler(**kind), "n_trials": 12}
    whole = proposals(a_study(tmp_path / "whole", *POINTS, **changes)[1], 12)
    parts = [proposals(a_study(tmp_path / "parts", *POINTS, **changes)[1], 1)[0] for _ in range(12)]
    assert parts == whole


class _Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        return subprocess.call, (["touch", str(self.path)],)


@KINDS
def test_study_cannot_execute_code(tmp_path: Path, kind: dict[str, bool]) -> None:
    study, trials = a_study(tmp_path, *POINTS, sampler=sampler(**kind))
    trial = trials.next()
    assert trial is not None
    key = f"{CmaEsSampler(**kind)._attr_key_optimizer}:0"
    forged = pickle.dumps(_Runs(tmp_path / "owned")).hex()
    study._storage.set_trial_system_attr(trial._trial_id, key, forged)
    trials.tell(trial.number, TrialState.COMPLETE, [1.0])
    with pytest.raises(UserError, match=r"trial 0 that Optuna did not write: it asks for subprocess\.call; "):
        a_study(tmp_path, *POINTS, sampler=sampler(**kind), n_trials=9)[1].next()
    assert not (tmp_path / "owned").exists()


class _Dtype:
    """A dtype with a pointer as its field, which numpy would follow."""

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {"a": (np.dtype("O"), 0)}
        return np.dtype, ("V8", False, True), (3, "|", None, ("a",), fields, 8, 1, 0)


def with_attribute(value: Any) -> bytes:
    """An optimizer of which one attribute is something else."""
    optimizer = optimizers()[0]
    optimizer._mean = value
    return pickle.dumps(optimizer)


GARBAGE: dict[str, Callable[[bytes], bytes | str]] = {
    "cut": lambda whole: whole[: len(whole) // 2],
    "empty": lambda _: " ",
    "no hexadecimal number": lambda whole: "x" + whole.hex(),
    "no pickle": lambda _: b"nothing",
    "a list": lambda _: pickle.dumps([1.0]),
    "an array": lambda _: pickle.dumps(np.zeros(3)),
    "an array of objects": lambda _: pickle.dumps(np.array([None, "a"])),
    "another class of cmaes": lambda whole: whole.replace(b"cmaes._cma\x94", b"cmaes._dxn\x94"),
    "a dtype with fields": lambda _: pickle.dumps(_Dtype()),
    "an optimizer with an array of texts": lambda _: with_attribute(np.array(["a", "b"])),
    "an optimizer with a text": lambda _: with_attribute("a"),
    "an optimizer with a list": lambda _: with_attribute([1.0, 2.0]),
    "a class alone": lambda _: pickle.dumps(cmaes.CMA),
}


@pytest.mark.parametrize("damage", GARBAGE)
def test_state_that_optuna_did_not_write_is_rejected(damage: str) -> None:
    stored = GARBAGE[damage](pickle.dumps(optimizers()[0]))
    with pytest.raises(UserError, match=r"that Optuna did not write: it .*; nothing of it was run; choose"):
        restored(stored)


def test_state_with_a_missing_part_is_rejected() -> None:
    trial = trial_with(pickle.dumps(optimizers()[0]))
    del trial.system_attrs["cma:optimizer:0"]
    cmaes_state.read_as_data()
    with pytest.raises(UserError, match="did not write"):
        CmaEsSampler()._restore_optimizer([trial])
