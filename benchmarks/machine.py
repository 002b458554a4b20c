"""The machine that a benchmark runs on."""

from __future__ import annotations

import os
from typing import Any

import psutil

from dqn_runner.core import processor


def machine() -> dict[str, Any]:
    vectors = [
        name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in processor.features()
    ]
    return {"cpu": processor.model(), "features": " ".join(vectors), "cores": os.cpu_count()}


def cpu_seconds() -> float:
    """CPU time that all processes have used since the start of the machine."""
    times = psutil.cpu_times()._asdict()
    return sum(times[name] for name in ("user", "system", "nice", "irq", "softirq") if name in times)
