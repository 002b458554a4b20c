"""Exit codes of the program."""

from __future__ import annotations

FAILED = 1
"""The environment or the learner raised an exception."""
USAGE_ERROR = 2
"""The command or the configuration is invalid; nothing was run."""
DIVERGED = 3
"""Learning diverged."""
PRUNED = 4
"""The pruner of a sweep stopped the run."""
DISK_FULL = 5
"""What the program must store has no place: the disk is full, or the run directory is gone."""
LOST = 6
"""The launcher of a sweep lost the job or could not start it; the sweep starts the job again."""
SIGNAL_BASE = 128
"""A run stopped by signal n exits with 128 + n: 130 after Ctrl-C, 143 after SIGTERM."""
