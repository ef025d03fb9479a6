"""Quantization of layer inputs: what the key-value `aq.activations` of a file says."""
from __future__ import annotations

import base64
import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import ConfigError, InputError
from ._time import current_time

SCHEMA = "aq.activations/1"


@dataclass(frozen=True)
class Grid:
    """Codes of a block of inputs: `value ~= (code - zero) * scale`, scale and zero broadcast over the codes."""

    codes: Tensor
    scale: Tensor
    zero: Tensor

    def values(self) -> Tensor:
        return (self.codes - self.zero) * self.scale


@dataclass(frozen=True)
class Activations:
    """How the inputs of one layer are quantized: with ranges of each token, or with stored ones of each group of times.

        x' = x - shift       low' = min(low, 0)   high' = max(high, 0)   scale = (high' - low') / (2^bits - 1)
        zero = clamp(round(-low' / scale))        code = clamp(round(x' / scale) + zero)
    """

    bits: int
    mode: str
    group_size: int = 0
    boundaries: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    clip: list[float] = field(default_factory=list)
    #: What is taken off each channel, f32: one vector for all groups, or one for each; none for nothing.
    shift: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        groups = len(self.boundaries) + 1
        stored = 0 if self.mode == "token" else groups
        good = self.mode in ("token", "static", "groups") and 2 <= self.bits <= 8
        if not good or len(self.low) != stored or len(self.high) != stored or len(self.clip) not in (0, groups) \
                or len(self.shift) not in (0, 1, groups) or len({vector.shape for vector in self.shift}) > 1:
            raise InputError(f"aq.activations: a layer of mode {self.mode!r} does not have what that needs")

    def group(self) -> int:
        """The group of the time that is set now."""
        if not self.boundaries:
            return 0
        time = current_time()
        if time is None:
            raise ConfigError("ranges differ by time, and none is set: use arrow_quant.torch.timestep(t)")
        return bisect_right(self.boundaries, time)

    def shift_now(self) -> tuple[int, Tensor] | None:
        """What is taken off each channel at the time that is set, with its number; None for nothing."""
        if not self.shift:
            return None
        number = self.group() if len(self.shift) > 1 else 0
        return number, self.shift[number]

    def quantize(self, x: Tensor) -> Grid:
        """Codes of shifted f32 inputs `[tokens, channels]`, or `[tokens, groups, channels]` where groups of channels have ranges."""
        low, high = self._range(x)
        low, high = low.clamp(max=0.0), high.clamp(min=0.0)
        top = float(2**self.bits - 1)
        scale = (high - low) / top
        safe = torch.where(scale > 0, scale, torch.ones_like(scale))
        zero = torch.round(-low / safe).clamp(0, top)
        codes = (torch.round(x / safe) + zero).clamp(0, top)
        return Grid(codes, scale, zero)

    def _range(self, x: Tensor) -> tuple[Tensor, Tensor]:
        group = self.group()
        if self.mode != "token":
            return x.new_tensor(self.low[group]), x.new_tensor(self.high[group])
        low, high = torch.aminmax(x, dim=-1, keepdim=True)
        clip = self.clip[group] if self.clip else 1.0
        return low.clamp(max=0.0) * clip, high.clamp(min=0.0) * clip

    def is_shared(self) -> bool:
        """Whether a token has one range, as products of integers need it."""
        return self.mode != "token" or self.group_size == 0

    def fake(self, x: Tensor) -> Tensor:
        """Inputs `[tokens, channels]` as they come back from their codes, computed in f32."""
        rows, shift = x.to(torch.float32), self.shift_now()
        if shift is None:
            return self._rounded(rows).to(x.dtype)
        center = shift[1].to(x.device)
        return (self._rounded(rows - center) + center).to(x.dtype)

    def _rounded(self, rows: Tensor) -> Tensor:
        if self.is_shared():
            return self.quantize(rows).values()
        tokens, channels = rows.shape
        whole = channels - channels % self.group_size
        grouped = rows[:, :whole].reshape(tokens, -1, self.group_size)
        parts = [self.quantize(grouped).values().reshape(tokens, whole)]
        if whole < channels:
            parts.append(self.quantize(rows[:, whole:]).values())
        return torch.cat(parts, dim=-1)


def read_activations(metadata: Mapping[str, str]) -> dict[str, Activations]:
    """The layers of a file whose inputs are quantized, by the name of the weight without `.weight`."""
    text = metadata.get("aq.activations")
    return {} if text is None else parse_activations(json.loads(text))


def parse_activations(stored: Any) -> dict[str, Activations]:
    """The same of the value of that key."""
    names = ("bits", "mode", "group_size", "boundaries", "low", "high", "clip")
    try:
        if stored.get("schema") != SCHEMA:
            raise InputError(f"aq.activations: schema {stored.get('schema')!r} is not {SCHEMA}")
        return {
            layer: Activations(**{name: plan[name] for name in names if name in plan}, shift=_shifts(plan.get("shift", [])))
            for layer, plan in stored["layers"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"aq.activations: {error}") from None


def _shifts(stored: Any) -> list[Tensor]:
    """Vectors from their stored form: a scale, and signed bytes in base64."""
    found = []
    for shift in stored:
        codes = np.frombuffer(base64.b64decode(shift["codes"], validate=True), np.int8)
        found.append(torch.from_numpy(codes.astype(np.float32) * np.float32(shift["scale"])))
    return found
