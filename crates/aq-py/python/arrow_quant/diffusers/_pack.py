"""Writes a quantized file as a folder that diffusers loads."""
from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor

from .._errors import AqError, InputError
from .._model import Model, Tensor as Stored, open as open_model
from ..torch import Form, PackedWeight
from ..torch._load import _plain
from ._config import ArrowQuantConfig

#: What diffusers calls the files of a model.
PATTERN = "diffusion_pytorch_model{suffix}.safetensors"


def pack(
    quantized: str | os.PathLike[str],
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    max_shard_size: str | int = "10GB",
) -> None:
    """Writes what `quantize` made of a model as a diffusers folder, which `from_pretrained(out)` loads with no argument.

    `model` is the folder of the original, for its `config.json`. Layers are of codec `affine`: methods `ls`, `minmax`, `hqq` and, with a
    calibration, `gptq`, with rotation, smoothing, low-rank parts and quantized inputs where the file has them. Codes stay as they are.
    All of the quantized model is in memory once. The folder appears complete or not at all.

    Raises `InputError` for a layer of another codec or a model without configuration, and `AqError` when `out` exists.

        arrow_quant.quantize("dit/", "dit.parquet", bits=4, method="gptq", calibration="calib.safetensors")
        arrow_quant.diffusers.pack("dit.parquet", "dit/", "dit-4bit")
    """
    file, target = open_model(quantized), Path(out)
    if target.exists():
        raise AqError(f"{target} exists")
    config = _read_config(Path(model) / "config.json")
    tensors: dict[str, Tensor] = {}
    forms: dict[str, Form] = {}
    for name, stored in file.items():
        if _is_layer(name, stored):
            layer, weight = name.removesuffix(".weight"), PackedWeight(stored)
            tensors |= {f"{layer}.packed.{part}": value for part, value in weight.state_dict().items()}
            forms[layer] = Form.of(stored)
        else:
            tensors[name] = _plain(stored, torch.empty(0, device="meta"))
    said = _said(file, forms)
    config["quantization_config"] = said.to_dict()
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        metadata = {"format": "pt", "aq.layout": str(said.version)}
        save_torch_state_dict(tensors, folder, filename_pattern=PATTERN, max_shard_size=max_shard_size, metadata=metadata)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        folder.chmod(0o755)
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the configuration of the model cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: the configuration of the model is no JSON object")
    return config


def _is_layer(name: str, stored: Stored) -> bool:
    """Whether a tensor is packed; others are stored plain."""
    if not stored.is_quantized or len(stored.shape) < 2 or not name.endswith(".weight"):
        return False
    if not stored.codec.startswith("affine"):
        raise InputError(f"tensor {name!r} of codec {stored.codec} has no packed layout; quantize with ls, gptq, minmax or hqq")
    return True


def _said(file: Model, forms: Mapping[str, Form]) -> ArrowQuantConfig:
    """What the configuration says of the layers."""
    first = next(iter(forms.values()), Form(4, 64))
    activations = json.loads(file.metadata.get("aq.activations", "null"))
    said = ArrowQuantConfig(bits=first.bits, group_size=first.group_size, activations=activations)
    said.set_forms(forms)
    return said
