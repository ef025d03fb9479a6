"""Calibration samples on disk, written piece by piece."""
from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

#: Bytes written at a time.
PIECE = 1 << 24


class Layer(NamedTuple):
    """A layer's name and its rows `[buckets, rows, cols]`, float16, of which `buckets` and the first `rows` are written."""

    name: str
    data: np.ndarray
    buckets: list[int]
    rows: int


def write_samples(path: Path, layers: Iterable[Layer], times: np.ndarray, metadata: Mapping[str, str]) -> int:
    """Writes a samples file: safetensors with one float16 tensor `[T, N, in]` a layer and `timesteps`. Returns its bytes.

    It is written beside its place, synced, and moved there in one step; no more than some megabytes are held.
    """
    layers = list(layers)
    shapes = {layer.name: ("F16", 2, [len(layer.buckets), layer.rows, layer.data.shape[2]]) for layer in layers}
    shapes["timesteps"] = ("F32", 4, [len(times)])
    header = _header(shapes, metadata)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            file.write(header)
            for layer in layers:
                _write_layer(file, layer)
            file.write(times.astype("<f4").tobytes())
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return size


def _header(shapes: Mapping[str, tuple[str, int, list[int]]], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name, (dtype, size, shape) in shapes.items():
        end = at + size * int(np.prod(shape, dtype=np.int64))
        header[name], at = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}, end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_layer(file: BinaryIO, layer: Layer) -> None:
    step = max(1, PIECE // (2 * layer.data.shape[2]))
    for bucket in layer.buckets:
        for first in range(0, layer.rows, step):
            rows = layer.data[bucket, first : min(first + step, layer.rows)]
            file.write(np.ascontiguousarray(rows, "<f2").tobytes())
