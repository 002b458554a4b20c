"""The logger of the package."""

from __future__ import annotations

import logging

log = logging.getLogger("dqn_runner")
"""Messages of the run; the console and the file logger show them."""
