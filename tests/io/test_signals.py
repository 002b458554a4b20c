"""Exceptions of user code that are not errors become errors, unless a signal raised them."""

from __future__ import annotations

import os
import signal

import pytest

from dqn_runner.io.signals import SignalExit, StopSignals, UnexpectedExit, as_error, exits_as_errors


@pytest.mark.parametrize("raised", [SystemExit(0), KeyboardInterrupt(), GeneratorExit()])
def test_exits_of_user_code_are_errors(raised: BaseException) -> None:
    with StopSignals(), pytest.raises(UnexpectedExit, match=type(raised).__name__), exits_as_errors():
        raise raised


def test_errors_stay_what_they_are() -> None:
    error = ValueError("x")
    assert as_error(error) is error
    with pytest.raises(ValueError, match="x"), exits_as_errors():
        raise error


def test_exits_for_a_signal_end_the_program() -> None:
    with pytest.raises(SignalExit), exits_as_errors():
        raise SignalExit(143)
    with pytest.raises(KeyboardInterrupt), exits_as_errors():
        raise KeyboardInterrupt
    with StopSignals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), exits_as_errors():
            os.kill(os.getpid(), signal.SIGINT)
