"""Exceptions that the program explains in one line."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right; the message says what was wrong and what to do."""


class DamagedError(UserError):
    """A stored file is not what was written; an older one may do."""


class NoRoomError(UserError):
    """The disk does not take what a run has to keep; once there is room, the same command goes on."""


class DivergedError(Exception):
    """Learning gave infinite or undefined numbers; the message is a diagnosis."""


class PrunedError(Exception):
    """A sweep stopped the run, which ended in good order; the message says where and by what."""


class RunFailedError(Exception):
    """The environment or the learner raised; the traceback is in the run's log."""
