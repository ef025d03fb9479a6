"""Calibration: what the layers of a model see while it samples."""
from __future__ import annotations

import json
import os
import re
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .._errors import AqWarning, ConfigError
from ._buckets import Buckets
from ._layers import windows
from ._moments import PIECE, Moments
from ._reservoir import Reservoir
from ._samples import Layer, write_samples
from ._statistics import Layer as Summed, write_statistics
from ._time import TimeHooks, TimeOf, current_time


@dataclass
class CalibrationReport:
    """What `calibrate` wrote."""

    path: str
    bytes: int
    #: Time of each bucket: the mean of the times seen in it.
    timesteps: list[float]
    #: Rows stored of each bucket, by layer.
    rows: dict[str, int] = field(default_factory=dict)
    #: Layers that share the input of another one, by name.
    aliases: dict[str, str] = field(default_factory=dict)
    #: `min`, `max` and `absmax` of all inputs of each bucket, by layer.
    ranges: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    #: Layers left out and other things to know, with the reason.
    notes: dict[str, str] = field(default_factory=dict)


def calibrate(
    model: nn.Module,
    run: Callable[[nn.Module], Any],
    *,
    out: str | os.PathLike[str],
    layers: str | Iterable[str] | Callable[[str, nn.Module], bool] | None = None,
    timesteps: int | tuple[float, float, int] | Sequence[float] | None = None,
    rows: int = 64,
    time: str = "t",
    time_of: TimeOf | None = None,
    seed: int = 0,
) -> CalibrationReport:
    """Runs a sampler and stores what every linear layer and convolution of `model` saw, in a file that `calibration=` takes.

    An `out` that ends in `.parquet` becomes statistics: sums over all rows, the Hessian among them, with some rows; every other one a
    file of samples (safetensors), which holds rows only. Statistics know every row, take a product of each layer's inputs with
    themselves, and their size does not depend on `rows` but for those that are kept.

    `run(model)` does the sampling, without gradients. The time of a forward pass is that of `timestep(t)` around it, else
    `time_of(args, kwargs)` of the model's forward, else its argument named timestep, t or sigma.

    `timesteps` are the buckets: a number of them (10 by default) over the whole span of times (0 to 1000 for `time="t"`, 0 to 1
    for `"mask_ratio"`; `"sigma"` has none), `(low, high, number)`, or a list of times, each pass then counting for the nearest.
    `layers` are names, a regular expression, or a function of name and module. Of each layer and bucket `rows` random
    rows are kept, drawn with `seed`; of convolutions unfolded ones, `channels * kernel` values each. Layers whose input is the very
    same tensor are stored once.

    Memory does not grow with the model or the number of steps: rows and Hessians wait in mapped files beside `out`.

        report = calibrate(unet, lambda m: sample(m, steps=20), out="calib.safetensors", timesteps=(0, 1000, 10))
    """
    buckets = Buckets(time, timesteps)
    path = Path(out)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        watch = _Watch(Path(folder), buckets, rows, seed, sums=path.suffix == ".parquet")
        handles = [module.register_forward_pre_hook(watch.hook(name)) for name, module in _chosen(model, layers)]
        hooks = TimeHooks(model, time_of)
        try:
            with torch.no_grad():
                run(model)
        finally:
            hooks.remove()
            for handle in handles:
                handle.remove()
        report = watch.write(path, time)
        watch.reservoirs.clear()
        watch.moments.clear()
    return report


def _chosen(model: nn.Module, layers: Any) -> list[tuple[str, nn.Module]]:
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    every: list[tuple[str, nn.Module]] = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    if layers is None:
        return every
    if isinstance(layers, str):
        return [(name, module) for name, module in every if re.search(layers, name)]
    if callable(layers):
        return [(name, module) for name, module in every if layers(name, module)]
    wanted = set(layers)
    if unknown := wanted - {name for name, _ in every}:
        raise ConfigError(f"no linear layer or convolution is called {sorted(unknown)[0]!r}")
    return [(name, module) for name, module in every if name in wanted]


