"""Names of checkpoints and of their directory."""

from __future__ import annotations

import re

CHECKPOINTS = "checkpoints"
"""The directory of checkpoints in that of a run."""
LATEST = "latest.pt"
BEST = "best.pt"

NUMBERED = re.compile(r"checkpoint_([0-9]{1,20})\.pt")
"""A regular checkpoint; the group is its env step."""
STEP_IN_NAME = re.compile(r"(?:superseded_)?(?:checkpoint|best)_([0-9]{1,20})\.pt")
"""Any checkpoint whose name contains its env step, the group."""


def numbered_name(step: int) -> str:
    """File name of the regular checkpoint of env step `step`; names sort by step."""
    return f"checkpoint_{step:010d}.pt"


def best_name(step: int) -> str:
    """File name under which a replaced best.pt, of env step `step`, is kept."""
    return f"best_{step:010d}.pt"
