"""Writes a quantized file as a folder that diffusers loads."""
from __future__ import annotations

import os

from .. import _native


def pack(
    quantized: str | os.PathLike[str],
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    max_shard_size: str | int = "10GB",
) -> None:
    """Writes what `quantize` made of a model as a diffusers folder, which `from_pretrained(out)` loads with no argument: what
    `aq convert QUANTIZED -o OUT --format diffusers --model MODEL` does. `quantize(model, out, format="diffusers")` writes one at once.

    `model` is the folder of the original, for its `config.json`. Layers are of codec `affine`: methods `ls`, `minmax`, `hqq` and, with a
    calibration, `gptq`, with rotation, smoothing, low-rank parts and quantized inputs where the file has them. Codes stay as they are.
    Memory is needed for some rows at a time. The folder appears complete or not at all.

    Raises `InputError` for a layer of another codec or a model without configuration, and `AqError` when `out` exists.

        arrow_quant.quantize("dit/", "dit.parquet", bits=4, method="gptq", calibration="calib.safetensors")
        arrow_quant.diffusers.pack("dit.parquet", "dit/", "dit-4bit")
    """
    _native.convert(os.fspath(quantized), os.fspath(out), "diffusers", os.fspath(model), str(max_shard_size))
