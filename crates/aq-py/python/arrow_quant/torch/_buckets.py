"""Times that are counted together."""
from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ConfigError

#: The times that a model has by default, by the kind of time.
DEFAULT_SPAN = {"t": (0.0, 1000.0), "mask_ratio": (0.0, 1.0)}
DEFAULT_BUCKETS = 10


class Buckets:
    """Which times count together."""

    def __init__(self, time: str, timesteps: Any) -> None:
        if time not in ("t", "sigma", "mask_ratio"):
            raise ConfigError(f"time {time!r} is not t, sigma or mask_ratio")
        self.times: np.ndarray | None = None
        if timesteps is None or isinstance(timesteps, int):
            if time not in DEFAULT_SPAN:
                raise ConfigError("sigmas have no usual span: give timesteps=(low, high, number) or a list")
            timesteps = (*DEFAULT_SPAN[time], DEFAULT_BUCKETS if timesteps is None else timesteps)
        elif not isinstance(timesteps, tuple):
            self.times = np.sort(np.asarray(timesteps, np.float64))
            timesteps = (self.times[0], self.times[-1], len(self.times))
        self.low, self.high, self.count = float(timesteps[0]), float(timesteps[1]), int(timesteps[2])
        if self.count < 1 or self.high < self.low:
            raise ConfigError(f"timesteps {timesteps!r} are no buckets")
        self.sum, self.passes, self.outside = np.zeros(self.count), np.zeros(self.count, np.int64), 0

    def of(self, t: float) -> int:
        """The bucket of a time; the first or last one for a time outside of the span."""
        if self.times is not None:
            return int(np.abs(self.times - t).argmin())
        self.outside += not self.low <= t <= self.high
        share = (t - self.low) / ((self.high - self.low) or 1.0)
        return int(np.clip(share * self.count, 0, self.count - 1))

    def count_pass(self, t: float) -> int:
        bucket = self.of(t)
        self.sum[bucket] += t
        self.passes[bucket] += 1
        return bucket
