"""Fewer points of a long series, that draw the same curve."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def thin(values: Values, limit: int) -> NDArray[np.intp]:
    """Indices of at most `limit` of the `values` [n] that preserve the curve: its ends and local extremes.

    NaN is ignored where a part of the series has numbers.
    """
    count = len(values)
    if count <= limit:
        return np.arange(count)
    edges = np.linspace(0, count, limit // 2).astype(np.intp)
    low = np.where(np.isnan(values), np.inf, values)
    high = np.where(np.isnan(values), -np.inf, values)
    kept = [0, count - 1]
    for start, end in itertools.pairwise(edges):
        kept += [start + low[start:end].argmin(), start + high[start:end].argmax()]
    return np.unique(kept)
