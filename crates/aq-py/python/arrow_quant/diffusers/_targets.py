"""Which layers of a model are quantized while it loads."""
from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from torch import nn

from .. import _native
from .._errors import ConfigError
from .._options import as_json
from ..torch import Activations
from ..torch._layers import Layer, has_quantized_form
from ._config import ArrowQuantConfig


@dataclass(frozen=True)
class Target:
    """A layer and how its weight is quantized."""

    module: Layer
    #: Options of `quantize_array`.
    options: dict[str, Any]
    activations: Activations | None


def find_targets(model: nn.Module, config: ArrowQuantConfig) -> dict[str, Target]:
    """The linear layers and convolutions that the engine would quantize: all but those that rules, the list of the architecture and the
    configuration keep.
    """
    known = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    plan = json.loads(_native.plan(list(known.items()), as_json(config.options())))
    modules, inputs, targets = dict(model.named_modules()), None, {}
    if config.act_bits is not None:
        inputs = Activations(config.act_bits, "token")
    for layer in plan["layers"]:
        name, _, leaf = layer["name"].rpartition(".")
        module: Any = modules.get(name)
        if leaf != "weight" or layer["decision"] != "quantize" or not has_quantized_form(module):
            continue
        if not is_named(name, config.modules_to_not_convert):
            if layer["method"] not in ("ls", "minmax", "hqq"):
                raise ConfigError(f"layer {name}: method {layer['method']} needs a calibration or has no packed layout; use ls, minmax or hqq")
            options = {**config.options(), "tensor_type": None} | {key: layer[key] for key in ("bits", "group_size", "method")}
            targets[name] = Target(module, options, inputs)
    return targets


def is_named(name: str, kept: list[str]) -> bool:
    """Whether a module, or one that it is in, has one of these names, in whole or between dots."""
    parts = f".{name}."
    return any(f".{part}." in parts for part in kept)
