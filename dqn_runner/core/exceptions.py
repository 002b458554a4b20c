"""Exceptions whose message the program prints as one line, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can correct; the message says what was wrong and what to do."""


class DamagedError(UserError):
    """A stored file is not what was written; an older file may be usable."""


class NoRoomError(UserError):
    """The disk is too full for what a run must store; after freeing space, the same command continues."""


class DirectoryLostError(UserError):
    """The run directory was renamed or removed while the run was writing it."""


class JobLostError(Exception):
    """A launcher lost a job or could not start it; the message is that of the launcher."""


class DivergedError(Exception):
    """Learning produced infinite or NaN values; the message is a diagnosis."""


class PrunedError(Exception):
    """The pruner of a sweep stopped the run, which ended cleanly; the message says at which step and why."""


class CallbackError(Exception):
    """A callback raised an exception; the message names the callback, and the cause is that exception."""


class LoggerError(Exception):
    """A logger raised an exception; the message names the logger, and the cause is that exception."""


class RunFailedError(Exception):
    """The environment or the learner raised an exception; the traceback is in the log of the run."""
