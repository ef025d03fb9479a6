"""Sums over all rows that a layer sees: channel by channel for each bucket of times, and the Hessian."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import _native
from ._reservoir import MOST

#: Values of rows that are worked on at a time.
PIECE = 1 << 22


class Moments:
    """`sum(x^T x)` of all rows in a memory-mapped file, in float64 and in blocks of columns, and `max |x|` and `sum(x^2)` by bucket.

    Rows count as float16 holds them, as those of a samples file do. Products are summed in float32 within a piece of rows.
    """

    def __init__(self, file: Path, buckets: int, cols: int) -> None:
        self.cols, self.block, self.rows = cols, _native.hessian_block(cols), 0
        sizes = [min(self.block, cols - first) for first in range(0, cols, self.block)]
        self.hessian = np.memmap(file, np.float64, "w+", shape=(sum(size * size for size in sizes),))
        self.seen = np.zeros(buckets, np.int64)
        self.absmax = np.zeros((buckets, cols), np.float32)
        self.squares = np.zeros((buckets, cols))
        self.low, self.high = np.full(buckets, np.inf), np.full(buckets, -np.inf)

    def add(self, bucket: int, rows: Tensor) -> None:
        """Counts finite rows `[n, cols]`."""
        if len(rows) == 0:
            return
        x = rows.detach().to(torch.float32).clamp(-MOST, MOST).half().float()
        low, high = torch.aminmax(x)
        self.low[bucket] = min(self.low[bucket], float(low))
        self.high[bucket] = max(self.high[bucket], float(high))
        np.maximum(self.absmax[bucket], x.abs().amax(0).cpu().numpy(), out=self.absmax[bucket])
        self.squares[bucket] += x.square().sum(0, dtype=torch.float64).cpu().numpy()
        self.seen[bucket] += len(x)
        self.rows += len(x)
        self._add_products(x)

    def _add_products(self, x: Tensor) -> None:
        at = 0
        for first in range(0, self.cols, self.block):
            part = x[:, first : first + self.block]
            size = part.shape[1]
            products = (part.T @ part).cpu().numpy()
            self.hessian[at : at + size * size] += products.ravel()
            at += size * size

    def mean_square(self, bucket: int) -> np.ndarray:
        mean: np.ndarray = (self.squares[bucket] / max(int(self.seen[bucket]), 1)).astype(np.float32)
        return mean
