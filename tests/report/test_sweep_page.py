"""The report of a sweep is made of its study: the result first, and every trial with its state and reason."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from dqn_runner.core.exceptions import UserError
from dqn_runner.report.__main__ import main
from dqn_runner.report.sweep_charts import apart
from dqn_runner.report.sweep_page import sweep_page
from dqn_runner.sweep.config import Session
from dqn_runner.sweep.names import JOURNAL
from dqn_runner.sweep.results.stored_sweep import importances, savings, stored_sweep
from dqn_runner.sweep.storages.factory import open_storage
from dqn_runner.sweep.study import read_study
from dqn_runner.sweep.trial_record import (
    RunOutcome,
    RunState,
    store_definition,
    store_pruner,
    store_session,
    store_validation,
)
from tests.support.stored_runs import HOSTILE, charts_of, tags_of, text_of

RATE, KIND = "agent.learning_rate", "agent.kind"
SPACE: dict[str, BaseDistribution] = {
    RATE: FloatDistribution(1e-5, 1e-2, log=True),
    KIND: CategoricalDistribution(["[16,16]", "[64,64]"]),
}


def a_study(
    storage: Path | None = None, objectives: tuple[str, ...] = ("return",), validate: int = 2
) -> Study:
    directions = ["maximize", *["minimize"] * (len(objectives) - 1)]
    backend = open_storage(str(storage)) if storage else None
    study = optuna.create_study(storage=backend, study_name="tuned", directions=directions)
    definition = {
        "parameters": {},
        "overrides": ["agent=c51", "seed=7"],
        "seed": 7,
        "seeds": 1,
        "aggregate": "mean",
        "objective": list(objectives),
        "direction": directions,
    }
    store_definition(study, definition)
    store_pruner(
        study,
        {"_target_": "optuna.pruners.MedianPruner"}
        if len(objectives) == 1
        else {"_target_": "optuna.pruners.NopPruner"},
    )
    session: Session = {
        "n_trials": 9,
        "validate": validate if len(objectives) == 1 else 0,
        "constraints": {},
        "flags": ["--config-name=config"],
        "search_path": [],
    }
    store_session(study, session)
    return study


def add(
    study: Study,
    values: list[float] | None,
    state: RunState = RunState.FINISHED,
    rate: float = 1e-3,
    kind: str = "[16,16]",
    reason: str = "",
    reports: list[float] = [],  # noqa: B006
    steps: float = 1000.0,
) -> None:
    number = len(study.trials)
    metrics = (
        {} if state is RunState.FAILED else {"env_steps": steps, "seconds": 2.0, "return": (values or [0])[0]}
    )
    run = RunOutcome(state, reason, 7, metrics, f"/sweep/{number}")
    attributes = {
        "overrides": [f"{RATE}={rate}", f"{KIND}={kind}"],
        "directory": f"/sweep/{number}",
        "metrics": metrics,
        "run_0": run.to_json(),
    }
    name = {RunState.PRUNED: "pruned", RunState.DIVERGED: "diverged", RunState.FAILED: "error"}.get(state)
    if name:
        attributes[name] = reason
    trial = create_trial(
        state=state.trial_state,
        values=values,
        params={RATE: rate, KIND: kind},
        distributions=SPACE,
        user_attrs=attributes,
        intermediate_values=dict(enumerate(reports, start=1)),
    )
    study.add_trial(trial)


def validated(study: Study, number: int, *values: float) -> None:
    for index, value in enumerate(values, start=1):
        outcome = RunOutcome(RunState.FINISHED, "", 7 + index, {"return": value}, "/sweep/v")
        store_validation(study, number, index, outcome)


def filled() -> Study:
    study = a_study()
    add(study, [100.0], rate=1e-4, reports=[10.0, 100.0])
    add(study, [300.0], rate=1e-3, kind="[64,64]", reports=[50.0, 300.0])
    add(study, [40.0], RunState.PRUNED, reason="pruned after evaluation 1", reports=[40.0], steps=250.0)
    add(study, None, RunState.FAILED, reason="ValueError in /sweep/3: no sensor")
    add(study, None, RunState.FAILED, reason="ValueError in /sweep/4: no sensor")
    validated(study, 1, 200.0, 240.0)
    return study


def page_of(study: Study, tmp_path: Path) -> str:
    return sweep_page(study, tmp_path, live=True)


def test_the_validated_result_is_beside_the_flattered_best_and_first(tmp_path: Path) -> None:
    text = text_of(page_of(filled(), tmp_path))
    first = text.index(
        "RESULT: trial 1 on fresh seeds 220 95 % interval 200 to 240 · mean over the seeds 8, 9"
    )
    assert first < text.index("best of the sweep: trial 1 300 mean over the seeds 7, which selected it")
    assert "5 of 9 trials finished" not in text
    assert "trials finished 5 of 9" in text


def test_a_sweep_without_validation_says_how_to_validate(tmp_path: Path) -> None:
    study = a_study(validate=0)
    add(study, [1.0])
    assert "not validated: hydra.sweeper.validate=5 runs" in text_of(page_of(study, tmp_path))


def test_a_sweep_that_has_just_started_has_a_page(tmp_path: Path) -> None:
    text = text_of(page_of(a_study(), tmp_path))
    assert "no trial has completed" in text
    assert "trials finished 0 of 9" in text


def test_each_trial_has_its_state_values_reason_and_command(tmp_path: Path) -> None:
    page = page_of(filled(), tmp_path)
    rows = re.findall(r"<tr data-text=.*?</tr>", page, re.DOTALL)
    assert len(rows) == 5
    assert text_of(rows[1]).startswith("1 complete 300 0.001 [64,64] 1,000 2.0 s show")
    assert "python -m dqn_runner agent=c51 agent.learning_rate=0.001 'agent.kind=[64,64]' seed=7" in text_of(
        rows[1]
    )
    assert "pruned after evaluation 1" in text_of(rows[2])
    assert "polyline" in rows[1]
    assert "polyline" not in rows[2]  # a single evaluation is no curve


def test_failures_are_grouped_by_reason(tmp_path: Path) -> None:
    assert "2 ValueError in …: no sensor (trial 3, 4)" in text_of(page_of(filled(), tmp_path))


def test_savings_compare_pruned_trials_with_completed_ones() -> None:
    found = savings(stored_sweep(filled()))
    assert found is not None
    assert (found.trials, found.env_steps) == (1, 750.0)
    assert found.share == pytest.approx(750 / 3000)


def test_history_has_the_best_so_far_and_slices_have_every_trial(tmp_path: Path) -> None:
    study = filled()
    add(study, [200.0], rate=1e-3)
    charts = charts_of(page_of(study, tmp_path))
    lines = {line["label"]: [y for y in line["y"] if y is not None] for line in charts["history"]["lines"]}
    assert lines == {"best so far": [100, 300, 300], "complete": [100, 300, 200], "pruned, last report": [40]}
    assert sorted(charts["slice0"]["lines"][0]["y"] + charts["slice1"]["lines"][0]["y"]) == [
        100,
        100,
        200,
        200,
        300,
        300,
    ]
    assert charts["parallel"]["xNames"] == [
        "learning_rate\n1e-05 to 0.01",
        "kind\n[16,16] to [64,64]",
        "return\n100 to 300",
    ]
    assert charts["parallel"]["lines"][-1]["y"] == [0.666667, 1, 1]


def test_equal_values_are_moved_apart_but_stay_in_order() -> None:
    for options in ({}, {"log": True}, {"names": True}):
        x = apart(np.array([1.0, 1.0, 1.0, 2.0, 3.0, 3.0]), **options)
        assert (x[1:] > x[:-1]).all()


def test_importance_finds_the_parameter_that_matters() -> None:
    study = a_study()
    for i in range(30):
        kind = ("[16,16]", "[64,64]")[i % 2]
        add(study, [1000.0 * (i % 2) + i / 100], rate=10 ** (-5 + 3 * ((7 * i) % 30) / 30), kind=kind)
    found = importances(stored_sweep(study))
    assert found[KIND] > 0.5
    assert importances(stored_sweep(a_study())) == {}


def test_several_objectives_have_a_pareto_front_instead_of_a_result(tmp_path: Path) -> None:
    study = a_study(objectives=("return", "parameters"))
    for values in ([10.0, 5.0], [20.0, 9.0], [15.0, 9.0], [5.0, 9.0]):
        add(study, values)
    page = page_of(study, tmp_path)
    assert "trials on the Pareto front 2" in text_of(page)
    lines = {
        line["label"]: [y for y in line["y"] if y is not None] for line in charts_of(page)["pareto1"]["lines"]
    }
    assert lines == {"dominated": [15, 5], "Pareto front": [10, 20]}


def test_hostile_texts_of_a_study_do_not_run(tmp_path: Path) -> None:
    study = a_study()
    add(study, [1.0], kind="[16,16]", reason=HOSTILE)
    add(study, None, RunState.FAILED, reason=HOSTILE)
    page = page_of(study, tmp_path)
    assert [tag for tag, _ in tags_of(page) if tag in ("script", "img")] == ["script", "script"]
    assert not [attrs for _, attrs in tags_of(page) if any(name.startswith("on") for name in attrs)]


def test_the_command_reads_a_journal_and_writes_nothing_but_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(a_study(tmp_path / JOURNAL), [5.0])
    before = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).chmod(0o400)
    main([str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert "Sweep tuned" in text_of((tmp_path / "report.html").read_text())
    assert (tmp_path / JOURNAL).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {JOURNAL, "report.html"}


def test_a_damaged_journal_is_one_line(tmp_path: Path) -> None:
    add(a_study(tmp_path / JOURNAL), [5.0])
    content = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(content.replace(b"5.0", b"9.0"))
    with pytest.raises(UserError, match="is damaged"):
        read_study(tmp_path)
    (tmp_path / JOURNAL).write_bytes(b"no journal\n")
    with pytest.raises(UserError, match=r"is damaged|is not the journal"):
        read_study(tmp_path)
    (tmp_path / JOURNAL).unlink()
    with pytest.raises(UserError, match="its study is in a database or in another journal"):
        read_study(tmp_path)


def test_a_journal_with_several_studies_has_the_report_of_the_one_with_trials(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / JOURNAL))
    for name in ("empty", "full", "full too"):
        optuna.create_study(storage=storage, study_name=name)
    optuna.load_study(storage=storage, study_name="full").ask()
    assert read_study(tmp_path).study_name == "full"
    optuna.load_study(storage=storage, study_name="full too").ask()
    with pytest.raises(UserError, match="several studies with trials: full, full too; "):
        read_study(tmp_path)


def test_a_study_of_an_earlier_version_asks_for_its_command() -> None:
    with pytest.raises(UserError, match="repeat the command of the sweep"):
        stored_sweep(optuna.create_study())


def test_states_of_trials_that_run_are_shown(tmp_path: Path) -> None:
    study = filled()
    study.ask()
    assert study.trials[-1].state is TrialState.RUNNING
    assert "1 running" in text_of(page_of(study, tmp_path))
