"""Records that grow: what is read of them again is equal to a fresh look at the whole file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dqn_runner.core.exceptions import DamagedError
from dqn_runner.report import records
from dqn_runner.report.history import Histories, read_history
from dqn_runner.report.records import MARK, Records
from tests.support.stored_runs import store_run

EPISODES = st.fixed_dictionaries(
    {"kind": st.just("episode"), "step": st.integers(0, 9)},
    optional={"train/return": st.integers(0, 3), "my/metric": st.integers(0, 3)},
)
EVALUATIONS = st.fixed_dictionaries({"kind": st.just("eval"), "step": st.integers(0, 9)})
LINES = st.lists(EPISODES | EVALUATIONS, max_size=4)
CHANGES = st.tuples(st.sampled_from(["add", "tear", "shorten", "replace"]), LINES, st.integers(0, 300))


def encoded(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def as_lists(tables: Any) -> dict[str, dict[str, list[Any]]]:
    return {k: {n: np.nan_to_num(c, nan=-1).tolist() for n, c in t.items()} for k, t in tables.items()}


def change(content: bytes, what: str, lines: list[dict[str, Any]], number: int) -> bytes:
    """The next content of a file: a process adds to it, is killed while it writes, or resumes earlier."""
    if what == "replace":
        return encoded(lines)
    if what == "shorten":
        kept = content[: max(0, len(content) - number)]
        return kept[: kept.rfind(b"\n") + 1] + encoded(lines)
    whole = content[: content.rfind(b"\n") + 1] + encoded(lines)
    return whole[: len(whole) - 5] if what == "tear" else whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CHANGES, max_size=8))
def test_records_read_in_parts_are_those_of_the_whole_file(tmp_path: Path, changes: Any) -> None:
    path, content = tmp_path / "metrics.jsonl", b""
    path.write_bytes(content)
    found = Records(path)
    for what, lines, number in changes:
        content = change(content, what, lines, number)
        path.write_bytes(content)
        assert as_lists(found.tables()) == as_lists(Records(path).tables())


def test_only_new_lines_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    decode = records._tables  # pyright: ignore[reportPrivateUsage]

    def counted(content: bytes) -> Any:
        sizes.append(content.count(b"\n"))
        return decode(content)

    monkeypatch.setattr(records, "_tables", counted)
    path = tmp_path / "metrics.jsonl"
    lines = [{"kind": "episode", "step": step, "train/return": 1.0} for step in range(MARK)]
    path.write_bytes(encoded(lines))
    found = Records(path)
    found.tables()
    found.tables()
    with path.open("ab") as file:
        file.write(encoded(lines[:2]) + b'{"kind"')
    assert len(found.tables()["episode"]["step"]) == MARK + 2
    assert sizes == [MARK, 2]


def test_a_damaged_line_is_reported_until_it_is_gone(tmp_path: Path) -> None:
    path, line = tmp_path / "metrics.jsonl", {"kind": "episode", "step": 1}
    path.write_bytes(encoded([line]))
    found = Records(path)
    found.tables()
    path.write_bytes(encoded([line]) + b"nonsense\n")
    for _ in range(2):
        with pytest.raises(DamagedError, match="damaged"):
            found.tables()
    path.write_bytes(encoded([line, line]))
    assert found.tables()["episode"]["step"].tolist() == [1, 1]


def test_histories_of_the_last_runs_follow_their_files(tmp_path: Path) -> None:
    runs = [store_run(tmp_path / str(number), [1.0 * number, 2.0]) for number in range(3)]
    histories = Histories(most=2)
    for run in [*runs, *runs]:
        assert as_lists(histories.read(run).tables) == as_lists(read_history(run).tables)
        assert histories.read(run).finished == read_history(run).finished
    report = runs[2] / "metrics.json"  # which is among the last two
    document = json.loads(report.read_text())
    report.write_text(json.dumps({**document, "finished": "at last"}))
    assert histories.read(runs[2]).finished == "at last"
    report.unlink()
    assert histories.read(runs[2]).finished is None
