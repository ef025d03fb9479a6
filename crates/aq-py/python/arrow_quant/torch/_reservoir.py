"""A bounded, even sample of the rows that a layer sees, for each bucket of times."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

#: The largest finite float16.
MOST = 65504.0


class Reservoir:
    """Up to `rows` rows of each bucket, every row that was seen with the same chance to be among them, in a memory-mapped file.

    Vitter, "Random sampling with a reservoir", 1985: row number `n` replaces a random one with probability `rows / n`.
    """

    def __init__(self, file: Path, buckets: int, rows: int, cols: int) -> None:
        self.rows = rows
        self.data = np.memmap(file, np.float16, "w+", shape=(buckets, rows, cols))
        self.seen = np.zeros(buckets, np.int64)
        self.low, self.high = np.full(buckets, np.inf), np.full(buckets, -np.inf)
        self.clipped, self.not_finite = 0, 0

    def choose(self, bucket: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which of `count` new rows enter, and in which places; later ones replace earlier ones."""
        first = int(self.seen[bucket])
        number = torch.arange(first, first + count)
        place = (torch.rand(count, generator=generator, dtype=torch.float64) * (number + 1)).long()
        place = torch.where(number < self.rows, number, place)
        self.seen[bucket] += count
        enters = (place < self.rows).nonzero().flatten()
        return enters, place[enters]

    def put(self, bucket: int, places: Tensor, values: Tensor) -> None:
        """Stores finite rows."""
        values = values.detach().to("cpu", torch.float32)
        self.clipped += int((values.abs() > MOST).sum())
        rows = values.clamp(-MOST, MOST).to(torch.float16).numpy()
        for place, row in zip(places.tolist(), rows, strict=True):
            self.data[bucket, place] = row

    def measure(self, bucket: int, x: Tensor) -> bool:
        """Widens the range of a bucket by the finite values of an input; says whether all of them are finite."""
        low, high = torch.aminmax(x.detach())
        is_finite = bool(torch.isfinite(high - low))
        if not is_finite:
            finite = x.detach()[x.detach().isfinite()]
            if finite.numel() == 0:
                return False
            low, high = torch.aminmax(finite)
        self.low[bucket] = min(self.low[bucket], float(low))
        self.high[bucket] = max(self.high[bucket], float(high))
        return is_finite

    def filled(self) -> np.ndarray:
        """Rows that each bucket has."""
        return np.minimum(self.seen, self.rows)
