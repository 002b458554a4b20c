"""What the operating system says about the processor."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path


def model() -> str:
    """Its name, for people."""
    return _field("model name") or platform.processor()


def features() -> frozenset[str]:
    """Names of its instruction sets, as Linux writes them; none on other systems."""
    return frozenset((_field("flags") or _field("Features")).split())


@cache
def _field(name: str) -> str:
    """The first value of `name` in /proc/cpuinfo; empty if there is none."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return ""
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
