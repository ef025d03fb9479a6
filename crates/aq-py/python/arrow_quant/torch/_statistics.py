"""Calibration statistics on disk, as `aq calibrate` makes them of samples."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import _native
from ._moments import Moments
from ._reservoir import Reservoir


class Layer(NamedTuple):
    """A layer's name, what was summed over its rows, the rows that are kept, and its buckets that are written."""

    name: str
    moments: Moments
    kept: Reservoir
    buckets: list[int]


def write_statistics(path: Path, layers: Iterable[Layer], times: np.ndarray, time: str, aliases: Mapping[str, str]) -> int:
    """Writes a file of statistics, one layer at a time, and gives its bytes. It is moved to its place when it is whole."""
    writer = _native.StatisticsWriter(str(path))
    for layer in layers:
        moments, filled = layer.moments, layer.kept.filled()
        buckets = []
        for at, t in zip(layer.buckets, times, strict=True):
            kept = np.ascontiguousarray(layer.kept.data[at, : filled[at]]).ravel()
            ends = (float(moments.low[at]), float(moments.high[at])) if moments.seen[at] else (0.0, 0.0)
            channels = (moments.absmax[at], moments.mean_square(at))
            buckets.append((float(t), int(moments.seen[at]), *ends, *channels, kept))
        writer.write(layer.name, buckets, moments.rows, np.asarray(moments.hessian))
    return writer.finish(time, dict(aliases))