class _Watch:
    """Takes what layers see."""

    def __init__(self, folder: Path, buckets: Buckets, rows: int, seed: int, sums: bool) -> None:
        self.folder, self.buckets, self.rows, self.sums = folder, buckets, rows, sums
        self.generator = torch.Generator().manual_seed(seed)
        self.reservoirs: dict[str, Reservoir] = {}
        #: Of every layer that has a reservoir, where statistics are written.
        self.moments: dict[str, Moments] = {}
        self.aliases: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        #: The layer that took an input first, while that tensor is alive.
        self.owners: dict[tuple[Any, ...], tuple[weakref.ref[Tensor], str]] = {}

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def see(module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor) and args[0].numel():
                self.see(name, module, args[0])

        return see

    def see(self, name: str, module: nn.Module, x: Tensor) -> None:
        if getattr(module, "groups", 1) != 1:
            self.notes[name] = "a convolution in groups has no one matrix of inputs"
            return
        time = current_time()
        if time is None:
            raise ConfigError(f"layer {name}: no time is set; use timestep(t) around the call, or time_of=")
        bucket = self.buckets.count_pass(time)
        if self._is_alias(name, module, x):
            return
        reservoir = self.reservoirs.get(name)
        rows, cols = _rows(module, x)
        if reservoir is None:
            file = self.folder / f"{len(self.reservoirs)}.rows"
            reservoir = self.reservoirs[name] = Reservoir(file, self.buckets.count, self.rows, cols)
            if self.sums:
                self.moments[name] = Moments(file.with_suffix(".sums"), self.buckets.count, cols)
        index = None
        if not reservoir.measure(bucket, x):
            index = rows.finite()
            reservoir.not_finite += len(rows) - len(index)
        enters, places = reservoir.choose(bucket, len(rows) if index is None else len(index), self.generator)
        if len(enters):
            enters = enters.to(x.device)
            reservoir.put(bucket, places, rows.take(enters if index is None else index[enters]))
        if self.sums:
            count = len(rows) if index is None else len(index)
            for piece in torch.split(torch.arange(count, device=x.device), max(1, PIECE // max(cols, 1))):
                self.moments[name].add(bucket, rows.take(piece if index is None else index[piece]))

    def _is_alias(self, name: str, module: nn.Module, x: Tensor) -> bool:
        """Whether another layer of the same form has just seen this very tensor, now and every time before."""
        key = (id(x), x._version, _form(module))
        found = self.owners.get(key)
        owner = found[1] if found is not None and found[0]() is x else None
        if owner is None or owner == name:
            self.owners = {k: v for k, v in self.owners.items() if v[0]() is not None}
            self.owners[key] = (weakref.ref(x), name)
        elif name not in self.reservoirs and self.aliases.setdefault(name, owner) == owner:
            return True
        if self.aliases.pop(name, None) is not None:
            self.notes[name] = "its input was that of another layer at first; rows are from then on"
        return False

    def write(self, path: Path, time: str) -> CalibrationReport:
        used = [bucket for bucket in range(self.buckets.count) if self.buckets.passes[bucket]]
        if not used:
            raise ConfigError("no layer was called: did run(model) call the model?")
        times = self.buckets.sum[used] / self.buckets.passes[used]
        self._warn(used)
        layers = [layer for name in self.reservoirs if (layer := self._layer(name, used)) is not None]
        names = [layer.name for layer in layers]
        aliases = {name: owner for name, owner in self.aliases.items() if owner in names}
        ranges = {name: self._ranges(name, used) for name in names}
        if self.sums:
            summed = [Summed(name, self.moments[name], self.reservoirs[name], used) for name in names]
            size = write_statistics(path, summed, times, time, aliases)
            kept = {name: int(self.reservoirs[name].filled()[used].min()) for name in names}
            return CalibrationReport(str(path), size, times.tolist(), kept, aliases, ranges, self.notes)
        metadata = {
            "aq.calibration": "samples/1",
            "aq.time": time,
            "aq.aliases": json.dumps(aliases),
            "aq.ranges": json.dumps(ranges),
        }
        size = write_samples(path, layers, times, metadata)
        rows = {layer.name: layer.rows for layer in layers}
        return CalibrationReport(str(path), size, times.tolist(), rows, aliases, ranges, self.notes)

    def _layer(self, name: str, used: list[int]) -> Layer | None:
        reservoir = self.reservoirs[name]
        rows = int(reservoir.filled()[used].min())
        if rows == 0:
            self.notes[name] = "it was not called at all times that other layers were"
            return None
        if reservoir.not_finite:
            self.notes[name] = f"{reservoir.not_finite} rows hold NaN or infinite values and are left out"
        elif reservoir.clipped:
            self.notes[name] = f"{reservoir.clipped} values beyond the range of float16 are clipped"
        return Layer(name, reservoir.data, used, rows)

    def _ranges(self, name: str, used: list[int]) -> dict[str, list[float]]:
        low, high = self.reservoirs[name].low[used], self.reservoirs[name].high[used]
        return {"min": low.tolist(), "max": high.tolist(), "absmax": np.maximum(-low, high).tolist()}

    def _warn(self, used: list[int]) -> None:
        if self.buckets.outside:
            text = f"times lie outside of {self.buckets.low:g} to {self.buckets.high:g}; give timesteps=(low, high, number)"
            warnings.warn(text, AqWarning, stacklevel=4)
        elif len(used) == 1 < self.buckets.count:
            warnings.warn("all times fall into one bucket; give timesteps=(low, high, number)", AqWarning, stacklevel=4)


def _form(module: nn.Module) -> tuple[Any, ...]:
    """What decides how a layer cuts its input into rows."""
    names = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    return tuple(getattr(module, name, None) for name in names)


class _Rows:
    """The rows of an input, of which few are ever made."""

    def __init__(self, values: Tensor, lead: int) -> None:
        self.values, self.places = values, values.shape[:lead]

    def __len__(self) -> int:
        return int(np.prod(self.places, dtype=np.int64))

    def finite(self) -> Tensor:
        """The rows without NaN or infinite values."""
        return self.values.reshape(len(self), -1).isfinite().all(-1).nonzero().flatten()

    def take(self, index: Tensor) -> Tensor:
        return self.values[torch.unravel_index(index, self.places)].reshape(len(index), -1)


def _rows(module: Any, x: Tensor) -> tuple[_Rows, int]:
    """The rows of a layer's input and their length: those of convolutions are unfolded, `channels * kernel` values each."""
    if isinstance(module, nn.Linear):
        return _Rows(x, x.ndim - 1), x.shape[-1]
    x = x[None] if x.ndim == len(module.kernel_size) + 1 else x
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = functional.pad(x, list(module._reversed_padding_repeated_twice), mode=mode)
    patches = windows(padded, module.kernel_size, module.stride, module.dilation)
    return _Rows(patches, x.ndim - 1), module.in_channels * int(np.prod(module.kernel_size))
