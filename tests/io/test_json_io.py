"""JSON files are complete, and a series is one line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqn_runner.io.json_io import read_json, write_json

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@settings(max_examples=30)
@given(document=DOCUMENTS)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, document)
    assert read_json(path) == document


def test_a_series_is_one_line_and_each_setting_has_its_own(tmp_path: Path) -> None:
    document = {
        "steps": list(range(1000)),
        "best": {"mean": math.nan, 3: [[1, 2], [3]]},
        "all": [{"a": 1}, {}],
    }
    write_json(tmp_path / "a.json", document)
    lines = (tmp_path / "a.json").read_text().splitlines()
    assert lines[1] == f' "steps": {json.dumps(list(range(1000)))},'
    assert lines[2:6] == [' "best": {', '  "mean": null,', '  "3": [[1, 2], [3]]', " },"]
    assert lines[6:] == [' "all": [', "  {", '   "a": 1', "  },", "  {}", " ]", "}"]
