"""Puts a quantized model into a torch module."""
from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._arrays import STORED
from .._errors import InputError
from .._model import Tensor as Stored, open as open_model
from ._activations import Activations, read_activations
from ._layers import has_quantized_form, quantized_like
from ._time import TimeHooks, TimeOf


@dataclass
class LoadReport:
    """What `load_into` did, by names of the file's tensors and of the module's."""

    #: Weights of layers that were replaced and stay quantized.
    quantized: list[str] = field(default_factory=list)
    #: Tensors that are plain: those the file keeps, and quantized ones whose layer has no quantized form.
    loaded: list[str] = field(default_factory=list)
    #: Tensors of the module that the file does not have.
    missing: list[str] = field(default_factory=list)
    #: Tensors of the file that the module does not have.
    unexpected: list[str] = field(default_factory=list)
    #: Layers whose inputs are quantized.
    activations: list[str] = field(default_factory=list)


def load_into(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    decoded: torch.dtype = torch.float16,
    time_of: TimeOf | None = None,
) -> LoadReport:
    """Replaces the linear layers and convolutions whose weights a file has quantized, and loads its other tensors.

    Tensors keep the type and device that the module has them in; those on the meta device come to the CPU in the
    type of the file. Codec `affine` is held as stored, the others are decoded into `decoded`: float16, bfloat16, float32, or int8 for
    codes of 8 bits. Where inputs are quantized by time, the
    time comes from `timestep(t)` around a call, else from `time_of(args, kwargs)`, else from an argument of the module's
    forward named timestep, t or sigma.

    Raises `InputError` when a shape differs.

        model = DiTTransformer2DModel(**config)
        report = arrow_quant.torch.load_into(model, "model.parquet")
        assert not report.missing
    """
    model, report = open_model(path), LoadReport()
    activations = read_activations(model.metadata)
    targets = dict(module.state_dict(keep_vars=True))
    for name, stored in model.items():
        target = targets.get(name)
        if target is None:
            report.unexpected.append(name)
            continue
        if tuple(target.shape) != stored.shape:
            raise InputError(f"tensor {name!r} has shape {list(stored.shape)}, but {list(target.shape)} in the module")
        if _replace(module, name, stored, activations.get(name.removesuffix(".weight")), decoded, report):
            report.quantized.append(name)
        else:
            _assign(module, name, _plain(stored, target))
            report.loaded.append(name)
    report.missing = [name for name in targets if name not in model]
    if any(plan.boundaries for plan in activations.values()):
        TimeHooks(module, time_of)
    return report


def _replace(
    module: nn.Module,
    name: str,
    stored: Stored,
    activations: Activations | None,
    decoded: torch.dtype,
    report: LoadReport,
) -> bool:
    """Puts a quantized layer in the place of a plain one; False when there is none for it."""
    path, _, leaf = name.rpartition(".")
    old: Any = module.get_submodule(path) if leaf == "weight" and path else None
    if not stored.is_quantized or old is None or not has_quantized_form(old):
        return False
    new = quantized_like(old, stored, activations, decoded)
    if not old.weight.is_meta:
        new.packed.to(old.weight.device)
        new.compute_dtype = old.weight.dtype
    if new.activations is not None:
        report.activations.append(path)
    parent, _, child = path.rpartition(".")
    setattr(module.get_submodule(parent), child, new)
    return True


def _plain(stored: Stored, target: Tensor) -> Tensor:
    """A tensor of the file in the type of its place, or in its own type where that is on the meta device."""
    if stored.src_dtype == "BF16" and not stored.is_quantized:
        values = torch.from_numpy(np.array(stored.codes).view(np.int16)).view(torch.bfloat16).reshape(stored.shape)
    elif stored.is_quantized or STORED[stored.src_dtype] in ("u1", "<u2"):
        values = torch.from_numpy(np.array(stored.dequantize()))
    else:
        values = torch.from_numpy(np.array(stored.codes).view(STORED[stored.src_dtype]).reshape(stored.shape))
    return values if target.is_meta else values.to(target.device, target.dtype)


def _assign(module: nn.Module, name: str, values: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    old = getattr(owner, leaf)
    if not old.is_meta:
        with torch.no_grad():
            old.copy_(values)
    elif isinstance(old, nn.Parameter):
        setattr(owner, leaf, nn.Parameter(values, requires_grad=False))
    else:
        owner.register_buffer(leaf, values)


def memory_bytes(module: nn.Module, *, weights_only: bool = False) -> int:
    """Bytes of all parameters and buffers of a module, each storage counted once; with `weights_only` without the biases of layers."""
    seen: dict[int, int] = {}
    tensors = list(module.named_parameters()) + list(module.named_buffers())
    for name, tensor in tensors:
        if not (weights_only and name.rpartition(".")[2] == "bias"):
            storage = tensor.untyped_storage()
            seen[storage.data_ptr() or -len(seen)] = storage.nbytes()
    return sum(seen.values())
