"""The logger of the package."""

from __future__ import annotations

import logging

from dqn_runner.core.secrets import redact


def _without_secrets(record: logging.LogRecord) -> bool:
    """Redact the message and the traceback of a record, before any handler formats it."""
    record.msg, record.args = redact(record.getMessage()), None
    if record.exc_info:
        record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
    return True


log = logging.getLogger("dqn_runner")
"""Messages of the run; the console and the file logger show them."""
log.addFilter(_without_secrets)
