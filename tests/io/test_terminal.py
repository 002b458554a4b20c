"""Texts on a terminal."""

from __future__ import annotations

import pytest

from dqn_runner.io.terminal import number, precise


@pytest.mark.parametrize(
    ("value", "column", "exact"),
    [
        (12_345.67, "12,345.7", "12345.67"),
        (-103.25, "-103.2", "-103.25"),
        (10.0, "10.0", "10.00"),
        (7.9685, "7.97", "7.97"),
        (0.7412, "0.741", "0.741"),
        (0.01066, "0.0107", "0.0107"),
        (-0.0002, "-0.0002", "-0.0002"),
        (0.0, "0.0", "0.00"),
    ],
)
def test_small_returns_keep_their_digits(value: float, column: str, exact: str) -> None:
    assert (number(value), precise(value)) == (column, exact)


def test_a_return_that_is_not_known_is_empty() -> None:
    assert number(None) == ""
