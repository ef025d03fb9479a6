"""Whole files: quantize, inspect, compare."""
from __future__ import annotations

import json
import os
from typing import Any, Unpack

from . import _native
from ._options import Options, Path, as_json
from ._progress import Bar, Callback, Told, chosen


def quantize(input: Path, output: Path, *, progress: bool | Callback = False, **options: Unpack[Options]) -> dict[str, Any]:
    """Quantizes a model file or folder, and returns the report: the object that `aq quantize --json` prints.

    Options have the names of the command's, with underscores: `bits`, `group_size` (0: the whole row), `method`, `calibration`,
    `profile`, `tensor_type` (a list of `REGEX=SPEC`) and the others of `Options`.

    `progress=True` shows a bar; a callable is given the bytes done, all bytes, and the tensor in work. Until the result is complete
    and verified, nothing is at `output`; after Ctrl-C, which raises `KeyboardInterrupt` within a second, neither.

    Raises `ConfigError`, `InputError`, `QualityError`, `ResourceError` or `AqError`.

        report = arrow_quant.quantize("model/", "out.parquet", bits=4, group_size=64)
        print(report["output"]["bits_per_weight"])
    """
    show = chosen(progress)
    try:
        return _object(_native.quantize(os.fspath(input), os.fspath(output), as_json(options), Told(show)))
    finally:
        if isinstance(show, Bar):
            show.close()


def inspect(path: Path) -> dict[str, Any]:
    """What is in a file that can be read: the object that `aq inspect --json` prints."""
    return _object(_native.Source.open(os.fspath(path)).inspect())


def compare(original: Path, quantized: Path, calibration: Path | None = None) -> dict[str, Any]:
    """The error of each tensor of a model against another: the object that `aq compare --json` prints.

    With a file of calibration samples also the error of each layer's outputs.
    """
    samples = None if calibration is None else os.fspath(calibration)
    return _object(_native.compare(os.fspath(original), os.fspath(quantized), samples))


def _object(text: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(text)
    return value
