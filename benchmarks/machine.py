"""The machine that a benchmark runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import psutil


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    vectors = [name for name in ("avx2", "avx512f", "amx_bf16") if name in flags]
    cpu = models[0] if models else platform.processor()
    return {"cpu": cpu, "features": " ".join(vectors), "cores": os.cpu_count()}


def cpu_seconds() -> float:
    """CPU time that all processes have used since the start of the machine."""
    times = psutil.cpu_times()._asdict()
    return sum(times[name] for name in ("user", "system", "nice", "irq", "softirq") if name in times)
